"""Sparse dictionaries of activations: sparse autoencoders and transcoders."""

from analyses.dictionaries.dictionary import Dictionary, DictionaryConfig, Kind, Normalisation
from analyses.dictionaries.formats.published import load_published
from analyses.dictionaries.formats.token_normalised import TokenNormalised
from analyses.dictionaries.loading import embedded_dictionaries, load_dictionary
from analyses.dictionaries.null import random_dictionary
from analyses.dictionaries.reading.class_space import (
    LatentCoherence,
    compare_coherence,
    decoder_logits,
    latent_classes,
    latent_coherence,
    stream_directions,
)
from analyses.dictionaries.reading.direct import DirectEffects, direct_effect_names, direct_effects
from analyses.dictionaries.reading.latent_effects import LatentAttribution, latent_attribution, latent_patching
from analyses.dictionaries.reading.steering import DoseResponse, dose_response
from analyses.dictionaries.reading.top_pictures import LatentSurvey, latent_maps, survey_latents
from analyses.dictionaries.scores.factors import Factors, label_factors, scene_factors
from analyses.dictionaries.scores.features import (
    Features,
    latent_features,
    neuron_features,
    pca_features,
    value_vector_features,
)
from analyses.dictionaries.scores.fidelity import dead_latents, explained_variance, mean_l0, recovered
from analyses.dictionaries.scores.hierarchy import absorption, splitting
from analyses.dictionaries.scores.monosemanticity import compare_features, factor_scores, factor_summary
from analyses.dictionaries.scores.over_dataset import DictionaryFidelity
from analyses.dictionaries.scores.pooling import PooledFeatures, pool_features
from analyses.dictionaries.scores.probing import sparse_probes
from analyses.dictionaries.scores.ranking import auroc, best_f1, f1_at
from analyses.dictionaries.scores.stability import Stability, decoder_stability
from analyses.dictionaries.training.fitting import DictionaryFit, FitOptions
from analyses.dictionaries.training.objectives import Objective, Weights, auxiliary_loss, objective
from analyses.dictionaries.training.planted import PlantedFeatures, mean_max_cosine
from analyses.dictionaries.training.streaming import ActivationStream
from analyses.dictionaries.training.training import train_dictionary

__all__ = [
    "ActivationStream",
    "Dictionary",
    "DictionaryConfig",
    "DictionaryFidelity",
    "DictionaryFit",
    "DirectEffects",
    "DoseResponse",
    "Factors",
    "Features",
    "FitOptions",
    "Kind",
    "LatentAttribution",
    "LatentCoherence",
    "LatentSurvey",
    "Normalisation",
    "Objective",
    "PlantedFeatures",
    "PooledFeatures",
    "Stability",
    "TokenNormalised",
    "Weights",
    "absorption",
    "auroc",
    "auxiliary_loss",
    "best_f1",
    "compare_coherence",
    "compare_features",
    "dead_latents",
    "decoder_logits",
    "decoder_stability",
    "direct_effect_names",
    "direct_effects",
    "dose_response",
    "embedded_dictionaries",
    "explained_variance",
    "f1_at",
    "factor_scores",
    "factor_summary",
    "label_factors",
    "latent_attribution",
    "latent_classes",
    "latent_coherence",
    "latent_features",
    "latent_maps",
    "latent_patching",
    "load_dictionary",
    "load_published",
    "mean_l0",
    "mean_max_cosine",
    "neuron_features",
    "objective",
    "pca_features",
    "pool_features",
    "random_dictionary",
    "recovered",
    "scene_factors",
    "sparse_probes",
    "splitting",
    "stream_directions",
    "survey_latents",
    "train_dictionary",
    "value_vector_features",
]

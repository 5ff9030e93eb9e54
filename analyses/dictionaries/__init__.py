"""Sparse dictionaries of activations: sparse autoencoders and transcoders."""

from analyses.dictionaries.dictionary import Dictionary, DictionaryConfig, Kind, Normalisation
from analyses.dictionaries.fitting import DictionaryFit, FitOptions
from analyses.dictionaries.loading import embedded_dictionaries, load_dictionary
from analyses.dictionaries.null import random_dictionary
from analyses.dictionaries.objectives import Objective, Weights, auxiliary_loss, objective
from analyses.dictionaries.planted import PlantedFeatures, mean_max_cosine
from analyses.dictionaries.streaming import ActivationStream
from analyses.dictionaries.training import train_dictionary

__all__ = [
    "ActivationStream",
    "Dictionary",
    "DictionaryConfig",
    "DictionaryFit",
    "FitOptions",
    "Kind",
    "Normalisation",
    "Objective",
    "PlantedFeatures",
    "Weights",
    "auxiliary_loss",
    "embedded_dictionaries",
    "load_dictionary",
    "mean_max_cosine",
    "objective",
    "random_dictionary",
    "train_dictionary",
]

"""Sparse dictionaries of activations: sparse autoencoders and transcoders."""

from analyses.dictionaries.dictionary import Dictionary, DictionaryConfig, Kind, Normalisation
from analyses.dictionaries.loading import embedded_dictionaries, load_dictionary
from analyses.dictionaries.null import random_dictionary

__all__ = [
    "Dictionary",
    "DictionaryConfig",
    "Kind",
    "Normalisation",
    "embedded_dictionaries",
    "load_dictionary",
    "random_dictionary",
]

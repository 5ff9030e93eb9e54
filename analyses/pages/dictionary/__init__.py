"""Dictionary: the latents of a sparse dictionary, with their pictures and scores, as one interactive HTML page."""

from analyses.pages.dictionary.build import DictionaryPage, dictionary_page

__all__ = ["DictionaryPage", "dictionary_page"]

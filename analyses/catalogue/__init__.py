"""The one table of analyses: name -> class, command-line name, figure, definition and headline numbers."""

from analyses.catalogue.definitions import Definition
from analyses.catalogue.entries import CATALOGUE, Entry, definition_of, figures_of
from analyses.catalogue.headlines import Headline

__all__ = ["CATALOGUE", "Definition", "Entry", "Headline", "definition_of", "figures_of"]

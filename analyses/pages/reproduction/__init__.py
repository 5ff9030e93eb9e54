"""Reproduction: all studies of the paper, or of its rehearsal, as one HTML page."""

from analyses.pages.reproduction.build import ReproductionPage, reproduction_page
from analyses.pages.reproduction.comparison import Comparison, compare_with_published

__all__ = ["Comparison", "ReproductionPage", "compare_with_published", "reproduction_page"]

"""Explorer: one picture through one model, as one HTML page."""

from analyses.pages.explorer.build import ExplorerPage, explore

__all__ = [
    "ExplorerPage",
    "explore",
]

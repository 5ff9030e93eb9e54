"""Explorer: one picture or two, and one model, as one interactive HTML page."""

from analyses.pages.explorer.build import ExplorerPage, explore

__all__ = [
    "ExplorerPage",
    "explore",
]

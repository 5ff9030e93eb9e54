"""Explorer: one picture and one model, as one interactive HTML page."""

from analyses.pages.explorer.build import ExplorerPage, explore

__all__ = [
    "ExplorerPage",
    "explore",
]

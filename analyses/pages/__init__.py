"""Explorer and report pages: each is one self-contained HTML file that loads nothing from the network."""

from analyses.pages.page import picture_url, render_page, write_page

__all__ = ["picture_url", "render_page", "write_page"]

"""What explorer and report pages are made of: one self-contained HTML file that asks the network for nothing."""

from analyses.pages.page import picture_url, render_page, write_page

__all__ = ["picture_url", "render_page", "write_page"]

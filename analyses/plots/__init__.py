"""Figures of results; they compute no results themselves."""

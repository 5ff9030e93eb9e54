"""Plots: they take results and draw them, and compute nothing of their own."""

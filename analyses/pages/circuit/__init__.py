"""Circuit: the edges that carry the difference between two pictures, as one interactive HTML page."""

from analyses.pages.circuit.build import CircuitPage, circuit_page

__all__ = ["CircuitPage", "circuit_page"]

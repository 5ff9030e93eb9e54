"""Figures that a notebook displays, whether or not it has imported pyplot."""

import io
from typing import Any

import matplotlib.figure

__all__ = ["Figure"]

_PIXELS_PER_INCH = 96  # of CSS


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that is a picture as the last value of a notebook's cell.

    IPython displays matplotlib's own figures only after pyplot or `%matplotlib inline` has registered them; then it
    displays these in the same way.

    >>> figure = Figure(figsize=(2, 1))
    >>> png, size = figure._repr_png_()
    >>> png[1:4], size
    (b'PNG', {'width': 192, 'height': 96})
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        buffer = io.BytesIO()
        # at least two pixels for each of the screen's, which may be fine
        self.savefig(buffer, format="png", dpi=max(self.dpi, 2 * _PIXELS_PER_INCH))
        width, height = (round(inches * _PIXELS_PER_INCH) for inches in self.get_size_inches())
        return buffer.getvalue(), {"width": width, "height": height}

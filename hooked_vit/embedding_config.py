"""How a model that takes images of any grid embeds them: the projection of patches, and positions for each grid."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LinearPatches:
    """Patches that are flattened and multiplied by a matrix, not convolved, so that a batch may hold any grids.

    Attributes:
        channels_last: The order of a patch's pixels in the matrix: (row, column, channel), or (channel, row, column).
        given_channels_last: Their order in a batch of sequences (see `PatchSequences`).
        centred: Whether the model takes pixels from 0 to 1 and maps them to -1 to 1 itself.
    """

    channels_last: bool = True
    given_channels_last: bool = True
    centred: bool = False


@dataclass(frozen=True)
class GridPositions:
    """Positions that are brought to the grid of each image.

    Attributes:
        grid: Height and width of the grid that they were learnt on.
        kind: `"grid"`: one vector per cell, resampled. `"axes"`: the sum of a row's and a column's vector, both
            resampled. `"lookup"`: the same sum, of the vectors stored for that row and column.
        mode: The interpolation.
        antialias: Whether it is antialiased.
        align_corners: Whether the corners of the two grids coincide.
        keep_aspect: Whether positions are resampled to a square of the longer side, whose top left is used.
        sampled: Whether sequences sample them at each patch instead of resampling the grid.
    """

    grid: tuple[int, int]
    kind: Literal["grid", "axes", "lookup"] = "grid"
    mode: str = "bicubic"
    antialias: bool = True
    align_corners: bool = False
    keep_aspect: bool = False
    sampled: bool = False

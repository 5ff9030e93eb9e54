"""The emoji pictures as one table of texels, at all sizes from which scenes are drawn."""

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from einops import rearrange
from jaxtyping import Float64, Int64, UInt64
from PIL import Image

from analyses.data.emoji_scenes.classes import ARTISTS, emoji_classes
from analyses.data.emoji_scenes.resizing import resampling_matrix

__all__ = ["SpriteTable", "sprite_table"]

_SPRITE_SIZE = 64
_GRID = 10
# half octaves: with at least 1.2 texels per pixel, bilinear sampling never skips more than 1.7
_SIZES = (64, 45, 32, 23, 16, 11, 8)
_TEXELS_PER_PIXEL = 1.2
_UNIT = 1024
_BORDER_BEFORE, _BORDER_AFTER = 1, 2


@dataclass(frozen=True)
class SpriteTable:
    """All sprites of all artists at all sizes, in one flat array.

    A texel is one 64-bit word with four 16-bit lanes, from the lowest: red, green, blue (premultiplied by
    alpha), alpha; each 0 to 255. A sprite of size S is a square of S + 3 texels: a transparent border of one
    before and two after, so that clamped coordinates read nothing.
    """

    texels: UInt64[np.ndarray, "texel"]
    sizes: Int64[np.ndarray, "level"]
    starts: Int64[np.ndarray, "level"]

    def strides(self, levels: Int64[np.ndarray, "sprite"]) -> Int64[np.ndarray, "sprite"]:
        """Texels from one row to the next at these levels."""
        return self.sizes[levels] + _BORDER_BEFORE + _BORDER_AFTER

    def find(
        self,
        artists: Int64[np.ndarray, "sprite"],
        labels: Int64[np.ndarray, "sprite"],
        levels: Int64[np.ndarray, "sprite"],
    ) -> Int64[np.ndarray, "sprite"]:
        """The index in `texels` of each sprite's first texel (of its border)."""
        sprites = artists * len(emoji_classes()) + labels
        return self.starts[levels] + sprites * self.strides(levels) ** 2

    def levels_for(self, widths: Float64[np.ndarray, "sprite"]) -> Int64[np.ndarray, "sprite"]:
        """The level from which to draw objects of these widths in pixels: sharp, but not so fine as to alias."""
        fine_enough = self.sizes[:, None] >= _TEXELS_PER_PIXEL * widths
        return np.maximum(fine_enough.sum(axis=0) - 1, 0)


@cache
def sprite_table() -> SpriteTable:
    """The table of all sprites, built once per process from the atlases in `sprites/`.

    >>> table = sprite_table()
    >>> table.sizes
    array([64, 45, 32, 23, 16, 11,  8])
    """
    sprites = np.concatenate([_premultiplied_sprites(artist) for artist in ARTISTS])
    tables = [_packed(_resized(sprites, size)) for size in _SIZES]
    lengths = [table.size for table in tables]
    return SpriteTable(
        texels=np.concatenate([table.reshape(-1) for table in tables]),
        sizes=np.array(_SIZES),
        starts=np.cumsum([0, *lengths[:-1]]),
    )


def _premultiplied_sprites(artist: str) -> np.ndarray:
    with (resources.files("analyses.data.emoji_scenes") / "sprites" / f"{artist}.png").open("rb") as file:
        atlas = np.asarray(Image.open(file).convert("RGBA"), dtype=np.int64)
    sprites = rearrange(
        atlas, "(row height) (column width) channel -> (row column) channel height width", row=_GRID, column=_GRID
    )
    alpha = sprites[:, 3:]
    return np.concatenate([(sprites[:, :3] * alpha + 127) // 255, alpha], axis=1)


def _resized(sprites: np.ndarray, size: int) -> np.ndarray:
    if size == _SPRITE_SIZE:
        return sprites
    shrink = resampling_matrix(size, _SPRITE_SIZE, _UNIT)
    resized = np.rint(shrink @ sprites.astype(np.float64) @ shrink.T / _UNIT**2)
    alpha = np.clip(resized[:, 3:], 0, 255)
    # the cubic kernel overshoots at edges; no colour may exceed its alpha
    return np.concatenate([np.clip(resized[:, :3], 0, alpha), alpha], axis=1).astype(np.int64)


def _packed(sprites: np.ndarray) -> np.ndarray:
    lanes = sprites.astype(np.uint64) << (np.uint64(16) * np.arange(4, dtype=np.uint64))[:, None, None]
    border = (_BORDER_BEFORE, _BORDER_AFTER)
    return np.pad(lanes.sum(axis=1, dtype=np.uint64), ((0, 0), border, border))

"""Pictures from scene layouts: background, objects, occluders and pixel noise, a batch at a time.

Every step is whole-number arithmetic or a single IEEE operation per value, so a layout gives the same bytes on every
machine, in any batch and with any number of threads.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8

from analyses.data.emoji_scenes.draws import GAUSSIAN_STD, gaussian_noise
from analyses.data.emoji_scenes.layout import SceneLayout
from analyses.data.emoji_scenes.resizing import resampling_matrix
from analyses.data.emoji_scenes.sprite_table import sprite_table

__all__ = ["MASK_ALPHA", "RenderedScenes", "render"]

MASK_ALPHA = 128
"""A pixel belongs to an object if the object fills at least this much of it, out of 255."""

_BACKGROUND_NOISE = {2: 24, 4: 16, 8: 11, 16: 8, 32: 6}
"""Cells across the picture -> amplitude (standard deviation) of the noise, in units of `_BACKGROUND_STEP`."""
_BACKGROUND_STEP = 0.005
_PIXEL_NOISE = 0.03
# Whole numbers whose products float32 sums exactly: noise up to 127 × all amplitudes × unit² × the kernel's
# overshoot is below 2^24.
_UNIT = 32
_COARSER = 4
# Texels are sampled at sixteenths: 255 × 16² just fits the sixteen bits of a texel's lane.
_STEP_BITS = 4
_STEPS = 1 << _STEP_BITS
# Pixels drawn together: enough to keep numpy busy, few enough for intermediate results to stay in the cache.
_CHUNK_PIXELS = 32 * 64**2


@dataclass(frozen=True)
class RenderedScenes:
    """Pictures, and how much of each pixel each object fills: 0 to 255, without what later objects cover."""

    pixels: UInt8[np.ndarray, "batch channel=3 height width"]
    alphas: UInt8[np.ndarray, "batch object height width"]


def render(layout: SceneLayout, image_size: int) -> RenderedScenes:
    """Draw scenes of `image_size` pixels a side, on as many threads as torch has.

    >>> from analyses.data import EmojiScenes
    >>> rendered = render(EmojiScenes(5, seed=0).layout([0, 3]), image_size=32)
    >>> rendered.pixels.shape, rendered.alphas.shape
    ((2, 3, 32, 32), (2, 1, 32, 32))
    """
    batch, n_objects = layout.labels.shape
    pixels = np.empty((batch, 3, image_size, image_size), dtype=np.uint8)
    alphas = np.empty((batch, n_objects, image_size, image_size), dtype=np.uint8)
    step = max(1, _CHUNK_PIXELS // image_size**2)
    chunks = [slice(start, min(start + step, batch)) for start in range(0, batch, step)]

    def draw(chunk: slice) -> None:
        pixels[chunk], alphas[chunk] = _render_chunk(layout.rows(chunk), image_size)

    n_threads = min(torch.get_num_threads(), len(chunks))
    if n_threads <= 1:
        for chunk in chunks:
            draw(chunk)
    else:
        sprite_table()  # so that the threads do not each make it
        with ThreadPoolExecutor(n_threads) as threads:
            list(threads.map(draw, chunks))
    return RenderedScenes(pixels, alphas)


def _render_chunk(layout: SceneLayout, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    canvas = _background(layout, image_size)
    alphas = np.zeros((*layout.labels.shape, image_size, image_size), dtype=np.float32)
    for slot in range(layout.labels.shape[1]):
        present = layout.labels[:, slot] >= 0
        if present.all():
            _blend(canvas, alphas, layout, slot)
        elif present.any():
            part, part_alphas = canvas[present], alphas[present]
            _blend(part, part_alphas, layout.rows(present), slot)
            canvas[present], alphas[present] = part, part_alphas
    _occlude(canvas, alphas, layout)
    noise = gaussian_noise(layout.noise_keys, canvas[0].size).reshape(canvas.shape)
    noise *= np.float32(_PIXEL_NOISE / GAUSSIAN_STD)
    canvas += noise
    return _to_bytes(canvas), _to_bytes(alphas)


def _blend(canvas: np.ndarray, alphas: np.ndarray, layout: SceneLayout, slot: int) -> None:
    colour, alpha = _object(layout, slot, canvas.shape[-1])
    uncovered = 1 - alpha[:, None]
    canvas *= uncovered
    canvas += colour
    alphas *= uncovered
    alphas[:, slot] = alpha


def _to_bytes(x: np.ndarray) -> np.ndarray:
    x *= np.float32(255)
    x += np.float32(0.5)
    return np.clip(x, 0, 255, out=x).astype(np.uint8)


def _background(layout: SceneLayout, image_size: int) -> np.ndarray:
    """A colour plus noise of five grain sizes, each enlarged by cubic interpolation."""
    batch = len(layout)
    noise = gaussian_noise(layout.background_keys, 3 * sum(cells**2 for cells in _BACKGROUND_NOISE))
    noise = np.rint(noise / _COARSER)
    widened, start = [], 0
    for cells, amplitude in _BACKGROUND_NOISE.items():
        grain = noise[:, start : start + 3 * cells**2].reshape(batch, 3, cells, cells)
        widened.append((grain * np.float32(amplitude)) @ _enlarge(image_size, cells).T)
        start += 3 * cells**2
    # rows of all grains side by side: one product enlarges them downwards and adds them up
    downwards = np.concatenate([_enlarge(image_size, cells) for cells in _BACKGROUND_NOISE], axis=1)
    # in bands, because OpenBLAS starts threads for larger products, which then fight with ours
    band_rows = image_size if image_size <= 64 else 8
    bands = rearrange(downwards, "(band row) cell -> band row cell", row=band_rows)
    canvas = (bands @ np.concatenate(widened, axis=2)[:, :, None]).reshape(batch, 3, image_size, image_size)
    canvas *= np.float32(_BACKGROUND_STEP * _COARSER / (GAUSSIAN_STD * _UNIT**2))
    canvas += layout.background_colours[:, :, None, None].astype(np.float32)
    return np.clip(canvas, 0, 1, out=canvas)


@cache
def _enlarge(image_size: int, cells: int) -> np.ndarray:
    return resampling_matrix(image_size, cells, _UNIT).astype(np.float32)


def _object(layout: SceneLayout, slot: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour [batch 3 height width], already multiplied by alpha, and alpha [batch height width]: 0 to 1."""
    table = sprite_table()
    scales = layout.scales[:, slot]
    levels = table.levels_for(scales * image_size)
    across, down = _texel_coordinates(layout, slot, image_size, table.sizes[levels])
    strides = table.strides(levels)[:, None, None]
    starts = table.find(layout.artists[:, slot], layout.labels[:, slot], levels)[:, None, None]
    corner = starts + (down >> _STEP_BITS) * strides + (across >> _STEP_BITS)
    right, low = ((steps & (_STEPS - 1)).astype(np.uint64) for steps in (across, down))
    left, high = np.uint64(_STEPS) - right, np.uint64(_STEPS) - low
    this, next_ = table.texels, table.texels[1:]
    texels = (this.take(corner) * left + next_.take(corner) * right) * high
    corner += strides
    texels += (this.take(corner) * left + next_.take(corner) * right) * low
    # four channels in each multiplication: no lane overflows into the next
    lanes = rearrange(texels.view(np.uint16), "batch height (width lane) -> batch lane height width", lane=4)
    # rounded to bytes, so that the blended alpha is exactly the returned one: where it is 0, nothing changes
    rgba = ((lanes + np.uint16(_STEPS**2 // 2)) >> np.uint16(2 * _STEP_BITS)).astype(np.float32, order="C")
    rgba *= np.float32(1 / 255)
    colour, alpha = rgba[:, :3], rgba[:, 3]
    colour *= layout.gains[:, slot, :, None, None].astype(np.float32)
    np.minimum(colour, alpha[:, None], out=colour)
    return colour, alpha


def _texel_coordinates(
    layout: SceneLayout, slot: int, image_size: int, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The position of each pixel's centre in its sprite, in sixteenths of a texel from the border's first texel."""
    tilt = layout.tilts[:, slot]
    # cosine and sine from the tangent of half the angle: division rounds the same on every machine, cos may not
    cosine, sine = (1 - tilt * tilt) / (1 + tilt * tilt), 2 * tilt / (1 + tilt * tilt)
    zoom = _STEPS * sizes / layout.scales[:, slot]
    mirror = np.where(layout.mirrored[:, slot], -1.0, 1.0)
    offset = (np.arange(image_size) + 0.5) / image_size - layout.centres[:, slot, :, None]
    x, y = offset[:, 0, None, :], offset[:, 1, :, None]
    middle = (_STEPS * (sizes / 2 + 0.5))[:, None, None]
    last = (_STEPS * (sizes + 1)).astype(np.int32)[:, None, None]

    def along(x_factor: np.ndarray, y_factor: np.ndarray) -> np.ndarray:
        x_part = (x_factor * zoom)[:, None, None] * x
        y_part = (y_factor * zoom)[:, None, None] * y + middle
        position = x_part.astype(np.float32) + y_part.astype(np.float32)
        steps = np.rint(position, out=position).astype(np.int32)
        return np.minimum(np.maximum(steps, 0, out=steps), last, out=steps)

    return along(cosine * mirror, sine * mirror), along(-sine, cosine)


def _occlude(canvas: np.ndarray, alphas: np.ndarray, layout: SceneLayout) -> None:
    pixel = np.arange(canvas.shape[-1])
    for slot in range(layout.labels.shape[1]):
        rows = layout.occluders[:, slot].any(axis=1)
        if rows.any():
            left, top, right, bottom = layout.occluders[rows, slot].T[:, :, None, None]
            within = (pixel >= left) & (pixel < right) & (pixel[:, None] >= top) & (pixel[:, None] < bottom)
            colours = layout.occluder_colours[rows, slot, :, None, None].astype(np.float32)
            canvas[rows] = np.where(within[:, None], colours, canvas[rows])
            alphas[rows] = np.where(within[:, None], np.float32(0), alphas[rows])

"""Explorer: one picture through one model, as one HTML page to look around in."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from analyses.pages.explorer.content import explorer_data
from analyses.pages.page import picture_url, render_page, write_page
from analyses.plots.patch_maps import picture_of
from hooked_vit import HookedViT
from hooked_vit.preprocessing import as_picture

__all__ = ["ExplorerPage", "explore"]

_SMALL = 160  # pixels; pictures up to this are kept as they are, and shown with their pixels


@dataclass(frozen=True)
class ExplorerPage:
    """A page, whole: no file beside it, no server, no network. A notebook shows it where it stands.

    Attributes:
        html: The page.
    """

    html: str

    def save(self, path: str | Path) -> Path:
        """Write the page to a file; folders that are missing are made."""
        return write_page(self.html, path)

    def _repr_html_(self) -> str:
        # sandboxed: its script runs, in a world of its own that cannot reach the notebook
        return (
            '<iframe title="Explorer" sandbox="allow-scripts" style="width: 100%; height: 820px; border: 0" '
            f'srcdoc="{html.escape(self.html)}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"ExplorerPage({len(self.html) / 1e6:.1f} MB): .save(path) writes it, a notebook shows it"


def explore(
    model: HookedViT,
    image: Any,
    classes: Sequence[int | str] = (),
    *,
    title: str | None = None,
    model_name: str | None = None,
) -> ExplorerPage:
    """Look around in what a model makes of a picture: projections, attention, importance, memories, attribution.

    Args:
        model: Any with classes.
        image: One picture, as `model.preprocess` takes it: a path, a PIL image or an array.
        classes: Which the page must have, by name or index, beside those that the model predicts most.
        title: What the picture is called; the file's name by default.
        model_name: What the model is called.

    Raises:
        FileNotFoundError: If there is no file at the path.
        ValueError: If the picture cannot be read, there are several, or a class is unknown: near names are suggested.

    >>> from analyses.data import sample_scenes
    >>> page = explore(HookedViT.from_pretrained("emoji-vit"), sample_scenes()[1].path, classes=["pizza"])
    >>> page.html[:15], len(page.html) < 8_000_000
    ('<!doctype html>', True)
    """
    if isinstance(image, list | tuple):
        raise ValueError(f"expected one picture, got {len(image)}: make a page for each")
    asked = [model.class_index(one) for one in classes]
    if title is None:
        title = Path(image).name if isinstance(image, str | Path) else "picture"
    batch = model.preprocess(as_picture(image))
    layout = model.cfg.token_layout_at(*batch.shape[-2:])
    picture = _on_grid(_pixels(batch[0], model), layout.grid, model.cfg.patch_size)
    small = max(picture.size) <= _SMALL
    page = render_page(
        "explorer/explorer.html",
        styles=["explorer/explorer.css"],
        script="explorer/main.js",
        data={**explorer_data(model, batch, asked), "title": title, "model": model_name or "this model"},
        title=f"{title} – {model_name or 'explorer'}",
        picture=picture_url(picture) if small else picture_url(picture, "jpeg", quality=90),
        picture_name=title,
        model_name=model_name,
        ratio=picture.width / picture.height,
        small=small,
    )
    return ExplorerPage(page)


def _pixels(image: Float[Tensor, "channel height width"], model: HookedViT) -> np.ndarray:
    """[height width channel], 0 to 1; the colours of a model that reads another number of channels than three."""
    config = dict(model.data_config or {})
    if len(image) != len(config["mean"]):  # as preprocessing does, the average of the colours for each channel
        for key in ("mean", "std"):
            config[key] = (sum(config[key]) / len(config[key]),) * len(image)
    return picture_of(image, config)[..., :3]


def _on_grid(pixels: np.ndarray, grid: tuple[int, int], patch_size: tuple[int, int]) -> Image.Image:
    """As much of the picture as lies under the patches; grey where the model pads it."""
    height, width = (n * size for n, size in zip(grid, patch_size, strict=True))
    canvas = np.full((height, width, pixels.shape[-1]), 0.5, dtype=pixels.dtype)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels[:height, :width]
    eight_bits = (canvas * 255).round().astype(np.uint8)
    return Image.fromarray(eight_bits[..., 0] if eight_bits.shape[-1] == 1 else eight_bits)

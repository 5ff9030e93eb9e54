"""Explorer: one picture and one model, as one interactive HTML page."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from analyses.pages.explorer.content import explorer_data
from analyses.pages.page import picture_url, render_page, write_page
from hooked_vit import HookedViT
from hooked_vit.preprocessing import as_picture

__all__ = ["ExplorerPage", "explore"]

_SMALL = 160  # pixels; smaller pictures are stored without loss and drawn with sharp pixels


@dataclass(frozen=True)
class ExplorerPage:
    """An explorer page in one file, without server or network. A notebook displays it inline.

    Attributes:
        html: The whole page.
    """

    html: str

    def save(self, path: str | Path) -> Path:
        """Write the page to a file; missing folders are created."""
        return write_page(self.html, path)

    def _repr_html_(self) -> str:
        # sandboxed: its script runs, but cannot reach the notebook
        return (
            '<iframe title="Explorer" sandbox="allow-scripts" style="width: 100%; height: 820px; border: 0" '
            f'srcdoc="{html.escape(self.html)}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"ExplorerPage({len(self.html) / 1e6:.1f} MB): .save(path) writes it, a notebook displays it"


def explore(
    model: HookedViT,
    image: Any,
    classes: Sequence[int | str] = (),
    *,
    title: str | None = None,
    model_name: str | None = None,
) -> ExplorerPage:
    """Explore how a model processes a picture: projections, attention, importance, memories, attribution.

    Args:
        model: Any model with classes.
        image: One picture, as `model.preprocess` accepts it: a path, a PIL image or an array.
        classes: Classes that the page must show, by name or index, besides those that the model predicts most.
        title: The picture's name; by default the file's name.
        model_name: The model's name.

    Raises:
        FileNotFoundError: If there is no file at the path.
        ValueError: If the picture cannot be read, there are several, or a class is unknown; near names are suggested.

    >>> from analyses.data import sample_scenes
    >>> page = explore(HookedViT.from_pretrained("emoji-vit"), sample_scenes()[1].path, classes=["pizza"])
    >>> page.html[:15], len(page.html) < 8_000_000
    ('<!doctype html>', True)
    """
    if isinstance(image, list | tuple):
        raise ValueError(f"expected one picture, got {len(image)}: make a page for each")
    asked = [model.class_index(name) for name in classes]
    if title is None:
        title = Path(image).name if isinstance(image, str | Path) else "picture"
    batch = model.preprocess(as_picture(image))
    layout = model.cfg.token_layout_at(*batch.shape[-2:])
    picture = _on_grid(model.picture_of(batch[0])[..., :3], layout.grid, model.cfg.patch_size)
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


def _on_grid(pixels: np.ndarray, grid: tuple[int, int], patch_size: tuple[int, int]) -> Image.Image:
    """The part of the picture that the patches cover; grey where the model pads it."""
    height, width = (n * size for n, size in zip(grid, patch_size, strict=True))
    canvas = np.full((height, width, pixels.shape[-1]), 0.5, dtype=pixels.dtype)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels[:height, :width]
    eight_bits = (canvas * 255).round().astype(np.uint8)
    return Image.fromarray(eight_bits[..., 0] if eight_bits.shape[-1] == 1 else eight_bits)

"""Explorer: one picture or two, and one model, as one interactive HTML page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from analyses.pages.explorer.content import explorer_data
from analyses.pages.page import notebook_frame, picture_url, render_page, write_page
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
        return notebook_frame(self.html, "Explorer", 820)

    def __repr__(self) -> str:
        return f"ExplorerPage({len(self.html) / 1e6:.1f} MB): .save(path) writes it, a notebook displays it"


def explore(
    model: HookedViT,
    image: Any,
    classes: Sequence[int | str] = (),
    *,
    patching: bool = False,
    title: str | Sequence[str] | None = None,
    model_name: str | None = None,
    progress: bool | None = False,
) -> ExplorerPage:
    """Explore how a model processes a picture: projections, attention, importance, memories, attribution.

    Two pictures are compared: each number of the first, of the second, and their difference.

    Args:
        model: Any model with classes.
        image: One picture, as `model.preprocess` accepts it: a path, a PIL image or an array; or a list of two.
        classes: Classes that the page must show, by name or index, besides those that the model predicts most.
        patching: Whether to copy parts of the first picture's run into the second's, one token or head at a time, and
            show how much of the difference each restores: of the difference of the logits of the first two `classes`,
            by default of the first picture's and the second's predicted class. Takes a run of the model for each block
            and token, and each block and head.
        title: The picture's name, or the two pictures' names; by default the files' names.
        model_name: The model's name.
        progress: Whether to show how far patching is; `None` shows it if standard error is a terminal.

    Raises:
        FileNotFoundError: If there is no file at a path.
        ValueError: If a picture cannot be read, there are more than two, or a class is unknown (near names are
            suggested); if `patching` has one picture only, or no difference to restore.

    >>> from analyses.data import sample_scenes
    >>> page = explore(HookedViT.from_pretrained("emoji-vit"), sample_scenes()[1].path, classes=["pizza"])
    >>> page.html[:15], len(page.html) < 8_000_000
    ('<!doctype html>', True)
    """
    pictures = list(image) if isinstance(image, list | tuple) else [image]
    if not 1 <= len(pictures) <= 2:
        raise ValueError(f"expected one picture, or two to compare, got {len(pictures)}: make several pages")
    if patching and len(pictures) == 1:
        raise ValueError("patching copies from one picture's run into another's: pass two pictures")
    titles = _titles(pictures, title)
    asked = [model.class_index(name) for name in classes]
    images = _batch(model, [as_picture(picture) for picture in pictures])
    layout = model.cfg.token_layout_at(*images.shape[-2:])
    shown = [_on_grid(model.picture_of(one)[..., :3], layout.grid, model.cfg.patch_size) for one in images]
    data = explorer_data(model, images, asked, patching=patching, progress=progress)
    data["model"] = model_name or "this model"
    for run, name in zip(data["runs"], titles, strict=True):
        run["title"] = name
    small = max(shown[0].size) <= _SMALL
    page = render_page(
        "explorer/explorer.html",
        styles=["explorer/explorer.css", "explorer/maps.css", "explorer/tables.css"],
        script="explorer/main.js",
        data=data,
        title=f"{' – '.join(titles)} – {model_name or 'explorer'}",
        pictures=[picture_url(one) if small else picture_url(one, "jpeg", quality=90) for one in shown],
        titles=titles,
        model_name=model_name,
        ratio=shown[0].width / shown[0].height,
        small=small,
    )
    return ExplorerPage(page)


def _titles(pictures: Sequence[Any], title: str | Sequence[str] | None) -> list[str]:
    if title is None:
        names = [Path(one).name if isinstance(one, str | Path) else None for one in pictures]
        default = ["picture"] if len(pictures) == 1 else ["first picture", "second picture"]
        return [name or other for name, other in zip(names, default, strict=True)]
    titles = [title] if isinstance(title, str) else list(title)
    if len(titles) != len(pictures):
        raise ValueError(f"expected a title for each of the {len(pictures)} pictures, got {len(titles)}")
    return titles


def _batch(model: HookedViT, pictures: Sequence[Image.Image]) -> Tensor:
    images = [model.preprocess(picture) for picture in pictures]
    sizes = [tuple(one.shape[-2:]) for one in images]
    if len(set(sizes)) > 1:
        raise ValueError(f"two pictures are compared patch by patch, so their sizes must agree, got {sizes}")
    return torch.cat(images)


def _on_grid(pixels: np.ndarray, grid: tuple[int, int], patch_size: tuple[int, int]) -> Image.Image:
    """The part of the picture that the patches cover; grey where the model pads it."""
    height, width = (n * size for n, size in zip(grid, patch_size, strict=True))
    canvas = np.full((height, width, pixels.shape[-1]), 0.5, dtype=pixels.dtype)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels[:height, :width]
    eight_bits = (canvas * 255).round().astype(np.uint8)
    return Image.fromarray(eight_bits[..., 0] if eight_bits.shape[-1] == 1 else eight_bits)

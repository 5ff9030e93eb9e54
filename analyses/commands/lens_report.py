"""What `hooked-vit lens` tells of one picture: a table of all blocks, and a figure of some."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.markup import escape
from rich.table import Table

from analyses.plots.lens import lens_figure
from analyses.plots.patch_maps import picture_of
from analyses.projection import Projection, project
from hooked_vit import HookedViT

__all__ = ["LensReport", "lens_report"]


@dataclass(frozen=True)
class LensReport:
    """A table to print and a figure to save."""

    table: Table
    figure: Figure


@torch.no_grad()
def lens_report(
    model: HookedViT, picture: Image.Image, title: str, chosen: int | None = None, blocks: Sequence[int] | None = None
) -> LensReport:
    """Project the residual stream after every block onto the classes.

    Args:
        model: Any with classes.
        picture: What it is shown.
        title: The picture's name, over the table.
        chosen: The class whose rank is told; by default the one that the model predicts.
        blocks: Which blocks the figure shows, from 0.

    Raises:
        ValueError: If the model has no classes, or does not take pictures.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> lens_report(model, Image.new("RGB", (90, 64)), "black.png").table.row_count
    8
    """
    images = model.preprocess(picture)
    logits, cache = model.run_with_cache(images, names_filter="resid_post")
    probabilities = logits[0].softmax(-1)
    predicted = int(probabilities.argmax())
    reference = predicted if chosen is None else chosen
    projection = project(model, cache, labels=torch.tensor([reference]), k=1)
    figure = lens_figure(
        picture_of(images[0], model.data_config or {}),
        projection,
        model.cfg,
        model.class_names,
        reference,
        reference_is="predicted" if chosen is None else "chosen",
        predicted=None if chosen is None else predicted,
        blocks=blocks,
    )
    heading = f"{escape(title)}: {_name(model, predicted)}, {probabilities[predicted]:.0%}"
    return LensReport(_table(model, projection, heading, _name(model, reference)), figure)


def _table(model: HookedViT, projection: Projection, heading: str, reference: str) -> Table:
    layout = model.token_layout
    table = Table(title=heading, title_justify="left", title_style="bold")
    table.add_column("block", justify="right")
    if layout.cls is not None:
        table.add_column("on top at CLS")
        table.add_column(f"in front of\n{reference}", justify="right")
    table.add_column("on top at most patches")
    table.add_column(f"patches with\n{reference} on top", justify="right")
    assert projection.rank is not None
    tops, ranks = projection.top_classes[:, 0, :, 0], projection.rank[:, 0]
    for layer, top, rank in zip(projection.layers, tops, ranks, strict=True):
        at_cls = [] if layout.cls is None else [_name(model, int(top[layout.cls])), f"{rank[layout.cls]}"]
        labels, counts = top[layout.patches].unique(return_counts=True)
        most = f"{_name(model, int(labels[counts.argmax()]))} {counts.max() / layout.n_patches:.0%}"
        share = (rank[layout.patches] == 0).float().mean()
        table.add_row(f"{layer}", *at_cls, most, f"{share:.0%}")
    return table


def _name(model: HookedViT, label: int) -> str:
    """The first of a class's synonyms, safe to print."""
    return escape(model.class_names[label].split(",")[0])

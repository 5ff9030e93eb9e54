"""What `hooked-vit lens` shows of one picture: a table of all blocks, and a figure of some."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.markup import escape
from rich.table import Table

from analyses.plots.class_colours import ClassColours
from analyses.plots.lens import lens_figure
from analyses.projection import Lens, Projection, project
from hooked_vit import HookedViT

__all__ = ["LensReport", "lens_report"]


@dataclass(frozen=True)
class LensReport:
    """A table to print, its numbers with one row per block, and a figure to save."""

    table: Table
    blocks: pd.DataFrame
    figure: Figure


@torch.no_grad()
def lens_report(
    model: HookedViT,
    picture: Image.Image,
    title: str,
    chosen: int | None = None,
    blocks: Sequence[int] | None = None,
    colours: ClassColours | None = None,
    lens: Lens | None = None,
) -> LensReport:
    """Project the residual stream after every block onto the classes.

    Args:
        model: Any model with classes.
        picture: The picture.
        title: The picture's name, above the table.
        chosen: The class whose rank is shown; by default the predicted one.
        blocks: The blocks in the figure, from 0.
        colours: Pass the same object for several pictures, and each class keeps its colour.
        lens: As for `project`.

    Raises:
        ValueError: If the model has no classes, or does not accept pictures.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> lens_report(model, Image.new("RGB", (90, 64)), "black.png").table.row_count
    8
    """
    model.require_several_classes("the rank of a class")
    images = model.preprocess(picture)
    logits, cache = model.run_with_cache(images, names_filter="resid_post")
    probabilities = logits[0].softmax(-1)
    predicted = int(probabilities.argmax())
    reference = predicted if chosen is None else chosen
    projection = project(model, cache, labels=torch.tensor([reference]), k=1, lens=lens)
    figure = lens_figure(
        model.picture_of(images[0]),
        projection,
        model.cfg,
        model.class_names,
        reference,
        reference_is="predicted" if chosen is None else "chosen",
        predicted=None if chosen is None else predicted,
        blocks=blocks,
        colours=colours,
    )
    found = _blocks(model, projection).assign(reference=_name(model, reference), predicted=_name(model, predicted))
    heading = f"{escape(title)}: {escape(_name(model, predicted))}, {probabilities[predicted]:.0%}"
    return LensReport(_table(found, heading), found, figure)


def _blocks(model: HookedViT, projection: Projection) -> pd.DataFrame:
    layout = model.token_layout
    assert projection.rank is not None
    tops, ranks = projection.top_classes[:, 0, :, 0], projection.rank[:, 0]
    rows = []
    for layer, top, rank in zip(projection.layers, tops, ranks, strict=True):
        labels, counts = top[layout.patches].unique(return_counts=True)
        row = {"block": int(layer)}
        if layout.cls is not None:
            row |= {"top_at_cls": _name(model, int(top[layout.cls])), "rank_at_cls": int(rank[layout.cls])}
        row |= {
            "top_at_most_patches": _name(model, int(labels[counts.argmax()])),
            "share_of_patches": float(counts.max() / layout.n_patches),
            "identifiable_patches": float((rank[layout.patches] == 0).float().mean()),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _table(blocks: pd.DataFrame, heading: str) -> Table:
    reference, has_cls = escape(blocks["reference"].iloc[0]), "top_at_cls" in blocks
    table = Table(title=heading, title_justify="left", title_style="bold")
    table.add_column("block", justify="right")
    if has_cls:
        table.add_column("top class at CLS")
        table.add_column(f"rank of\n{reference}", justify="right")
    table.add_column("top class at most patches")
    table.add_column(f"patches with\n{reference} on top", justify="right")
    for row in blocks.to_dict("records"):
        at_cls = [escape(row["top_at_cls"]), f"{row['rank_at_cls']}"] if has_cls else []
        most = f"{escape(row['top_at_most_patches'])} {row['share_of_patches']:.0%}"
        table.add_row(f"{row['block']}", *at_cls, most, f"{row['identifiable_patches']:.0%}")
    return table


def _name(model: HookedViT, label: int) -> str:
    """The first of a class's synonyms."""
    return model.class_names[label].split(",")[0]

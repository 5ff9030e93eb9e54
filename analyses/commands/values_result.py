"""What `hooked-vit values` shows: the classes of memories as a table to print, and the pictures that activate them."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Num
from rich.markup import escape
from rich.table import Table

from analyses.data.dataset import LabelledImages
from analyses.memory_pairs.top_activations import TopActivations, images_at
from analyses.sweep.run import sweep
from hooked_vit import HookedViT

__all__ = ["most_active", "table_of_classes"]


def table_of_classes(classes: pd.DataFrame, label: str) -> Table:
    """A table to print: one row per memory, with its top classes.

    Args:
        classes: `top_classes(...)`.
        label: The name of its numbers.
    """
    first = classes.iloc[0]
    is_attention = first["sublayer"] == "attn"
    heading = f"block {first['layer']}: top classes of value vectors, with their {label}"
    table = Table(title=heading, title_justify="left", title_style="bold")
    table.add_column("head, dimension" if is_attention else "neuron", justify="right")
    for rank in range(1, 1 + len(set(classes["place"]))):
        table.add_column(f"{rank}")
    decimals = _decimals(float(np.abs(classes["logit"].to_numpy()).max()))
    for memory, rows in classes.groupby("memory", sort=False):
        name = f"{rows['head'].iloc[0]}, {rows['dimension'].iloc[0]}" if is_attention else f"{memory}"
        pairs = zip(rows["class_name"], rows["logit"], strict=True)
        table.add_row(
            name, *(f"{escape(class_name.split(',')[0])} {logit:.{decimals}f}" for class_name, logit in pairs)
        )
    return table


def _decimals(largest: float) -> int:
    """Two, or as many as show three digits of the largest number: with LayerScale, value vectors may be tiny."""
    return 2 if not 0 < largest < 0.1 else 2 - math.floor(math.log10(largest))


def most_active(
    model: HookedViT,
    dataset: LabelledImages,
    layer: int,
    memories: Sequence[int],
    sublayer: Literal["mlp", "attn"],
    k: int,
    limit: int | None = None,
    progress: bool | None = None,
) -> tuple[pd.DataFrame, dict[int, Num[np.ndarray, "height width channel"]]]:
    """The table of `TopActivations`, and the pictures that it names, by index.

    Args:
        model: The model.
        dataset: The images to search.
        layer: The block.
        memories: By index.
        sublayer: Their sub-layer.
        k: Pictures per memory.
        limit: Only the first images.
        progress: As for `sweep`.
    """
    analysis = TopActivations(layer, memories, sublayer, k=k)
    table = sweep(model, dataset, [analysis], limit=limit, progress=progress)["top_activations"]
    indices = list(dict.fromkeys(table["index"].tolist()))
    images = images_at(model, dataset, indices)
    return table, {index: model.picture_of(image) for index, image in zip(indices, images, strict=True)}

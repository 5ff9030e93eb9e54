"""What `hooked-vit patch` shows: the largest effects as a table to print, all of them as a table and a figure."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor

from analyses.patching.result import PatchResult
from analyses.plots.patching import head_patching_figure, token_patching_figure
from hooked_vit import HookedViT

__all__ = ["PatchReport", "patch_report", "two_classes"]

_HEAD_STREAMS = ("z", "q", "k", "v", "pattern")
_N_PRINTED = 10


@dataclass(frozen=True)
class PatchReport:
    """The effects of all patches.

    Attributes:
        names: The class of the clean and of the corrupt picture.
        heading: The metric of the two runs, in words.
        largest: To print: the patches with the largest effects.
        patches: `PatchResult.table`.
        figure: `None` for neurons.
    """

    names: tuple[str, str]
    heading: str
    largest: Table
    patches: pd.DataFrame
    figure: Figure | None


def two_classes(
    model: HookedViT, images: Sequence[Float[Tensor, "1 channel height width"]], named: Sequence[int | None]
) -> tuple[int, int]:
    """The class of the clean and of the corrupt picture: the named one, or else the predicted one.

    Raises:
        ValueError: If the two are the same, or the model has no classes.
    """
    model.require_several_classes("the difference of two classes' logits")
    with torch.no_grad():
        clean, corrupt = (
            int(model(image)[0].argmax()) if index is None else index
            for image, index in zip(images, named, strict=True)
        )
    if clean == corrupt:
        raise ValueError(
            f"both pictures have the class '{model.class_names[clean]}', predicted or named: "
            "name two classes with --class and --against"
        )
    return clean, corrupt


def patch_report(
    model: HookedViT,
    result: PatchResult,
    images: Sequence[Float[Tensor, "1 channel height width"]],
    classes: tuple[int, int],
) -> PatchReport:
    """Sum up a patching sweep whose metric is the difference of two classes' logits.

    Args:
        model: The model that was patched.
        result: One number per patch, of one pair of pictures.
        images: The clean and the corrupt picture, preprocessed.
        classes: The class of each.
    """
    clean, corrupt = (model.class_names[index].split(",")[0] for index in classes)
    table = result.table()
    return PatchReport(
        (clean, corrupt),
        f"logit of {clean} minus logit of {corrupt}: {float(result.source):.2f} in the run that patches come from, "
        f"{float(result.base):.2f} in the patched run",
        _largest(result, table),
        table,
        _figure(model, result, images, (clean, corrupt)),
    )


def _largest(result: PatchResult, table: pd.DataFrame) -> Table:
    printed, has_tokens = Table(), "token_type" in table
    for column in ("block", *result.axes[1:], *(["where"] if has_tokens else []), "logits", "share"):
        printed.add_column(column, justify="right")
    ordered = table.assign(size=table["effect"].abs()).sort_values(by="size", ascending=False, kind="stable")
    for _, row in ordered[:_N_PRINTED].iterrows():
        kind = str(row.get("token_type", ""))
        where = f"row {row['row']}, column {row['column']}" if kind == "patch" else kind
        labels = (f"{row[axis]}" for axis in result.axes)
        printed.add_row(*labels, *([where] if has_tokens else []), f"{row['effect']:+.2f}", f"{row['recovered']:.0%}")
    return printed


def _figure(model: HookedViT, result: PatchResult, images: Sequence[Tensor], names: tuple[str, str]) -> Figure | None:
    title = f"{names[0]} against {names[1]}: '{result.stream}' of each block, {result.direction}"
    if result.stream in _HEAD_STREAMS:
        return head_patching_figure({result.stream: result}, title=title)
    if "token" in result.axes and max(result.labels["token"]) < result.layout.n_tokens:
        clean, corrupt = (model.picture_of(image[0]) for image in images)
        labels = (f"clean: {names[0]}", f"corrupt: {names[1]}")
        return token_patching_figure(result, clean, corrupt, model.cfg.patch_size, names=labels, title=title)
    return None

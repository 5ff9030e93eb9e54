"""What `hooked-vit explain` tells of one picture: maps of several methods for several classes, and how they hold up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from analyses.explainers.explainer import CLASS_AGNOSTIC, explainer
from analyses.faithfulness import removal_curve, removal_order
from analyses.feature_importance import feature_importance
from analyses.plots.explanation_maps import head_maps_figure, method_maps_figure
from analyses.plots.patch_maps import picture_of
from hooked_vit import HookedViT

__all__ = ["ExplainReport", "explain_report"]

_SHARE = 0.25  # of the patches, for the table's test


@dataclass(frozen=True)
class ExplainReport:
    """A table to print, figures to save by what is put behind the picture's name, and the maps, a row a patch."""

    table: Table
    figures: Mapping[str, Figure]
    maps: pd.DataFrame


def explain_report(
    model: HookedViT, picture: Image.Image, title: str, classes: Sequence[int], methods: Sequence[str]
) -> ExplainReport:
    """Ask several methods which patches of a picture matter for several classes.

    Args:
        model: Any with classes.
        picture: What it is shown.
        title: The picture's name.
        classes: By index; without any, the one that the model predicts.
        methods: Names out of `METHODS`.

    Raises:
        ValueError: If a class or method is unknown, or the model does not take pictures.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> report = explain_report(model, Image.new("RGB", (64, 64)), "black.png", [3, 14], ["importance", "rollout"])
    >>> report.table.row_count, sorted(report.figures), len(report.maps)
    (4, ['explain', 'heads-14', 'heads-3'], 256)
    """
    image, layout = model.preprocess(picture), model.token_layout
    with torch.no_grad():
        probabilities = model(image)[0].softmax(-1)
    predicted = int(probabilities.argmax())
    classes = list(dict.fromkeys(classes)) or [predicted]
    chosen, images = torch.tensor(classes, device=image.device), image.expand(len(classes), -1, -1, -1)
    names = [model.class_names[label].split(",")[0] for label in classes]
    maps = {name: explainer(name)(model, images, chosen) for name in methods}

    size = model.cfg.patch_size
    shown = picture_of(image[0], model.data_config or {})
    figures = {
        "explain": method_maps_figure(
            shown, maps, [f"{n} ({probabilities[k]:.0%})" for n, k in zip(names, classes, strict=True)], layout, size,
            agnostic=CLASS_AGNOSTIC, title=title,
        )
    }  # fmt: skip
    for label, name, importance in zip(classes, names, feature_importance(model, images, chosen), strict=True):
        figures[f"heads-{label}"] = head_maps_figure(importance, layout, size, title=f"{title}: importance for {name}")
    heading = f"{escape(title)}: {escape(model.class_names[predicted].split(',')[0])}, {probabilities[predicted]:.0%}"
    return ExplainReport(_table(model, images, chosen, names, maps, heading), figures, _tidy(maps, names, layout.grid))


def _table(
    model: HookedViT, images: Tensor, classes: Tensor, names: Sequence[str], maps: Mapping[str, Tensor], heading: str
) -> Table:
    n_patches = model.token_layout.n_patches
    few = max(1, round(_SHARE * n_patches))
    caption = (
        f"the class's probability: whole, with the {few} most important of {n_patches} patches alone, without them"
    )
    table = Table(title=heading, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    for column in ("class", "method"):
        table.add_column(column, no_wrap=True)
    for column in ("most important\nrow, column", "whole", f"{few} alone", f"without {few}"):
        table.add_column(column, justify="right")
    kept, lost = {}, {}
    for name, of_classes in maps.items():
        worst, best = (removal_order(of_classes, direction) for direction in ("negative", "positive"))
        kept[name] = removal_curve(model, images, classes, worst, [0, n_patches - few]).probability
        lost[name] = removal_curve(model, images, classes, best, [few]).probability
    for place, of_class in enumerate(names):
        for name, of_classes in maps.items():
            row, column = divmod(int(of_classes[place].argmax()), model.token_layout.grid[1])
            whole, alone, without = kept[name][0, place], kept[name][1, place], lost[name][0, place]
            numbers = (f"{row}, {column}", f"{whole:.1%}", f"{alone:.1%}", f"{without:.1%}")
            table.add_row(escape(of_class), name, *numbers)
    return table


def _tidy(
    maps: Mapping[str, Float[Tensor, "chosen patch"]], names: Sequence[str], grid: tuple[int, int]
) -> pd.DataFrame:
    """A row for each method, class and patch."""
    tables = []
    for method, of_classes in maps.items():
        for name, values in zip(names, of_classes.cpu().tolist(), strict=True):
            places = [divmod(patch, grid[1]) for patch in range(len(values))]
            at = pd.DataFrame(places, columns=pd.Index(["row", "column"]))
            tables.append(at.assign(method=method, class_name=name, value=values))
    return pd.concat(tables, ignore_index=True).reindex(columns=["method", "class_name", "row", "column", "value"])

"""What `hooked-vit explain` shows of one picture: maps of several methods and classes, and a test of each map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from analyses.faithfulness.removal import removal_curve, removal_order
from analyses.feature_importance.class_gradients import Target
from analyses.feature_importance.importance import feature_importance, importance_map, saturated_blocks
from analyses.feature_importance.methods import CLASS_AGNOSTIC, explainer
from analyses.plots.explanation_maps import head_maps_figure, method_maps_figure
from analyses.progress import progress_bar
from hooked_vit import HookedViT

__all__ = ["ExplainReport", "explain_report"]

_SHARE = 0.25  # of the patches that the table's test keeps or removes


@dataclass(frozen=True)
class ExplainReport:
    """What to print and to save.

    Attributes:
        table: To print: the test of each map.
        tests: The same, one row per class and method; probabilities from 0 to 1.
        figures: By the suffix of the file name.
        maps: One row per method, class and patch.
    """

    table: Table
    tests: pd.DataFrame
    figures: Mapping[str, Figure]
    maps: pd.DataFrame


def explain_report(
    model: HookedViT,
    picture: Image.Image,
    title: str,
    classes: Sequence[int],
    methods: Sequence[str],
    progress: bool | None = False,
    target: Target = "cross_entropy",
) -> ExplainReport:
    """Ask several methods which patches of a picture matter for several classes.

    Args:
        model: Any model with classes.
        picture: The picture.
        title: The picture's name.
        classes: By index; the predicted one, if empty.
        methods: Names from `METHODS`.
        progress: Whether to show a bar on standard error; by default, if that is a terminal.
        target: What importance differentiates, as for `feature_importance`.

    Raises:
        ValueError: If a class or method is unknown, or the model has no classes or does not accept pictures.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> report = explain_report(model, Image.new("RGB", (64, 64)), "black.png", [3, 14], ["importance", "rollout"])
    >>> report.table.row_count, sorted(report.figures), len(report.maps)
    (4, ['explain', 'heads-14', 'heads-3'], 256)
    """
    model.require_several_classes("the probability of a class")
    image, layout = model.preprocess(picture), model.token_layout
    with torch.no_grad():
        probabilities = model(image)[0].softmax(-1)
    predicted = int(probabilities.argmax())
    classes = list(dict.fromkeys(classes)) or [predicted]
    chosen, images = torch.tensor(classes, device=image.device), image.expand(len(classes), -1, -1, -1)
    names = [model.class_names[label].split(",")[0] for label in classes]
    maps, curves = {}, {}
    with progress_bar(len(methods), show=progress, what="methods") as advance:
        for name in methods:
            method = partial(importance_map, target=target) if name == "importance" else explainer(name)
            maps[name] = method(model, images, chosen)
            curves[name] = _probabilities(model, images, chosen, maps[name])
            advance(1)
    size = model.cfg.patch_size
    shown = model.picture_of(image[0])
    figures = {
        "explain": method_maps_figure(
            shown, maps, [f"{n} ({probabilities[k]:.0%})" for n, k in zip(names, classes, strict=True)], layout, size,
            agnostic=CLASS_AGNOSTIC, title=title,
        )
    }  # fmt: skip
    importances = feature_importance(model, images, chosen, target=target)
    for label, name, importance in zip(classes, names, importances, strict=True):
        figures[f"heads-{label}"] = head_maps_figure(importance, layout, size, title=f"{title}: importance for {name}")
    heading = f"{escape(title)}: {escape(model.class_names[predicted].split(',')[0])}, {probabilities[predicted]:.0%}"
    tests = _tests(names, maps, curves, layout.grid)
    table = _table(tests, _few(layout.n_patches), layout.n_patches, heading, _saturation_note(names, importances))
    return ExplainReport(table, tests, figures, _tidy(maps, names, layout.grid))


def _saturation_note(names: Sequence[str], importances: Float[Tensor, "chosen layer head patch"]) -> str:
    """What to say where importance is exactly zero in whole blocks; "" where it never is."""
    n_saturated = saturated_blocks(importances).sum(dim=-1).tolist()
    of_classes = [f"{count} blocks for {name}" for count, name in zip(n_saturated, names, strict=True) if count]
    if not of_classes:
        return ""
    return (
        f"; importance is exactly 0 in {', '.join(of_classes)}, where the class's probability rounds to 1: "
        "--target logit or --target margin has a gradient there"
    )


def _few(n_patches: int) -> int:
    return max(1, round(_SHARE * n_patches))


def _probabilities(
    model: HookedViT, images: Tensor, classes: Tensor, maps: Float[Tensor, "chosen patch"]
) -> Float[Tensor, "chosen run"]:
    """Probability of each class for the whole picture, with the most important patches alone, and without them."""
    n_patches = model.token_layout.n_patches
    few = _few(n_patches)
    worst, best = (removal_order(maps, direction) for direction in ("negative", "positive"))
    kept = removal_curve(model, images, classes, worst, [0, n_patches - few]).probability
    lost = removal_curve(model, images, classes, best, [few]).probability
    return torch.cat([kept, lost]).T


def _tests(
    names: Sequence[str], maps: Mapping[str, Tensor], curves: Mapping[str, Tensor], grid: tuple[int, int]
) -> pd.DataFrame:
    rows = []
    for position, class_name in enumerate(names):
        for method, class_maps in maps.items():
            row, column = divmod(int(class_maps[position].argmax()), grid[1])
            whole, alone, without = curves[method][position].tolist()
            numbers = {"row": row, "column": column, "whole": whole, "alone": alone, "without": without}
            rows.append({"class_name": class_name, "method": method, **numbers})
    return pd.DataFrame(rows)


def _table(tests: pd.DataFrame, few: int, n_patches: int, heading: str, note: str) -> Table:
    caption = (
        f"probability of the class for the whole picture, for the {few} most important of {n_patches} patches alone, "
        f"and without them{note}"
    )
    table = Table(title=heading, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    for column in ("class", "method"):
        table.add_column(column, no_wrap=True)
    for column in ("most important\nrow, column", "whole", f"{few} alone", f"without {few}"):
        table.add_column(column, justify="right")
    for row in tests.to_dict("records"):
        numbers = (f"{row['row']}, {row['column']}", *(f"{row[run]:.1%}" for run in ("whole", "alone", "without")))
        table.add_row(escape(row["class_name"]), row["method"], *numbers)
    return table


def _tidy(
    maps: Mapping[str, Float[Tensor, "chosen patch"]], names: Sequence[str], grid: tuple[int, int]
) -> pd.DataFrame:
    """One row per method, class and patch."""
    tables = []
    for method, class_maps in maps.items():
        for name, values in zip(names, class_maps.cpu().tolist(), strict=True):
            positions = [divmod(patch, grid[1]) for patch in range(len(values))]
            patches = pd.DataFrame(positions, columns=pd.Index(["row", "column"]))
            tables.append(patches.assign(method=method, class_name=name, value=values))
    return pd.concat(tables, ignore_index=True).reindex(columns=["method", "class_name", "row", "column", "value"])

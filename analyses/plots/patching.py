"""Patching sweeps as figures: maps of the patch grid by block, blocks by heads, and estimates against exact effects."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from analyses.patching.result import Agreement, PatchResult
from analyses.plots.curves import BLUE
from analyses.plots.figure import Figure
from analyses.plots.patch_maps import colour_range, draw_outline, draw_patch_map, draw_picture

__all__ = ["ablation_figure", "agreement_figure", "head_patching_figure", "token_patching_figure"]

# diverging around no effect, and safe for colour-blind readers
_CMAP = "PuOr_r"
_UNIT = "share of the difference between the runs (0: none, 1: all)"


def token_patching_figure(
    result: PatchResult,
    clean: Float[np.ndarray, "height width channel"],
    corrupt: Float[np.ndarray, "height width channel"],
    patch_size: tuple[int, int],
    *,
    names: tuple[str, str] = ("clean", "corrupt"),
    blocks: Sequence[int] | None = None,
    mask: Bool[Tensor, "height width"] | None = None,
    title: str = "",
) -> Figure:
    """Draw a sweep over tokens: both pictures, the patch grid of each block, and the prefix tokens.

    If a few patches would dominate the colours, the scale ends at the 98th percentile of the magnitudes; its label
    says so.

    Args:
        result: `activation_patching(...)` over layer × token, of one pair or a mean over pairs.
        clean: The clean picture as the model sees it (`model.picture_of`).
        corrupt: The corrupt picture.
        patch_size: Height and width of a patch in pixels.
        names: The headings of the two.
        blocks: The blocks to show; by default up to eight.
        mask: True on the object, outlined.
        title: Above the figure.

    Raises:
        ValueError: If the sweep has no axis of tokens.

    >>> from analyses.patching import activation_patching
    >>> from analyses.patching import logit_difference
    >>> from hooked_vit import HookedViT
    >>> model, images = HookedViT.from_pretrained("emoji-vit"), torch.rand(2, 1, 3, 64, 64)
    >>> result = activation_patching(model, *images, logit_difference(3, against=14), layers=[0, 3, 7])
    >>> figure = token_patching_figure(result, np.zeros((64, 64, 3)), np.ones((64, 64, 3)), (8, 8))
    >>> len(figure.axes)  # two pictures, three maps, colours, prefix tokens
    7
    """
    grids, layout = result.on_grid().cpu().double().numpy(), result.layout
    numbers, layers = result.recovered.cpu().double().numpy(), list(result.labels["layer"])
    shown = _spread(layers, 8) if blocks is None else [layers.index(block) for block in blocks]
    # patches only: the effect of CLS may be many times that of any patch
    ends = colour_range(np.abs(grids[shown]))
    norm = _norm(np.clip(grids[shown], -ends.high, ends.high))
    n_columns = min(len(shown), 4)
    n_rows = -(-len(shown) // n_columns)
    figure = Figure(figsize=(2 + 1.75 * (1 + n_columns), 1.6 + 1.8 * max(n_rows, 2)), layout="constrained")
    parts: Any = figure.subfigures(1, 3, width_ratios=(1.75, 1.75 * n_columns + 0.9, 0.9))
    left, middle, right = parts
    for ax, picture, name in zip(left.subplots(2, 1), (clean, corrupt), names, strict=True):
        draw_picture(ax, picture, layout.grid, patch_size)
        _heading(ax, name)
        if mask is not None:
            draw_outline(ax, mask, picture.shape[:2])
    axes = list(middle.subplots(n_rows, n_columns, squeeze=False).flat)
    for ax, position in zip(axes, shown, strict=False):
        draw_patch_map(ax, grids[position], patch_size, _CMAP, norm)
        _heading(ax, f"block {layers[position]}")
        if mask is not None:
            draw_outline(ax, mask, clean.shape[:2])
    for ax in axes[len(shown) :]:
        ax.remove()
    # below the maps: a vertical label would look like the axis of the prefix tokens
    clipped = ends.high < np.nanmax(np.abs(grids[shown]), initial=0.0)
    label = _UNIT + ("\nscale clipped at the 98th percentile" if clipped else "")
    extend = "both" if clipped else "neither"
    bar = middle.colorbar(
        ScalarMappable(norm, _CMAP), ax=axes[: len(shown)], location="bottom", shrink=0.8, aspect=40, extend=extend
    )
    bar.set_label(label, fontsize="small")
    bar.ax.tick_params(labelsize="small")
    _draw_prefix(right.subplots(), result, numbers, norm)
    if title:
        figure.suptitle(title, fontsize="medium", parse_math=False)
    return figure


def head_patching_figure(
    results: Mapping[str, PatchResult], *, title: str = "", label: str = _UNIT, numbers_in_cells: bool = False
) -> Figure:
    """Draw sweeps over heads, block by head, side by side on one scale.

    Args:
        results: Sweeps over layer × head, by name.
        title: Above the figure.
        label: The quantity, for the colour scale.
        numbers_in_cells: Whether to write the number into each cell, too.

    Raises:
        ValueError: If a sweep has other axes.

    >>> from analyses.patching import activation_patching
    >>> from analyses.patching import logit_difference
    >>> from hooked_vit import HookedViT
    >>> model, images = HookedViT.from_pretrained("emoji-vit"), torch.rand(2, 1, 3, 64, 64)
    >>> sweeps = {s: activation_patching(model, *images, logit_difference(3, against=14), s) for s in ("z", "pattern")}
    >>> len(head_patching_figure(sweeps).axes)
    3
    """
    for name, result in results.items():
        if result.axes != ("layer", "head"):
            raise ValueError(f"expected sweeps over layer × head, '{name}' is over {', '.join(result.axes)}")
    numbers = {name: result.recovered.cpu().double().numpy() for name, result in results.items()}
    norm = _norm(np.concatenate([values.ravel() for values in numbers.values()]))
    figure = Figure(figsize=(1.6 + 2.1 * len(results), 3.6), layout="constrained")
    axes = list(figure.subplots(1, len(results), squeeze=False, sharey=True).flat)
    for ax, (name, result) in zip(axes, results.items(), strict=True):
        labels = result.labels
        _draw_cells(ax, numbers[name], labels["head"], labels["layer"], norm, numbers_in_cells)
        ax.set_xlabel("head")
        _heading(ax, name)
    axes[0].set_ylabel("block")
    figure.colorbar(ScalarMappable(norm, _CMAP), ax=axes, label=_wrapped(label))
    if title:
        figure.suptitle(title, fontsize="medium", parse_math=False)
    return figure


def agreement_figure(
    pairs: Mapping[str, tuple[PatchResult, PatchResult, Agreement]], *, unit: str = "logits", title: str = ""
) -> Figure:
    """Draw estimates against exact patching, one point per patch.

    Args:
        pairs: The exact sweep, its estimate and their `agreement`, by name.
        unit: The unit of the metric.
        title: Above the figure.

    >>> from analyses.patching import activation_patching
    >>> from analyses.patching import logit_difference
    >>> from analyses.patching import agreement
    >>> from hooked_vit import HookedViT
    >>> model, images = HookedViT.from_pretrained("emoji-vit"), torch.rand(2, 1, 3, 64, 64)
    >>> sweep = activation_patching(model, *images, logit_difference(3, against=14), "z")
    >>> len(agreement_figure({"heads": (sweep, sweep, agreement(sweep, sweep))}).axes)
    1
    """
    figure = Figure(figsize=(3.2 * len(pairs), 3.3), layout="constrained")
    axes = list(figure.subplots(1, len(pairs), squeeze=False).flat)
    for ax, (name, (exact, estimate, agree)) in zip(axes, pairs.items(), strict=True):
        x, y = (result.effect.flatten().cpu().double().numpy() for result in (exact, estimate))
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        ax.plot(ends, ends, color="#999999", linewidth=1, linestyle=":")
        ax.scatter(x, y, s=9, alpha=0.5, color=BLUE, linewidths=0)
        _heading(ax, f"{name}: r = {agree.pearson:.2f}")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set(xlabel=f"exact effect, {unit}", ylabel=f"estimated effect, {unit}")
        ax.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize="medium", parse_math=False)
    return figure


def ablation_figure(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the table of `AblationStudy`: for each metric, blocks by heads, with the MLP in a separate column.

    Args:
        table: `AblationStudy().compute()`.
        title: Above the figure: which model and images.

    >>> from analyses.patching import AblationStudy
    >>> from analyses.data import EmojiScenes
    >>> from analyses.sweep import sweep
    >>> from hooked_vit import HookedViT
    >>> from analyses.statistics import Resampling
    >>> analysis = AblationStudy(resampling=Resampling(9))
    >>> tables = sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(8, 0), [analysis])
    >>> len(ablation_figure(tables["ablation_study"]).axes)
    6
    """
    labels = {
        "accuracy": ("Accuracy", "percentage points"),
        "label_logit": ("Logit of the correct class", "logits"),
        "identifiability": ("Identifiability of patches", "after − before"),
    }
    whole = pd.DataFrame(table[table["class_index"].isna()])
    figure = Figure(figsize=(11.5, 4.3), layout="constrained")
    axes = list(figure.subplots(1, len(labels), sharey=True))
    for ax, (metric, (name, unit)) in zip(axes, labels.items(), strict=True):
        rows = pd.DataFrame(whole[whole["metric"] == metric])
        columns = rows["head"].astype("Float64").fillna(np.inf).astype(float)
        grid = rows.assign(column=columns).pivot(index="layer", columns="column", values="value")
        numbers = grid.to_numpy(dtype=float)
        heads = np.isfinite(grid.columns.to_numpy(dtype=float))
        # heads only: the effect of an MLP may be many times that of any head
        norm = _norm(numbers[:, heads])
        names = ["MLP" if np.isinf(column) else f"{column:.0f}" for column in grid.columns]
        _draw_cells(ax, numbers, names, list(grid.index), norm, len(names) <= 9)
        ax.axvline(len(names) - 1.5, color="black", linewidth=1)
        ax.set_xlabel("head")
        _heading(ax, name)
        # below its panel: a vertical label would look like the axis of the next panel
        bar = figure.colorbar(ScalarMappable(norm, _CMAP), ax=ax, location="bottom", extend="both", aspect=30)
        bar.locator = MaxNLocator(5)
        bar.set_label(unit, fontsize="small")
        bar.ax.tick_params(labelsize="small")
    axes[0].set_ylabel("block")
    if title:
        figure.suptitle(title, fontsize="medium", parse_math=False)
    n_images = max(whole["n_images"].tolist(), default=0)
    caption = "Each component ablated alone: change, after minus before; colour scales from heads only."
    figure.supxlabel(f"{n_images} images. {caption}", fontsize="small")
    return figure


def _draw_cells(
    ax: Axes, numbers: np.ndarray, x: Sequence[Any], y: Sequence[Any], norm: TwoSlopeNorm, write: bool
) -> None:
    colours = ScalarMappable(norm, _CMAP)
    ax.imshow(colours.to_rgba(numbers), aspect="auto", origin="lower")
    x_step, y_step = (max(1, -(-len(labels) // 16)) for labels in (x, y))
    ax.set_xticks(range(0, len(x), x_step), [str(label) for label in x[::x_step]])
    ax.set_yticks(range(0, len(y), y_step), [str(label) for label in y[::y_step]])
    if write:
        for (row, column), number in np.ndenumerate(numbers):
            red, green, blue = np.asarray(colours.to_rgba(np.array(number))).ravel()[:3]
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            ax.text(
                column,
                row,
                _written(number, norm.vmax or 1.0),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )


def _draw_prefix(ax: Axes, result: PatchResult, numbers: np.ndarray, norm: TwoSlopeNorm) -> None:
    """Block by prefix token."""
    tokens = np.array(result.labels[result.axes[-1]])
    prefix = [position for position, token in enumerate(tokens) if token < result.layout.n_prefix]
    if not prefix:
        ax.set_axis_off()
        return
    names = [{"cls": "CLS", "dist": "dist.", "register": "reg."}[result.layout.token_types[tokens[p]]] for p in prefix]
    _draw_cells(ax, numbers[:, prefix], names, result.labels["layer"], norm, True)
    ax.tick_params(labelsize="small")
    ax.set_ylabel("block", fontsize="small")
    _heading(ax, "prefix")


def _heading(ax: Axes, text: str) -> None:
    ax.set_title(text, fontsize="small", parse_math=False)


def _norm(numbers: np.ndarray) -> TwoSlopeNorm:
    """White at zero and symmetric: equal colours mean equal magnitudes. From -1 to 1, if all values are zero."""
    finite = numbers[np.isfinite(numbers)]
    spread = float(np.abs(finite).max()) if finite.size else 0.0
    # smaller values are rounding errors, which must not look like effects
    spread = spread if spread > 1e-5 else 1.0
    return TwoSlopeNorm(0.0, -spread, spread)


def _written(number: float, spread: float) -> str:
    """A number for a cell: two digits of the largest number, and no sign if it rounds to zero."""
    if not np.isfinite(number):
        return "–"
    decimals = 0 if abs(number) >= 9.995 else min(4, max(2, 1 - math.floor(math.log10(spread))))
    text = f"{number:.{decimals}f}"
    return text if float(text) else "0"


def _spread(layers: Sequence[int], most: int) -> list[int]:
    """Positions of up to `most` layers, evenly spread from the first to the last."""
    return sorted({round(position) for position in np.linspace(0, len(layers) - 1, min(most, len(layers)))})


def _wrapped(label: str) -> str:
    """The label in two lines, if it explains its ends."""
    return label.replace(" (", "\n(", 1)

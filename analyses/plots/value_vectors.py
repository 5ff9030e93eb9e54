"""Value vectors as a figure: the classes that each memory promotes, and the patches that activate it most."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from analyses.plots.curves import BLUE, VERMILION
from analyses.plots.figure import Figure

__all__ = ["value_vectors_figure"]

_NAME_LENGTH = 24  # characters
_BARS, _THUMBNAIL = 2.9, 0.95  # inches


def value_vectors_figure(
    classes: pd.DataFrame,
    activations: pd.DataFrame | None = None,
    pictures: Mapping[int, Num[np.ndarray, "height width channel"]] | None = None,
    patch_size: tuple[int, int] = (1, 1),
    label: str = "class logit",
    *,
    title: str = "",
) -> Figure:
    """Draw one row per memory: bars for its top classes, and the pictures that activate it most.

    All bars share one scale. The patch with the largest coefficient is framed; the text under a picture gives the
    coefficient, and names the token if it is a prefix token.

    Args:
        classes: `top_classes(...)`.
        activations: `TopActivations(...).compute()` for the same memories.
        pictures: Its pictures, by `index`, as the model sees them (`model.picture_of`).
        patch_size: `model.cfg.patch_size`.
        label: The quantity of the bars.
        title: Above the figure: which model and memories.

    >>> from analyses.value_vectors import top_classes
    >>> len(value_vectors_figure(top_classes(HookedViT.from_pretrained("emoji-vit"), 6, [4, 8])).axes)
    2
    """
    memories = list(dict.fromkeys(classes["memory"]))
    most = 0 if activations is None else len(set(activations["place"]))
    k = len(set(classes["place"]))
    height = max(0.16 * k + 0.35, _THUMBNAIL + 0.25 if most else 0)
    figure = Figure(figsize=(_BARS + _THUMBNAIL * most, 0.45 + height * len(memories)), layout="constrained", dpi=150)
    ratios = [_BARS, *[_THUMBNAIL] * most]
    axes = figure.subplots(len(memories), 1 + most, squeeze=False, gridspec_kw={"width_ratios": ratios})
    logits = classes["logit"].to_numpy(dtype=float)
    limits = min(0.0, 1.05 * float(logits.min())), max(0.0, 1.05 * float(logits.max()))
    for row, memory in zip(axes, memories, strict=True):
        _draw_classes(row[0], pd.DataFrame(classes[classes["memory"] == memory]).sort_values(by="place"))
        row[0].set_xlim(*(limits if limits[0] < limits[1] else (0, 1)))
        for ax in row[1:]:
            ax.axis("off")
        if activations is not None:
            for activation in pd.DataFrame(activations[activations["memory"] == memory]).to_dict("records"):
                picture = (pictures or {})[activation["index"]]
                _draw_picture(row[int(activation["place"])], activation, picture, patch_size)
    for ax in axes[:-1, 0]:
        ax.tick_params(axis="x", labelbottom=False)
    axes[-1, 0].set_xlabel(label if len(memories) == 1 else f"{label} (one scale for all rows)", fontsize=8)
    if most:
        figure.supxlabel("Pictures: the largest coefficients; a frame marks the patch.", fontsize=7)
    if title:
        figure.suptitle(title, fontsize="small", parse_math=False)
    return figure


def _draw_classes(ax: Axes, rows: pd.DataFrame) -> None:
    positions = np.arange(len(rows))
    ax.barh(positions, rows["logit"], color=BLUE, height=0.7)
    ax.set_yticks(positions, [_short(name) for name in rows["class_name"]], fontsize=7, parse_math=False)
    ax.invert_yaxis()
    ax.tick_params(axis="x", labelsize=7)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right"]].set_visible(False)
    first = rows.iloc[0]
    name = f"neuron {first['memory']}"
    if first["sublayer"] == "attn":
        name = f"head {first['head']}, dimension {first['dimension']}"
    ax.set_title(f"block {first['layer']}, {name}", fontsize=8, loc="left")


def _draw_picture(ax: Axes, activation: dict, picture: np.ndarray, patch_size: tuple[int, int]) -> None:
    height, width = picture.shape[:2]
    white = 255 if picture.dtype == np.uint8 else 1
    gray = picture[..., 0] if picture.shape[-1] == 1 else picture
    ax.imshow(gray, extent=(0, width, height, 0), interpolation="nearest", cmap="gray", vmin=0, vmax=white)
    text = f"{activation['value'] + 0.0:.2g}"  # never -0
    if activation["token_type"] == "patch":
        y, x = activation["row"] * patch_size[0], activation["column"] * patch_size[1]
        for colour, line in (("white", 2.6), (VERMILION, 1.4)):
            ax.add_patch(Rectangle((x, y), patch_size[1], patch_size[0], fill=False, color=colour, linewidth=line))
    else:
        text = f"{activation['token_type'].upper()} {text}"
    ax.text(0.5, -0.05, text, fontsize=7, ha="center", va="top", transform=ax.transAxes)


def _short(name: str) -> str:
    first = name.split(",")[0].strip()
    return first if len(first) <= _NAME_LENGTH else first[: _NAME_LENGTH - 1].rstrip() + "…"

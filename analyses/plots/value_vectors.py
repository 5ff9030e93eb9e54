"""Value vectors as a figure: what each memory speaks for, and the patches that call on it most."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

__all__ = ["value_vectors_figure"]

_BLUE, _VERMILION = "#0072B2", "#D55E00"
_NAME_LENGTH = 24  # characters
_BARS, _THUMBNAIL = 2.9, 0.95  # inches


def value_vectors_figure(
    classes: pd.DataFrame,
    activations: pd.DataFrame | None = None,
    pictures: Mapping[int, Num[np.ndarray, "height width channel"]] | None = None,
    patch_size: tuple[int, int] = (1, 1),
    label: str = "class logit",
) -> Figure:
    """Draw one row a memory: bars for its top classes, and beside them the pictures that call on it most.

    The patch with the largest coefficient is framed; a name under a picture says that it is a prefix token instead.

    Args:
        classes: `top_classes(...)`.
        activations: `TopActivations(...).compute()` of the same memories.
        pictures: The pictures that it names, by `index`, as the model sees them (`picture_of`).
        patch_size: `model.cfg.patch_size`.
        label: What the bars are.

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
    for row, memory in zip(axes, memories, strict=True):
        _draw_classes(row[0], pd.DataFrame(classes[classes["memory"] == memory]).sort_values(by="place"))
        for ax in row[1:]:
            ax.axis("off")
        if activations is not None:
            for best in pd.DataFrame(activations[activations["memory"] == memory]).to_dict("records"):
                _draw_picture(row[int(best["place"])], best, (pictures or {})[best["index"]], patch_size)
    axes[-1, 0].set_xlabel(label, fontsize=8)
    return figure


def _draw_classes(ax: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))
    ax.barh(places, rows["logit"], color=_BLUE, height=0.7)
    ax.set_yticks(places, [_short(name) for name in rows["class_name"]], fontsize=7, parse_math=False)
    ax.invert_yaxis()
    ax.tick_params(axis="x", labelsize=7)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right"]].set_visible(False)
    first = rows.iloc[0]
    name = f"neuron {first['memory']}"
    if first["sublayer"] == "attn":
        name = f"head {first['head']}, dimension {first['dimension']}"
    ax.set_title(f"block {first['layer']}, {name}", fontsize=8, loc="left")


def _draw_picture(ax: Axes, best: dict, picture: np.ndarray, patch_size: tuple[int, int]) -> None:
    height, width = picture.shape[:2]
    gray = picture[..., 0] if picture.shape[-1] == 1 else picture
    ax.imshow(gray, extent=(0, width, height, 0), interpolation="nearest", cmap="gray")
    under = f"{best['value']:.2g}"
    if best["token_type"] == "patch":
        y, x = best["row"] * patch_size[0], best["column"] * patch_size[1]
        for colour, line in (("white", 2.6), (_VERMILION, 1.4)):
            ax.add_patch(Rectangle((x, y), patch_size[1], patch_size[0], fill=False, color=colour, linewidth=line))
    else:
        under = f"{best['token_type'].upper()} {under}"
    ax.text(0.5, -0.05, under, fontsize=7, ha="center", va="top", transform=ax.transAxes)


def _short(name: str) -> str:
    first = name.split(",")[0].strip()
    return first if len(first) <= _NAME_LENGTH else first[: _NAME_LENGTH - 1].rstrip() + "…"

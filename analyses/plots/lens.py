"""One figure for one image: each patch's top class and the rank of one class, block by block."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Num
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from torch import Tensor

from analyses.plots.class_colours import ClassColours
from analyses.plots.curves import VERMILION
from analyses.plots.figure import Figure
from analyses.plots.patch_maps import draw_outline, draw_patch_map, draw_picture
from analyses.projection import Projection
from hooked_vit.config import HookedViTConfig

__all__ = ["lens_figure", "spread_blocks"]

_N_OTHERS = 6  # classes with a colour besides the reference class
_REST_COLOUR = "#E4E4E4"
_RANK_COLOURS = "viridis_r"
_RANK_TICKS = (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
_PANEL, _SCALE, _TITLES, _GAP = 1.42, 0.85, 0.45, 0.15  # inches
_LEGEND_LINE = 0.172  # inches of a line of font size _FONT
_NAME_LENGTH = 20  # characters
_LINE_LENGTH = 22  # characters of font size _FONT that a panel is wide
_INK = "#222222"
_FONT = 8.0


def spread_blocks(n_layers: int, n: int = 5) -> tuple[int, ...]:
    """Up to `n` blocks from the first to the last, evenly spread.

    >>> spread_blocks(12), spread_blocks(3)
    ((0, 3, 6, 8, 11), (0, 1, 2))
    """
    return tuple(dict.fromkeys(int(block) for block in np.linspace(0, n_layers - 1, n).round()))


def lens_figure(
    picture: Num[np.ndarray, "height width channel"],
    projection: Projection,
    cfg: HookedViTConfig,
    class_names: Sequence[str],
    reference: int,
    *,
    index: int = 0,
    reference_is: str = "correct",
    predicted: int | None = None,
    blocks: Sequence[int] | None = None,
    mask: Bool[Tensor, "height width"] | None = None,
    colours: ClassColours | None = None,
) -> Figure:
    """Draw the classes of the patches of one image, block by block.

    One column per block. Upper row: the top class of each patch; the reference class is vermilion, the most frequent
    others have a colour each. Lower row: the rank of the reference class, on a logarithmic scale. Titles show the top
    class of the CLS token; registers are left out.

    Args:
        picture: The image as the model sees it (`model.picture_of`).
        projection: The projection of a batch with this image, with the reference classes as labels.
        cfg: `model.cfg`, for the token layout at the picture's size.
        class_names: `model.class_names`.
        reference: The class whose rank is shown.
        index: The position of the image in the batch.
        reference_is: The role of the reference class, for the title: `correct`, `predicted` or `chosen`.
        predicted: The model's prediction, for the title.
        blocks: The blocks; by default five, from the first to the last.
        mask: The object, drawn as an outline.
        colours: Pass the same object for several images, and each class keeps its colour.

    Raises:
        ValueError: If the projection has no ranks or top classes, is one of heads, or lacks a block.

    >>> from analyses.projection import project
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> logits, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64), names_filter="resid_post")
    >>> p = project(model, cache, labels=logits.argmax(-1), k=1)
    >>> figure = lens_figure(np.zeros((64, 64, 3)), p, model.cfg, model.class_names, reference=3)
    >>> len(figure.axes)  # the picture, the legend, two maps for each of five blocks, the scale
    13
    """
    shown = spread_blocks(cfg.n_layers) if blocks is None else tuple(blocks)
    tops, ranks = _selected(projection, shown, index)
    height, width = picture.shape[:2]
    layout = cfg.token_layout_at(height, width)
    top_maps = [layout.to_grid(top[layout.patches]).cpu().numpy() for top in tops]
    rank_maps = [layout.to_grid(rank[layout.patches]).cpu().numpy() for rank in ranks]
    frequent = _frequent_classes(top_maps, reference)
    colour_of = {reference: VERMILION, **(colours or ClassColours()).of(frequent)}
    names = [_short(name) for name in class_names]

    panel = _PANEL * height / width
    legend = _LEGEND_LINE * (len(colour_of) + 2)
    row_heights = (panel, max(panel, legend))
    size = _PANEL * (len(shown) + 1) + _SCALE, sum(row_heights) + _TITLES + _GAP
    figure = Figure(figsize=size, layout="constrained", dpi=200)
    axes = figure.subplots(2, 1 + len(shown), squeeze=False, gridspec_kw={"height_ratios": row_heights})
    draw_picture(axes[0, 0], picture, layout.grid, cfg.patch_size)
    _title(axes[0, 0], f"{reference_is}: {names[reference]}", VERMILION)
    if predicted is not None:
        _subtitle(axes[0, 0], f"predicted: {names[predicted]}", VERMILION if predicted == reference else _INK)
    entries = [(names[label], colour) for label, colour in colour_of.items()]
    others = {int(label) for top_map in top_maps for label in top_map.flat} - colour_of.keys()
    _draw_legend(axes[1, 0], [*entries, ("any other class", _REST_COLOUR)] if others else entries)
    for ax, block, top, top_map in zip(axes[0, 1:], shown, tops, top_maps, strict=True):
        _draw_classes(ax, top_map, colour_of, projection.n_classes, cfg.patch_size)
        _title(ax, f"block {block}", _INK)
        if layout.cls is not None:
            cls_top = int(top[layout.cls])
            _subtitle(ax, f"CLS: {names[cls_top]}", VERMILION if cls_top == reference else _INK)
    _draw_ranks(figure, axes[1, 1:], rank_maps, projection.n_classes, cfg.patch_size, names[reference])
    if mask is not None:
        for ax in (*axes[0], *axes[1, 1:]):
            draw_outline(ax, mask, (height, width))
    for ax in axes.flat:
        ax.set_anchor("N")  # the legend may make a row taller than its panels
    return figure


def _selected(projection: Projection, blocks: Sequence[int], index: int) -> tuple[Tensor, Tensor]:
    """Top class and rank, [block token], of one image at the given blocks."""
    if projection.rank is None or projection.top_classes.shape[-1] == 0:
        raise ValueError("the figure shows ranks and top classes: call `project` with labels and k of at least 1")
    if projection.rank.ndim != 3:
        raise ValueError(f"the figure shows one vector per token: not the heads of stream '{projection.stream}'")
    missing = [block for block in blocks if block not in projection.layers]
    if missing or not blocks:
        raise ValueError(f"the projection holds blocks {list(projection.layers)}, asked for {list(blocks)}")
    layers = [projection.layers.index(block) for block in blocks]
    return projection.top_classes[layers, index, :, 0], projection.rank[layers, index]


def _frequent_classes(top_maps: Sequence[np.ndarray], reference: int) -> list[int]:
    """The classes, other than the reference class, that are the top class of the most patches."""
    counts = Counter(label for top_map in top_maps for label in top_map.flat if label != reference)
    return [int(label) for label, count in counts.most_common(_N_OTHERS) if count > 1]


def _draw_classes(
    ax: Axes, top_map: np.ndarray, colours: dict[int, str], n_classes: int, patch_size: tuple[int, int]
) -> None:
    colour_index = np.full(n_classes, len(colours))
    colour_index[list(colours)] = np.arange(len(colours))
    cmap = ListedColormap([*colours.values(), _REST_COLOUR])
    draw_patch_map(ax, colour_index[top_map], patch_size, cmap, BoundaryNorm(np.arange(cmap.N + 1) - 0.5, cmap.N))


def _draw_ranks(
    figure: Figure,
    axes: np.ndarray,
    rank_maps: Sequence[np.ndarray],
    n_classes: int,
    patch_size: tuple[int, int],
    name: str,
) -> None:
    scale = LogNorm(1, max(2, n_classes))
    meshes = [
        draw_patch_map(ax, rank_map + 1, patch_size, _RANK_COLOURS, scale)
        for ax, rank_map in zip(axes, rank_maps, strict=True)
    ]
    bar = figure.colorbar(meshes[0], ax=axes.tolist(), shrink=0.95, pad=0.02, aspect=14, anchor=(0, 1))
    ticks = [tick for tick in _RANK_TICKS if tick < n_classes / 2] + [n_classes - 1]
    bar.ax.yaxis.set(major_locator=FixedLocator([tick + 1 for tick in ticks]), minor_locator=NullLocator())
    bar.ax.yaxis.set_major_formatter(FixedFormatter([f"{tick}" for tick in ticks]))
    bar.ax.invert_yaxis()
    bar.ax.tick_params(labelsize=_FONT - 1)
    bar.ax.set_ylabel(f"rank of\n{name}", fontsize=_FONT, parse_math=False)


def _draw_legend(ax: Axes, entries: Sequence[tuple[str, str]]) -> None:
    handles = [Patch(facecolor=colour, label=name) for name, colour in entries]
    legend = ax.legend(
        handles=handles, title="top class of a patch", fontsize=_FONT, title_fontsize=_FONT, loc="upper left",
        alignment="left", frameon=False, borderpad=0, borderaxespad=0, handlelength=1, handleheight=1,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    ax.axis("off")


def _title(ax: Axes, text: str, colour: str) -> None:
    ax.set_title(text, fontsize=_font_size(text), color=colour, pad=14, parse_math=False)


def _subtitle(ax: Axes, text: str, colour: str) -> None:
    ax.annotate(
        text, (0.5, 1), xytext=(0, 3), xycoords="axes fraction", textcoords="offset points",
        fontsize=_font_size(text), color=colour, ha="center", va="bottom", parse_math=False,
    )  # fmt: skip


def _font_size(text: str) -> float:
    """Points; smaller if the text would be wider than its panel."""
    return min(_FONT, _FONT * _LINE_LENGTH / len(text))


def _short(name: str) -> str:
    """The first of a class's synonyms, shortened to fit above a panel."""
    first = name.split(",")[0].strip()
    return first if len(first) <= _NAME_LENGTH else first[: _NAME_LENGTH - 1].rstrip() + "…"

"""Lines over blocks: a value after each block, for several kinds of token."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

__all__ = ["draw_block_lines"]

# Okabe and Ito's colours, and a marker each, so that no line is told by its colour alone
_STYLES = (("#D55E00", "o"), ("#0072B2", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "D"), ("#56B4E9", "P"))


def draw_block_lines(
    ax: Axes, lines: Mapping[str, Sequence[float]], ylabel: str, *, chance: float | None = None, legend: bool = True
) -> None:
    """Draw a line for each name, over the blocks from 0 on.

    Args:
        ax: Where.
        lines: A value a block, up to six lines.
        ylabel: What the values are, with their unit.
        chance: What guessing would give, drawn as a dotted line.
        legend: Whether to tell the lines' names; once is enough for neighbours with the same lines.

    Raises:
        ValueError: If there are more than six lines.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> draw_block_lines(ax, {"CLS": [0.5, 0.9], "patches": [0.5, 0.7]}, "identifiability", chance=0.5)
    >>> [line.get_label() for line in ax.lines]
    ['CLS', 'patches', 'chance']
    """
    if len(lines) > len(_STYLES):
        raise ValueError(f"at most {len(_STYLES)} lines can be told apart, got {len(lines)}")
    for (name, values), (colour, marker) in zip(lines.items(), _STYLES, strict=False):
        ax.plot(range(len(values)), values, color=colour, marker=marker, markersize=4, linewidth=1.5, label=name)
    if chance is not None:
        ax.axhline(chance, color="#777777", linestyle=":", linewidth=1, label="chance")
    ax.set_xlabel("block")
    ax.set_ylabel(ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        for text in ax.legend(frameon=False, fontsize="small").get_texts():
            text.set_parse_math(False)

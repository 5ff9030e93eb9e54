"""A circuit as a static graph: layers from bottom to top, edges as thick as their scores."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from analyses.circuits.circuit import Circuit
from analyses.circuits.scores import EdgeScores
from analyses.plots.curves import BLUE, GREEN, GREY, PURPLE, VERMILION
from analyses.plots.figure import Figure

__all__ = ["circuit_figure"]

_COLOURS = {"q": BLUE, "k": GREEN, "v": VERMILION, "mlp": PURPLE, "logits": GREY}
_NAMES = {"q": "queries", "k": "keys", "v": "values", "mlp": "MLP", "logits": "logits"}


def circuit_figure(circuit: Circuit, scores: EdgeScores, *, title: str = "", labels: bool = True) -> Figure:
    """Draw a circuit: each head, MLP, the embedding and the logits, with the edges between them.

    Colours tell what an edge is read by; solid edges lower the metric when they are corrupted, dashed ones raise it.
    In a graph of token groups, edges of all groups between two parts are drawn together.

    Args:
        circuit: The circuit.
        scores: Scores of the same graph.
        title: Above the figure: which model and pictures.
        labels: Whether parts that have an edge are named.

    Raises:
        ValueError: If the scores are of another graph, or the circuit is empty.

    >>> from analyses.circuits import edge_attribution, planted_model, top_circuit
    >>> planted = planted_model("gate")
    >>> scores = edge_attribution(planted.model, planted.clean, planted.corrupt, planted.metric)
    >>> len(circuit_figure(top_circuit(scores, 4), scores).axes[0].patches)
    4
    """
    graph = circuit.graph
    if scores.graph != graph:
        raise ValueError("expected scores of the circuit's graph: compute them with the same model and groups")
    if not circuit.n_edges:
        raise ValueError("the circuit has no edge to draw: take more edges, or a lower threshold")
    figure = Figure(figsize=(1.6 + 0.75 * (graph.n_heads + 2), 1.6 + 0.85 * (graph.n_layers + 2)), layout="constrained")
    ax = figure.subplots()
    places = _places(graph.n_layers, graph.n_heads)
    drawn: dict[tuple[Any, Any, str], float] = {}
    mean = scores.mean.cpu()
    for index, (_, reader) in zip(circuit.mask.nonzero().tolist(), graph.edges(circuit.mask), strict=True):
        for part in graph.parts_of(index[1]) or [None]:
            ends = graph.senders[index[0]], ("logits",) if part is None else graph.senders[part]
            key = (*ends, reader[0])
            drawn[key] = drawn.get(key, 0.0) + float(mean[index[0], index[1]])
    largest = max(map(abs, drawn.values())) or 1.0
    helps = 1.0 if float(scores.corrupt.mean() - scores.clean.mean()) >= 0 else -1.0
    for (sender, part, kind), score in sorted(drawn.items(), key=lambda item: abs(item[1])):
        _draw_edge(ax, places[sender], places[part], _COLOURS[kind], abs(score) / largest, helps * score >= 0)
    live = {end for sender, part, _ in drawn for end in (sender, part)}
    for name, place in places.items():
        ax.plot(*place, "o", markersize=9, color="#222222" if name in live else "#E3E3E3", zorder=3)
        if labels and name in live:
            ax.annotate(_label(name), place, xytext=(7, 5), textcoords="offset points", fontsize=7, zorder=4)
    ax.set_yticks([1 + 1.0 * layer for layer in range(graph.n_layers)], [str(layer) for layer in range(graph.n_layers)])
    ax.set_ylabel("block")
    ax.set_xticks([])
    ax.spines[:].set_visible(False)
    ax.margins(0.09, 0.05)
    kinds = [kind for kind in _COLOURS if any(key[2] == kind for key in drawn)]
    handles = [Line2D([], [], color=_COLOURS[kind], linewidth=2, label=f"read by {_NAMES[kind]}") for kind in kinds]
    handles.append(Line2D([], [], color=GREY, linewidth=2, linestyle="--", label="works against"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    ax.set_title(title, fontsize="medium", parse_math=False)
    return figure


def _places(n_layers: int, n_heads: int) -> dict[tuple[Any, ...], tuple[float, float]]:
    middle = n_heads / 2
    places: dict[tuple[Any, ...], tuple[float, float]] = {
        ("embed",): (middle, 0.0),
        ("logits",): (middle, n_layers + 1.0),
    }
    for layer in range(n_layers):
        for head in range(n_heads):
            places["head", layer, head] = (float(head), 1.0 + layer)
        places["mlp", layer] = (n_heads + 0.4, 1.45 + layer)
    return places


def _draw_edge(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, share: float, helps: bool
) -> None:
    curve = "arc3,rad=0.12" if not math.isclose(start[0], end[0]) else "arc3,rad=0.25"
    ax.add_patch(
        FancyArrowPatch(
            start, end, connectionstyle=curve, arrowstyle="-", color=colour, linewidth=0.4 + 4.5 * math.sqrt(share),
            alpha=0.25 + 0.6 * share, linestyle="-" if helps else "--", shrinkA=4, shrinkB=4, zorder=2,
        )
    )  # fmt: skip


def _label(name: tuple[Any, ...]) -> str:
    kind, *at = name
    if kind == "head":
        return f"{at[0]}.{at[1]}"
    return f"MLP {at[0]}" if kind == "mlp" else kind

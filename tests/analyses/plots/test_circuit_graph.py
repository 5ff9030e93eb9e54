"""Figures of circuits: an edge drawn for each pair of parts, and curves with intervals."""

import pandas as pd
import pytest

from analyses.circuits import Circuit, edge_attribution, planted_model, top_circuit
from analyses.plots.circuit_curves import circuit_faithfulness_figure
from analyses.plots.circuit_graph import circuit_figure


def test_a_circuit_is_drawn_edge_by_edge() -> None:
    planted = planted_model("and")
    scores = edge_attribution(planted.model, planted.clean, planted.corrupt, planted.metric)
    circuit = top_circuit(scores, 5)
    [ax] = circuit_figure(circuit, scores, title="and $x$").axes
    assert len(ax.patches) == 5
    widths = sorted(patch.get_linewidth() for patch in ax.patches)
    assert widths[0] < widths[-1]
    assert {text.get_text() for text in ax.texts} == {"embed", "0.0", "0.2", "MLP 1", "logits"}
    assert ax.get_title() == "and $x$"
    whole = circuit_figure(Circuit.whole(scores.graph), scores).axes[0]
    assert {patch.get_linestyle() for patch in whole.patches} == {"-", "--"}


def test_errors() -> None:
    planted = planted_model("copy")
    scores = edge_attribution(planted.model, planted.clean, planted.corrupt, planted.metric)
    with pytest.raises(ValueError, match="no edge to draw"):
        circuit_figure(Circuit.whole(scores.graph).complement(), scores)


def test_curves() -> None:
    rows = [
        {"curve": curve, "metric": "value", "share": share, "value": share, "low": 0.0, "high": 1.0, "n_images": 4}
        for curve in ("faithfulness", "complement", "random") for share in (0.01, 0.1)
    ]  # fmt: skip
    rows.append({"curve": "faithfulness", "metric": "cpr", "value": 0.875, "n_images": 4})
    table = pd.DataFrame(rows)
    figure = circuit_faithfulness_figure(table, table, title="both")
    assert [ax.get_title() for ax in figure.axes] == ["trained", "freshly initialised"]
    assert len(figure.axes[0].collections) == 3
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "circuit, CPR 0.88"

"""A circuit page shows circuits of growing size with their exact shares, and maps that sum to scores."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import open_page, started_browser
from conftest import ported

from analyses.circuits import Circuit, edge_attribution, greedy_circuit
from analyses.pages.circuit import CircuitPage, circuit_page
from analyses.pages.circuit.content import circuit_data, sizes_of
from analyses.patching import logit_difference

CLEAN, CORRUPT = torch.randn(2, 1, 3, 32, 24, generator=torch.Generator().manual_seed(4))
METRIC = logit_difference(0, against=4)


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    """The content of a page of a small model with 60 edges."""
    model = ported("gap_registers_layerscale")
    scores = edge_attribution(model, CLEAN, CORRUPT, METRIC, "eap-ig", steps=2, rule="midpoint")
    return circuit_data(model, CLEAN, CORRUPT, METRIC, scores, 60, 2)


def test_circuits_keep_what_a_run_keeps(data: dict[str, Any]) -> None:
    model = ported("gap_registers_layerscale")
    scores = edge_attribution(model, CLEAN, CORRUPT, METRIC, "eap-ig", steps=2, rule="midpoint")
    ends = [float(METRIC(model(images))) for images in (CLEAN, CORRUPT)]
    for step in data["circuits"][::3]:
        circuit = greedy_circuit(scores, step["asked"])
        edges = [(tuple(data["edges"][i]["sender"]), tuple(data["edges"][i]["reader"])) for i in step["edges"]]
        assert set(edges) == set(circuit.edges)
        for kept, some in ((step["kept"], circuit), (step["left"], circuit.complement())):
            share = (float(METRIC(some.run(model, CLEAN, CORRUPT))) - ends[1]) / (ends[0] - ends[1])
            assert kept == pytest.approx(share, abs=2e-3)
    assert data["circuits"][-1]["asked"] == 60
    assert all(step["edges"] for step in data["circuits"])


def test_maps_sum_to_scores(data: dict[str, Any]) -> None:
    assert len(data["edges"][0]["map"]) == 14
    for edge in data["edges"]:
        total = sum(edge["map"]) * edge["largest"] / data["levels"]
        assert total == pytest.approx(edge["score"], abs=14 * edge["largest"] / data["levels"])
    sizes = [abs(edge["score"]) for edge in data["edges"]]
    assert sizes == sorted(sizes, reverse=True)


def test_sizes_end_at_the_largest() -> None:
    assert sizes_of(2000, 200)[-1] == 200
    assert sizes_of(30, 200)[-1] == 30
    assert sizes_of(3000, 1) == [1]
    assert sizes_of(172, 60) == sorted(set(sizes_of(172, 60)))


def page() -> CircuitPage:
    model = ported("cls")
    pictures = [torch.rand(32, 24, 3).numpy(), torch.rand(32, 24, 3).numpy()]
    return circuit_page(model, *pictures, (0, 4), method="eap", n_edges=40, titles=("a.png", "<b>.png"))


def test_the_page_is_one_file(tmp_path: Path) -> None:
    made = page()
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', made.html, flags=re.DOTALL)
    assert json.loads(found)["titles"] == ["a.png", "<b>.png"]
    assert "<b>.png" not in made.html
    assert made.save(tmp_path / "new" / "page.html").read_text("utf-8") == made.html
    assert f"of {made.scores.graph.n_edges} edges keep" in made.summary
    assert Circuit.whole(made.scores.graph).n_edges == 172


def test_the_slider_and_the_list_in_a_browser(tmp_path: Path) -> None:
    made = page()
    path = made.save(tmp_path / "page.html")
    with started_browser() as browser, open_page(browser, path) as visit:
        shown = "#edges tr:not([hidden])"
        steps = json.loads(visit.page.locator("#data").text_content() or "")["circuits"]
        visit.page.locator("#size").fill(f"{len(steps) - 1}")
        assert visit.page.locator(shown).count() == len(steps[-1]["edges"])
        assert visit.page.locator("#size-number").text_content() == f"{len(steps[-1]['edges'])} of 172"
        visit.page.locator(f"{shown} button").nth(1).click()
        name = visit.page.locator("#edge-name").text_content()
        assert name is not None
        assert "→" in name
        assert visit.page.locator("#edges tr.chosen").count() == 1
        assert visit.page.locator("#graph path.chosen").count() >= 1
        visit.page.keyboard.press("Escape")
        visit.page.locator("#size").fill("0")
        assert visit.page.locator(shown).count() == len(steps[0]["edges"])
        visit.assert_clean()


def test_two_classes_are_needed() -> None:
    picture = torch.rand(32, 24, 3).numpy()
    with pytest.raises(ValueError, match=r"both pictures have the class '.*', predicted or named: name two classes"):
        circuit_page(ported("cls"), picture, picture, (2, 2))

"""Figures of dictionaries: markers at the table's numbers, all curves named."""

import pandas as pd
import pytest
import torch
from PIL import Image

from analyses.dictionaries import DoseResponse
from analyses.plots.dictionaries import dictionary_fidelity_figure, dose_response_figure, factor_figure


def fidelity() -> pd.DataFrame:
    values = {"explained_variance": 0.8, "loss_recovered": 0.9, "accuracy_recovered": 0.7, "accuracy": 60, "l0": 8.0}
    rows = []
    for name, factor in (("given", 1.0), ("random", -2.0)):
        for metric, value in values.items():
            at = value * factor if "acc" not in metric or "rec" in metric else 20
            rows.append({"dictionary": name, "metric": metric, "value": at, "low": at - 0.1, "high": at + 0.1})
    rows += [{"dictionary": name, "metric": "accuracy", "value": v} for name, v in (("plain", 90), ("ablated", 1))]
    rows += [{"dictionary": "given", "metric": "dead_percent", "value": 12.0}]
    return pd.DataFrame(rows).assign(n_images=40)


def test_fidelity_shows_shares_and_accuracies(tmp_path) -> None:
    figure = dictionary_fidelity_figure(fidelity(), title="a $title$")
    left, right = figure.axes
    points = [line.get_xdata()[0] for line in left.lines if line.get_marker() in "ox"]
    assert [round(float(x), 2) for x in points] == [0.8, 0.9, 0.7, -0.5, -0.5, -0.5]
    assert [bar.get_width() for bar in right.patches] == [90, 20, 20, 1]
    assert "8.0 active latents per token, 12 % dead" in figure._supxlabel.get_text()  # pyright: ignore
    figure.savefig(tmp_path / "a.png", dpi=60)
    assert min(Image.open(tmp_path / "a.png").size) > 100


def test_factors_show_every_kind_of_features() -> None:
    rows = [
        {"features": kind, "factor": factor, "auroc": a, "low": a - 0.1, "high": a + 0.1, "percent_found": 100 * a}
        for kind, a in (("latents", 0.9), ("neurons", 0.7))
        for factor in ("group", "class")
    ]
    figure = factor_figure(pd.DataFrame(rows))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["latents", "neurons"]
    assert [list(line.get_xdata()) for line in figure.axes[1].lines] == [[90, 90], [70, 70]]
    many = pd.DataFrame([{**rows[0], "features": f"kind {i}"} for i in range(7)])
    with pytest.raises(ValueError, match="at most 6 kinds of features, got 7"):
        factor_figure(many)


def test_dose_response_shows_target_and_side_effects(bad_input: None) -> None:
    plain = torch.tensor([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    logits = torch.stack([plain, plain + torch.tensor([0.0, 4.0, -1.0])])
    response = DoseResponse(3, "add", (0.0, 2.0), logits, plain, torch.tensor([1, 1]), ("a", "b", "c"))
    figure = dose_response_figure([response], ["latent 3"])
    target, spread, kept = (ax.lines[0].get_ydata().tolist() for ax in figure.axes)
    assert (target, spread, kept) == ([0.0, 4.0], [0.0, 0.5], [100.0, 0.0])
    with pytest.raises(ValueError, match="1 to 6 responses and a label for each, got 1 and 0"):
        dose_response_figure([response], [])
    scaled = DoseResponse(3, "scale", (0.0, 2.0), logits, plain, torch.tensor([1, 1]), ("a", "b", "c"))
    with pytest.raises(ValueError, match="one mode"):
        dose_response_figure([response, scaled], ["a", "b"])

"""`hooked-vit explain` prints a table and writes figures and maps, and reports errors in one line."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from analyses.commands.cli import app
from analyses.commands.explain_result import explain_report
from analyses.data.emoji_scenes.sample_pictures import sample_scenes
from analyses.feature_importance.methods import explainer
from hooked_vit import HookedViT

SCENE = sample_scenes()[0]


def run(*arguments: object):
    return CliRunner().invoke(app, ["explain", *map(str, arguments)], env={"COLUMNS": "160"})


def test_maps_figures_and_a_table(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(SCENE.path, "--class", "crocodile", "--class", 58, "--method", "importance", "--method", "rollout",
                 "--out", out, "--device", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    names = ["scene_00-explain.png", "scene_00-heads-23.png", "scene_00-heads-58.png", "scene_00-maps.csv"]
    assert sorted(path.name for path in out.iterdir()) == names
    for name in names[:3]:
        assert str(out / name) in result.output
        with Image.open(out / name) as figure:
            assert min(figure.size) > 200
    model = HookedViT.from_pretrained("emoji-vit")
    table = pd.read_csv(out / names[3])
    assert len(table) == 2 * 2 * 64
    maps = explainer("importance")(model, model.preprocess(SCENE.picture), torch.tensor([23]))
    values = table.query("method == 'importance' and class_name == 'crocodile'").sort_values(["row", "column"])["value"]
    assert values.tolist() == pytest.approx(maps[0].tolist(), rel=1e-3, abs=1e-5)


def test_the_test_of_a_map_is_a_run_with_its_patches() -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    table = explain_report(model, SCENE.picture, "x", [58], ["relevance"]).table
    image = model.preprocess(SCENE.picture)
    best = explainer("relevance")(model, image, torch.tensor([58]))[0].argsort(descending=True)[:16]
    alone = torch.zeros(1, 65, dtype=torch.bool)
    alone[0, 0] = alone[0, 1 + best] = True
    without = ~alone
    without[0, 0] = True
    whole, kept, lost = (model(image, token_mask=mask).softmax(-1)[0, 58] for mask in (None, alone, without))
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells[3:] == [f"{whole:.1%}", f"{kept:.1%}", f"{lost:.1%}"]


def test_without_captum_its_methods_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("analyses.commands.explain.find_spec", lambda name: None if name == "captum" else real(name))
    result = run(SCENE.path, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "relevance" in result.output
    assert "input_gradients" not in result.output


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["no.png"], 1, "error: no picture at 'no.png'"),
        ([SCENE.path, "--method", "relevence"], 2, "did you mean 'relevance'?"),
        ([SCENE.path, "--class", "crocodil"], 2, "crocodile"),
        ([SCENE.path, "--class", "100"], 2, "class index 100 is out of range"),
    ],
)
def test_errors(arguments: list, status: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert (result.exit_code, result.output.count("error:")) == (status, 1)
    assert message in result.output
    assert not list(tmp_path.iterdir())


def test_saturated_importance_is_said_and_another_target_has_a_gradient(tmp_path: Path) -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    with torch.no_grad():
        model.head.bias[3] += 300  # pyright: ignore[reportOptionalMemberAccess, reportOptionalSubscript]
    picture = Image.new("RGB", (64, 64))
    with pytest.warns(UserWarning, match="exactly 0"):
        report = explain_report(model, picture, "black.png", [3], ["importance"])
    assert "importance is exactly 0 in 8 blocks for" in str(report.table.caption)
    assert "--target logit" in str(report.table.caption)
    report = explain_report(model, picture, "black.png", [3], ["importance"], target="logit")
    assert "exactly 0" not in str(report.table.caption)
    assert report.maps["value"].abs().max() > 0

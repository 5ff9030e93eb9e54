"""`hooked-vit sweep` and `hooked-vit plot` on a real folder and on Emoji Scenes."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from analyses.catalogue import CATALOGUE
from analyses.commands.cli import app
from analyses.commands.sweep_analyses import make_analyses
from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.identifiability import Identifiability
from analyses.statistics import Resampling
from analyses.sweep.run import sweep
from analyses.sweep.store import Store
from hooked_vit import HookedViT


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over a few scenes."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    result = invoke("sweep", "--model", "emoji-vit", "--data", "emoji-scenes:6?seed=9", "--analyses", "identifiability",
                    "--out", out, "--limit", 4, "--resume", "--batch-size", 3, "--device", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "4 images: top-1 " in result.stdout
    assert str(out / "identifiability.parquet") in result.stdout
    return out


def test_tables_and_record_are_written(out: Path) -> None:
    table = pd.read_parquet(out / "identifiability.parquet")
    assert {"layer", "token_type", "metric", "value"} <= set(table.columns)
    record = json.loads((out / "record.json").read_text())
    assert record["dataset"]["n_images"] == 4
    assert record["dataset"]["description"]["seed"] == 9
    assert record["options"]["batch_size"] == 3


def test_another_sweep_in_the_same_folder_is_an_error_of_one_line(out: Path) -> None:
    result = invoke("sweep", "--data", "emoji-scenes:6?seed=10", "--analyses", "identifiability", "--out", out)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "dataset.description.seed: 9 then, 10 now" in result.stderr
    assert "start over with --no-resume" in result.stderr
    assert result.stderr.count("\n") == 1


def test_each_analysis_is_drawn_by_its_own_figure(out: Path, tmp_path: Path) -> None:
    result = invoke("plot", out, "--out", tmp_path / "figures")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["identifiability.png"]
    assert result.stdout.strip() == str(tmp_path / "figures" / "identifiability.png")


def test_your_own_analyses_have_one_figure_per_metric(tmp_path: Path) -> None:
    class Mine(Identifiability):
        pass

    model = HookedViT.from_pretrained("emoji-vit")
    tables = sweep(model, EmojiScenes(3, seed=2), [Mine(resampling=Resampling(9))], out=tmp_path)
    assert invoke("plot", tmp_path).exit_code == 0
    metrics = set(tables["mine"]["metric"])
    assert {path.stem for path in tmp_path.glob("*.png")} == {f"mine-{metric}" for metric in metrics}


def test_a_folder_of_pictures_with_a_broken_one(tmp_path: Path) -> None:
    scenes = EmojiScenes(3, seed=1)
    for index in range(3):
        folder = tmp_path / "pictures" / scenes.class_names[scenes[index][1]].replace(" ", "_")
        folder.mkdir(parents=True)
        scenes.picture(index).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"")
    arguments = ("sweep", "--data", f"folder:{tmp_path / 'pictures'}", "--analyses", "identifiability")
    result = invoke(*arguments, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "3 images: top-1 100.00 %" in result.stdout
    assert result.stderr.startswith(f"skipped: 1 image left out, see {tmp_path / 'out' / 'skipped.parquet'}; image ")
    assert "broken.png" in result.stderr
    stopped = invoke(*arguments, "--out", tmp_path / "other", "--stop")
    assert stopped.exit_code == 1
    assert "cannot be read" in stopped.stderr
    assert "Without --stop, such images are left out and listed" in stopped.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--data", "emoji-scenes:3", "--analyses", "identifyability"], 2, "no analysis called identifyability: there"),
        (["--data", "emoji-scenes:3", "--analyses", ","], 2, "no analysis called nothing: there are identifiability"),
        (["--data", "emoji-scenes:3", "--method", "rollout"], 2, "--method is for faithfulness and localisation: name"),
        (["--data", "emoji-scenes:3", "--analyses", "faithfulness", "--method", "rolout"], 2, "did you mean 'rollout'"),
        (["--data", "emoji:3"], 2, "unknown kind of dataset 'emoji'"),
        (["--data", "folder:/nowhere/at/all"], 1, "no folder '/nowhere/at/all'"),
        (["--data", "emoji-scenes:3?image_size=32"], 1, "expected images of shape"),
        (["--data", "emoji-scenes:3", "--model", "emoji-wit"], 1, "unknown model 'emoji-wit'"),
    ],
)
def test_mistakes_are_reported_in_one_line(tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    result = invoke("sweep", "--out", tmp_path / "out", *arguments)
    assert result.exit_code == status, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_progress_is_saved_as_often_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(Store, "write_checkpoint", lambda *arguments: written.append(1))
    arguments = ("sweep", "--data", "emoji-scenes:4", "--analyses", "identifiability", "--batch-size", 1)
    for every, n_checkpoints in ((0, 5), (1000, 1)):
        written.clear()
        assert invoke(*arguments, "--checkpoint-every", every, "--out", tmp_path / f"{every}").exit_code == 0
        assert len(written) == n_checkpoints
    assert "Progress is saved every 30 seconds (--checkpoint-every)" in " ".join(
        invoke("sweep", "--help").stdout.split()
    )


def test_a_folder_without_a_finished_sweep_has_nothing_to_plot(tmp_path: Path) -> None:
    assert "no sweep in" in invoke("plot", tmp_path).stderr
    (tmp_path / "record.json").write_text('{"finished": false}')
    result = invoke("plot", tmp_path)
    assert result.exit_code == 1
    assert "is not finished: run it again to resume it" in result.stderr


def test_methods_are_chosen_by_name(tmp_path: Path) -> None:
    result = invoke("sweep", "--data", "emoji-scenes:3", "--analyses", "localisation", "--out", tmp_path,
                    "--method", "input_gradients", "--method", "random", "--method", "random")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert list(pd.read_parquet(tmp_path / "localisation.parquet")["method"].unique()) == ["input_gradients", "random"]
    faithfulness, other = make_analyses(["faithfulness", "identifiability"], ["rollout"])
    assert getattr(faithfulness, "methods", None) == ("rollout",)
    assert not hasattr(other, "methods")


def test_every_analysis_that_exists_can_be_named() -> None:
    made = make_analyses(["identifiability", "updates", "perturbation", "updates"])
    assert [type(analysis).__name__ for analysis in made] == ["Identifiability", "CategoricalUpdates", "Perturbation"]
    for entry in CATALOGUE.values():
        assert re.search(rf"\b{entry.command}\b", invoke("sweep", "--help").stdout), "the help lists every analysis"

"""`hooked-vit patch` on real pictures: a table, a figure, and mistakes reported in one line."""

from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from analyses.commands.cli import app
from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.patching.activation import activation_patching
from analyses.patching.metrics import logit_difference
from hooked_vit import HookedViT


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in ("patch", *arguments)], env={"COLUMNS": "100"})


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    scenes = EmojiScenes(4, seed=11, scale=(0.6, 0.8))
    paths = tmp_path / "clean.png", tmp_path / "corrupt.png"
    for path, dataset in zip(paths, (scenes, scenes.swap_object()), strict=True):
        dataset.picture(2).save(path)
    return paths


def test_the_stream_token_by_token(pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = invoke(*pair, "--class", "dog", "--against", "cat", "--out", tmp_path / "new" / "out")
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "new" / "out").iterdir())
    assert [path.name for path in files] == [
        "clean-corrupt-resid_pre-denoising.csv", "clean-corrupt-resid_pre-denoising.png",
    ]  # fmt: skip
    model = HookedViT.from_pretrained("emoji-vit")
    metric = logit_difference(model.class_index("dog"), against=model.class_index("cat"))
    expected = activation_patching(model, *(model.preprocess(path) for path in pair), metric)
    table = pd.read_csv(files[0])
    assert table["value"].to_numpy() == pytest.approx(expected.values.flatten().numpy(), abs=1e-4)
    with Image.open(files[1]) as picture:
        assert min(picture.size) > 300
    assert "logit of dog minus logit of cat" in result.stdout
    assert "clean-corrupt-resid_pre-denoising.png" in result.stdout


def test_heads_and_neurons_and_the_other_direction(pair: tuple[Path, Path], tmp_path: Path) -> None:
    common = ("--class", 1, "--against", 2, "--direction", "noising", "--memory-limit", 50, "--out", tmp_path / "out")
    assert invoke(*pair, "--stream", "z", *common).exit_code == 0
    assert invoke(*pair, "--stream", "q", *common, "--model", "test_vit", "--random-weights").exit_code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"clean-corrupt-{s}-noising.{kind}" for s in "zq" for kind in ("csv", "png")}


def test_mistakes_are_reported_in_one_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    for arguments, status, message in [
        ((pair[0], tmp_path / "none.png", *out), 1, "no picture at"),
        ((pair[0], pair[0], *out), 2, "both pictures have the class"),
        ((*pair, "--class", "hotdo", *out), 2, "did you mean 'hotdog'"),
        (
            (*pair, "--class", "1", "--against", "2", "--memory-limit", "0.01", *out, "--stream", "pattern"),
            1,
            "raise it",
        ),
        ((*pair, "--model", "vit_base_patch16_223", *out), 1, "did you mean"),
    ]:
        result = invoke(*arguments)
        assert result.exit_code == status, result.output
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert message in result.stderr
    assert invoke(*pair, "--stream", "resid", *out).exit_code == 2
    assert not (tmp_path / "out").exists()

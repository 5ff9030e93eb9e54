"""`hooked-vit values` prints and draws the classes of memories, and reports a user's mistakes in one line."""

from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from analyses.commands.cli import app
from analyses.commands.sweep_analyses import make_analyses
from analyses.commands.values_result import table_of_classes
from analyses.value_vectors.vectors import top_classes, top_memories
from hooked_vit import HookedViT


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def test_neurons_are_printed_with_their_classes(tmp_path: Path) -> None:
    result = invoke("values", "--model", "emoji-vit", "--layer", 6, "--neuron", "4,8,10", "--out", tmp_path / "a" / "b")
    assert result.exit_code == 0, result.output
    table = top_classes(HookedViT.from_pretrained("emoji-vit"), 6, [4, 8, 10])
    for name, logit in zip(table["class_name"], table["logit"], strict=True):
        assert f"{name} {logit:.2f}" in result.stdout
    assert (tmp_path / "a" / "b" / "values-6.png").is_file()
    assert str(tmp_path / "a" / "b" / "values-6.png") in result.stdout


def test_the_memories_of_a_class_with_the_pictures_that_activate_them(tmp_path: Path) -> None:
    result = invoke("values", "--layer", "-1", "--class", "pizza", "--sublayer", "attn", "--top", 3, "--unit-length",
                    "--data", "emoji-scenes:6?seed=2", "--limit", 5, "--pictures", 2, "--out", tmp_path)  # fmt: skip
    assert result.exit_code == 0, result.output
    model = HookedViT.from_pretrained("emoji-vit")
    table = top_memories(model, 7, ["pizza"], "attn", 3, unit_length=True)
    for head, dimension in zip(table["head"], table["dimension"], strict=True):
        assert f" {head}, {dimension} " in result.stdout
    assert "cosine" in result.stdout
    with Image.open(tmp_path / "values-7.png") as figure:
        assert figure.width > 600


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "say which memories: --neuron 4,8,10, or --class NAME"),
        (("--neuron", "4", "--class", "pizza"), 2, "say which memories"),
        (("--neuron", "4,x"), 2, "numbers with commas between them, such as 0,4,8, got '4,x'"),
        (("--neuron", "512"), 2, "expected neurons from 0 to 511, got [512]"),
        (("--neuron", "4", "--sublayer", "head"), 2, "--sublayer is mlp or attn, not 'head'"),
        (("--class", "pizzza"), 2, "did you mean 'pizza'"),
        (("--neuron", "4", "--data", "emoji:3"), 2, "unknown kind of dataset 'emoji'"),
        (("--neuron", "4", "--data", "folder:/nowhere/at/all"), 1, "no folder '/nowhere/at/all'"),
        (("--neuron", "4", "--layer", "8"), 2, "expected a layer from 0 to 7"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    result = invoke("values", "--layer", "6", "--out", tmp_path, *arguments)
    assert result.exit_code == status, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_sweeps_know_the_analyses_of_memories() -> None:
    made = make_analyses(["key-value", "compositionality", "causal-memories"])
    assert [type(analysis).__name__ for analysis in made] == ["KeyValueAgreement", "Compositionality", "CausalMemories"]


def test_small_logits_are_printed_with_three_digits() -> None:
    classes = top_classes(HookedViT.from_pretrained("emoji-vit"), 6, [4], k=2)
    for factor in (1.0, 1e-3):
        scaled = classes.assign(logit=[0.61234 * factor, -0.01234 * factor])
        (row,) = zip(*(column.cells for column in table_of_classes(scaled, "class logit").columns), strict=True)
        names = classes["class_name"].tolist()
        numbers = ["0.61", "-0.01"] if factor == 1 else ["0.000612", "-0.000012"]
        assert row == ("4", f"{names[0]} {numbers[0]}", f"{names[1]} {numbers[1]}")

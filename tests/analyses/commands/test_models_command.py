"""`hooked-vit models` finds covered models by part of a name or wildcard, and explains why others are not covered."""

import json

import pytest
from click.testing import Result
from typer.testing import CliRunner

from analyses.commands.cli import app
from hooked_vit.covered_models import covered_models


def invoke(*arguments: str, columns: int = 80) -> Result:
    return CliRunner().invoke(app, ["models", *arguments], env={"COLUMNS": str(columns)})


def names(*arguments: str) -> list[str]:
    return [row["name"] for row in json.loads(invoke(*arguments, "--json").stdout)["tables"]["models"]]


def test_without_a_pattern_all_are_listed() -> None:
    result = invoke()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    table = covered_models()
    assert len(lines) == len(table) + 2
    for line, name in zip(lines[1:-1], table["name"], strict=True):
        assert line.split()[0] == name
    assert f"{len(set(table['architecture']))} architectures, {table['pretrained'].sum()} sets of weights" in lines[-1]


def test_a_row_has_the_properties_of_the_model() -> None:
    [_, line, _] = invoke("vit_small_patch14_reg4_dinov2").stdout.splitlines()
    assert line.split() == [
        "vit_small_patch14_reg4_dinov2.lvd142m", "cls", "CLS,", "4", "registers", "37×37", "384", "12", "0", "22.1",
        "0",
    ]  # fmt: skip


def test_patterns() -> None:
    table = covered_models()["name"]
    assert names("DINOv2") == [name for name in table if "dinov2" in name]
    assert names("deit_tiny*") == [name for name in table if name.startswith("deit_tiny")]
    assert names("vit_tiny_patch16_22?") == [name for name in table if name.split(".")[0] == "vit_tiny_patch16_224"]
    assert names("*.augreg_in1k") == [name for name in table if name.endswith(".augreg_in1k")]
    assert "test_vit4" in names("test_vit*", "--all")
    assert "test_vit4" not in names("test_vit*", "--pretrained")


def test_models_that_are_not_covered_are_listed_with_the_reason() -> None:
    result = invoke("samvit_base_patch16")
    assert result.exit_code == 0
    assert (
        "not covered: samvit_base_patch16: the family VisionTransformerSAM (it attends within windows" in result.stdout
    )
    document = json.loads(invoke("resnet1*", "--json").stdout)
    assert document["tables"]["models"] == []
    assert {"name": "resnet18", "reason": "the family ResNet"} in document["not_covered"]
    many = invoke("convnext")
    assert "more of timm's; --json names them" in many.stdout
    assert many.stdout.count("\n") == 6


@pytest.mark.parametrize(
    ("pattern", "suggestion"),
    [("vit_base_patch16_223", "vit_base_patch16_224"), ("qqqq", "`hooked-vit models` lists all")],
)
def test_no_match_is_an_error_with_the_nearest_names(pattern: str, suggestion: str) -> None:
    result = invoke(pattern)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: no model matches '{pattern}'; ")
    assert suggestion in result.stderr
    assert result.stdout == ""

"""Errors of commands are one line that advises the command's own options, not Python's keywords."""

import ast
import re
from pathlib import Path

import pytest
import timm
import torch
from typer.testing import CliRunner

import analyses
import hooked_vit
from analyses.commands.cli import app
from analyses.commands.errors import SPELLINGS, for_the_command_line
from analyses.data.emoji_scenes.sample_pictures import sample_scenes

SCENE = str(sample_scenes()[0].path)
SOURCES = [Path(package.__path__[0]) for package in (analyses, hooked_vit)]


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def text_of(expression: ast.expr) -> str:
    """The text of a string in the source, with x for each value in it."""
    if isinstance(expression, ast.Constant):
        return str(expression.value)
    if isinstance(expression, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "1" for part in expression.values)
    return " ".join(text_of(child) for child in ast.iter_child_nodes(expression) if isinstance(child, ast.expr))


def messages(path: Path) -> list[str]:
    raised = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Raise)]
    calls = [node.exc for node in raised if isinstance(node.exc, ast.Call)]
    return [" ".join(text_of(argument) for argument in call.args) for call in calls]


# what commands call with the user's own input
CALLED = ["analyses/data/*.py", "analyses/sweep/*.py", "analyses/pages/**/*.py", "hooked_vit/loading.py",
          "hooked_vit/weight_files.py", "hooked_vit/class_space.py", "hooked_vit/preprocessing.py"]  # fmt: skip
# of Python alone, or for another way of calling the same function
NOT_FROM_COMMANDS = [
    "pass `mask > 0.5`", "pass `model.token_layout.grid`", "pretrained=", "1=: weights are never changed", "weights=:",
    "`model.class_index(name)` gives", "run_with_gradients", "got n=", "expected classes='sorted' or a list",
]  # fmt: skip


@pytest.mark.parametrize("pattern", CALLED)
def test_no_message_that_a_command_can_show_has_pythons_keywords(pattern: str) -> None:
    for path in SOURCES[0].parent.glob(pattern):
        for message in messages(path):
            shown = for_the_command_line(message)
            keywords = re.findall(r"(?<![-\w?&])[a-z_]+=(?!=)\S+|`(?:model|timm|HookedViT)\.[^`]*\(|help\(", shown)
            keywords = [word for word in keywords if not re.match("objects=|classes=|download=|masks=", word)]
            assert not keywords or any(text in message for text in NOT_FROM_COMMANDS), f"{path.name}: {shown}"


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in SPELLINGS])
def test_each_spelling_is_for_a_message_that_exists(pattern: str) -> None:
    sources = [path for root in SOURCES for path in root.rglob("*.py") if path.name != "errors.py"]
    joined = (re.sub(r'"\s*\n\s*f?"', "", path.read_text("utf-8")) for path in sources)
    assert any(re.search(pattern.replace(r"(\d+)", r"\S+"), text) for text in joined)


@pytest.mark.parametrize("command", ["lens", "explore", "explain", "patch", "values", "sweep"])
def test_all_commands_refuse_a_model_without_classes_alike(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {
        "patch": [SCENE, SCENE],
        "values": ["--layer", "0", "--neuron", "1"],
        "sweep": ["--data", "emoji-scenes:2", "--out", "out"],
    }
    result = run(command, *arguments.get(command, [SCENE]), "--model", "vit_small_patch16_224.dino", "--random-weights")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: this model has no classes (n_classes is 0): add some with --class-embeddings FILE; "
        "`hooked-vit prototypes DIR --model NAME --out FILE` makes them from a folder of pictures for each class\n"
    )
    assert not list(tmp_path.iterdir())


def test_options_for_weight_files_need_one() -> None:
    result = run("lens", SCENE, "--weights-key", "teacher")
    assert result.exit_code == 2
    assert result.stderr == "error: --weights-key, --prefix and --ignore-keys are for --weights FILE\n"


def test_the_options_for_weight_files_reach_the_loader(tmp_path: Path) -> None:
    module = timm.create_model("test_vit", num_classes=5)
    weights = {f"vit.{name}": weight for name, weight in module.state_dict().items()}
    torch.save({"teacher": {**weights, "vit.extra": torch.ones(1)}, "student": weights}, tmp_path / "two.pt")
    arguments = ("values", "--layer", "0", "--neuron", "1", "--model", "test_vit", "--weights", tmp_path / "two.pt")
    assert "choose one with --weights-key='teacher'" in run(*arguments, "--out", tmp_path).stderr
    arguments = (*arguments, "--weights-key", "teacher", "--out", tmp_path)
    assert "list them in --ignore-keys to ignore them" in run(*arguments, "--prefix", "vit.").stderr
    result = run(*arguments, "--prefix", "vit.", "--ignore-keys", "*extra")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "memory_limit=2000000 bytes, and one patched image needs about 12345678: raise it",
            "--memory-limit is 2 MB, and one patched picture needs about 12.3: raise it",
        ),
        (
            "no image is classified correctly, so samples='correct' leaves out all of them: use samples='all'",
            "no image is classified correctly, so faithfulness counts none",
        ),
        ("start over with resume=False, which deletes", "start over with --no-resume, which deletes"),
        (
            "use `model.with_two_classes()`, the same model with the logits",
            "pass --two-classes, for the same model with the",
        ),
    ],
)
def test_advice_is_translated(message: str, shown: str) -> None:
    assert shown in for_the_command_line(message)


def test_a_memory_limit_that_is_too_small_is_given_in_megabytes(tmp_path: Path) -> None:
    result = run(
        "patch", SCENE, SCENE, "--class", "dog", "--against", "cat", "--memory-limit", "0.001", "--out", tmp_path
    )
    assert result.exit_code == 1
    assert re.search(r"--memory-limit is 0\.001 MB, and one patched picture needs about [\d.]+: raise", result.stderr)


def test_advice_for_folders_is_a_spelling_of_the_data(tmp_path: Path) -> None:
    for name in ("left", "right"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
    result = run("sweep", "--data", f"folder:{tmp_path / 'pictures'}", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert (
        "rename the folders, or pass folder:DIR?classes=sorted to number them in alphabetical order, or folder:DIR?"
        in (result.stderr)
    )

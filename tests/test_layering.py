"""Imports run one way: components never import the model, hooked_vit never imports analyses, plots import results."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODEL_FILES = {
    "hooked_vit.model",
    "hooked_vit.running",
    "hooked_vit.loading",
    "hooked_vit.parameters",
    "hooked_vit.cache",
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(folder: str) -> list[Path]:
    """The Python files under a folder."""
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("path", files("hooked_vit"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_model_knows_no_analysis(path: Path) -> None:
    assert not {one for one in imports(path) if one.split(".")[0] == "analyses"}


@pytest.mark.parametrize("path", files("hooked_vit/components"), ids=lambda path: path.name)
def test_components_do_not_know_the_model(path: Path) -> None:
    assert not imports(path) & (MODEL_FILES | {"hooked_vit", "hooked_vit.HookedViT"})


@pytest.mark.parametrize("path", files("analyses/plots"), ids=lambda path: path.name)
def test_plots_compute_nothing(path: Path) -> None:
    assert not imports(path) & (MODEL_FILES | {"hooked_vit.HookedViT"})
    assert not {one for one in imports(path) if one.split(".")[0] == "timm"}


@pytest.mark.parametrize("path", files("hooked_vit") + files("analyses"), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_says_its_responsibility_in_its_first_line(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert docstring
    assert path.read_text("utf-8").startswith('"""')


@pytest.mark.parametrize("path", files("analyses"), ids=lambda path: str(path.relative_to(ROOT)))
def test_plots_are_imported_by_what_wires_things_together_alone(path: Path) -> None:
    relative = path.relative_to(ROOT / "analyses")
    if relative.parts[0] in ("plots", "commands", "cli.py", "explorer.py", "report.py", "reporting"):
        return
    assert not {one for one in imports(path) if one.startswith("analyses.plots")}

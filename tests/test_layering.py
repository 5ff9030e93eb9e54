"""The layers of the packages: allowed imports, no circles, and unambiguous names."""

import ast
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import analyses

ROOT = Path(__file__).parents[1]
FLOORS = (
    {"projection", "attribution", "data", "statistics", "progress"},
    {"analysis", "linear_probe"},
    {
        "identifiability",
        "categorical_updates",
        "perturbation",
        "value_vectors",
        "feature_importance",
        "patching",
        "sweep",
        "prototypes",
        "segmentation",
    },
    {
        "memory_pairs",
        "faithfulness",
        "circuits",
        "outliers",
        "robustness",
        "tuned_lens",
        "dictionaries",
        "early_exit",
        "token_pruning",
    },
    {"plots"},
    {"catalogue"},
    {"reproduction"},
    {"pages"},
    {"commands"},
)  # fmt: skip
"""The rooms (modules and packages) of `analyses`, from the bottom up: a room imports only lower floors."""
MODEL_FILES = {
    "hooked_vit.model",
    "hooked_vit.running",
    "hooked_vit.loading",
    "hooked_vit.parameters",
    "hooked_vit.cache",
}


def module_name(path: Path) -> str:
    """Dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, known: Iterable[str] = ()) -> set[str]:
    """All modules that a file imports, anywhere in it; with `known`, names that are known modules count as modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = names & set(known)
            found |= modules if known and len(modules) == len(names) else {node.module} | (modules if known else names)
    return found


def files(folder: str) -> list[Path]:
    """The Python files in a folder."""
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """A circle of arrows, if there is one."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in sorted(arrows.get(node, ())):
            found = visit(target, [*path, node])
            if found:
                return found
        done.add(node)
        return []

    return next((found for node in sorted(arrows) if (found := visit(node, []))), [])


def arrows_of_files(package: str) -> dict[str, set[str]]:
    """Which file imports which; a package is its `__init__`."""
    modules = {module_name(path): path for path in files(package)}
    return {name: (imports(path, modules) & modules.keys()) - {name} for name, path in modules.items()}


def room(module: str) -> str:
    """The room of a module of `analyses`."""
    return module.split(".")[1]


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("package", ["hooked_vit", "analyses"])
def test_no_circle_of_files(package: str) -> None:
    arrows = arrows_of_files(package)
    # a package's `__init__` is for its users; files within the package import each other directly
    faces = {name for name in arrows if (ROOT / name.replace(".", "/") / "__init__.py").is_file()}
    inside = {name: {target for target in targets if not (target in faces and name.startswith(f"{target}."))}
              for name, targets in arrows.items()}  # fmt: skip
    assert circle(inside) == []


@pytest.mark.parametrize("package", ["hooked_vit", "analyses"])
def test_no_circle_of_folders(package: str) -> None:
    def folder(module: str) -> str:
        path = ROOT / module.replace(".", "/")
        return module if path.is_dir() else module.rpartition(".")[0]

    arrows: dict[str, set[str]] = {}
    for name, targets in arrows_of_files(package).items():
        if folder(name) != package and name != package:  # files next to folders are rooms of their own
            # a folder inside another is part of it, seen from there
            arrows.setdefault(folder(name), set()).update(
                folder(target) for target in targets
                if folder(target) not in (package, folder(name)) and not folder(target).startswith(f"{folder(name)}.")
                and not folder(name).startswith(f"{folder(target)}.")
            )  # fmt: skip
        elif name != package:
            arrows[name] = {folder(target) if folder(target) != package else target for target in targets}
    assert circle(arrows) == []


def test_every_room_has_its_floor() -> None:
    rooms = {room(module.name) for module in pkgutil.iter_modules(analyses.__path__, "analyses.")}
    assert rooms == set().union(*FLOORS)
    assert sum(map(len, FLOORS)) == len(rooms), "a room is on one floor"


def test_a_room_imports_lower_floors_only() -> None:
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    upwards = [
        f"{name} imports {target}"
        for name, targets in arrows_of_files("analyses").items()
        for target in targets
        if "analyses" not in (name, target) and room(name) != room(target) and floor[room(target)] >= floor[room(name)]
    ]
    assert upwards == []


@pytest.mark.parametrize("package", ["hooked_vit", "analyses"])
def test_every_test_folder_mirrors_a_source_folder(package: str) -> None:
    folders = {path.parent for path in files(f"tests/{package}")}
    missing = [str(folder.relative_to(ROOT)) for folder in folders
               if not (ROOT / folder.relative_to(ROOT / "tests")).is_dir()]  # fmt: skip
    assert missing == []


def test_no_module_has_the_name_of_an_export_of_its_package() -> None:
    for package in (name for name in arrows_of_files("analyses") if name != "analyses"):
        module = importlib.import_module(package)
        if hasattr(module, "__path__"):
            modules = {found.name for found in pkgutil.iter_modules(module.__path__)}
            assert not modules & set(getattr(module, "__all__", ())), package


@pytest.mark.parametrize("path", files("hooked_vit"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_model_imports_no_analysis(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] == "analyses"}


@pytest.mark.parametrize("path", files("hooked_vit/components"), ids=lambda path: path.name)
def test_components_do_not_import_the_model(path: Path) -> None:
    assert not imports(path) & (MODEL_FILES | {"hooked_vit", "hooked_vit.HookedViT"})


@pytest.mark.parametrize("path", files("analyses/plots"), ids=lambda path: path.name)
def test_plots_compute_nothing(path: Path) -> None:
    assert not imports(path) & (MODEL_FILES | {"hooked_vit.HookedViT"})
    assert not {name for name in imports(path) if name.split(".")[0] == "timm"}


@pytest.mark.parametrize("path", files("hooked_vit") + files("analyses"), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_begins_with_a_docstring(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert docstring
    assert path.read_text("utf-8").startswith('"""')

"""A page for every public module of hooked_vit and analyses, found in the tree, so that a new one appears by itself."""

import ast
import os
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PACKAGES = ("hooked_vit", "analyses")
_META = "---\nsearch:\n  boost: 0.3\n---\n\n"  # prose first, where both answer a search

INTRODUCTION = """\
# API reference

Made from the docstrings. Shapes stand in the signatures, in jaxtyping's notation:
`Float[Tensor, "batch token d_model"]` is a tensor of floating-point numbers with three axes. `*axes` stands for any
number of axes, and axes of one name have one length within a signature. The examples run as tests.

`hooked_vit` is the model; `analyses` asks questions with it, one file a question. Start with
[`hooked_vit.model`](hooked_vit/model.md), [`analyses.projection`](analyses/projection.md) and
[`analyses.sweep.run`](analyses/sweep.md).
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, and put them into the navigation in the place of `reference/`."""
    tree: list[Any] = ["reference/index.md"]
    files.append(File.generated(config, "reference/index.md", content=_index()))
    for package in PACKAGES:
        tree.append({package: _add_package(ROOT / package, files, config)})
    for entry in config.nav:
        if "Reference" in entry:
            at = [{"API": tree} if one == "reference/" else one for one in entry["Reference"]]
            entry["Reference"] = at
    return files


def modules(folder: Path) -> list[Path]:
    """Public modules and packages right in a package."""
    inside = (one for one in folder.iterdir() if one.suffix == ".py" or (one / "__init__.py").is_file())
    return sorted((one for one in inside if not one.name.startswith("_")), key=lambda one: one.stem)


def _add_package(folder: Path, files: Any, config: Any) -> list[Any]:
    """Pages of a package and what is in it; the part of the navigation that leads to them."""
    where = folder.relative_to(ROOT)
    rows = [f"| [`{one.stem}`]({_link(one)}) | {summary(one)} |" for one in modules(folder)]
    name = ".".join(where.parts)
    content = "\n".join([f"# {name}", "", f"{summary(folder)}", "", "| module | |", "|---|---|", *rows, ""])
    files.append(File.generated(config, f"reference/{where}/index.md", content=content))
    tree: list[Any] = [f"reference/{where}/index.md"]
    for one in modules(folder):
        if one.is_dir():
            tree.append({one.name: _add_package(one, files, config)})
            continue
        module = ".".join(one.relative_to(ROOT).with_suffix("").parts)
        page = f"reference/{one.relative_to(ROOT).with_suffix('.md')}"
        content = f"{_META}# {module}\n\n::: {module}\n\n{_exported(one)}"
        files.append(File.generated(config, page, content=content))
        tree.append({one.stem: page})
    return tree


def summary(module: Path) -> str:
    """The first line of a module's docstring."""
    source = (module / "__init__.py" if module.is_dir() else module).read_text("utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]


def _exported(module: Path) -> str:
    """A line with links to what a module exports and another defines, which has a page of its own."""
    tree = ast.parse(module.read_text("utf-8"))
    origins = {
        one.asname or one.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES
        for one in node.names
    }
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    listed = [ast.literal_eval(one.value) for one in assigned if ast.unparse(one.targets[0]) == "__all__"]
    links = [f"[`{name}`]({_page_of(origins[name], module)})" for names in listed for name in names if name in origins]
    return f"Also exported here: {', '.join(links)}.\n" if links else ""


def _page_of(module: str, seen_from: Path) -> str:
    """The page of a module, from that of another."""
    path = ROOT / module.replace(".", "/")
    return os.path.relpath(path / "index.md" if path.is_dir() else path.with_suffix(".md"), seen_from.parent)


def _link(module: Path) -> str:
    return f"{module.name}/index.md" if module.is_dir() else f"{module.stem}.md"


def _index() -> str:
    rows = [f"| [`{package}`]({package}/index.md) | {summary(ROOT / package)} |" for package in PACKAGES]
    return "\n".join([INTRODUCTION, "| package | |", "|---|---|", *rows, ""])

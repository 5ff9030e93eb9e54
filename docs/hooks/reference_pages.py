"""Reference pages for every public module of hooked_vit and analyses, found in the tree, so new modules need no entry.

A package's page lists the names to import from it, each linked to its definition, and its modules. A module's page is
written by mkdocstrings.
"""

import ast
import os
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PACKAGES = ("hooked_vit", "analyses")
_META = "---\nsearch:\n  boost: 0.3\n---\n\n"  # where prose and reference both match a search, prose comes first

INTRODUCTION = """\
# API reference

Generated from the docstrings. Signatures give shapes in jaxtyping's notation:
`Float[Tensor, "batch token d_model"]` is a floating-point tensor with three axes. `*axes` means any number of axes;
within a signature, axes of the same name have the same length. The examples run as tests.

`hooked_vit` is the model; `analyses` asks questions with it, one package or module per question. Import from the
package (`from analyses.patching import activation_patching`): its page lists the names to import and where each is
defined. Start with [`hooked_vit.model`](hooked_vit/model.md), [`analyses.projection`](analyses/projection.md) and
[`analyses.sweep`](analyses/sweep/index.md).
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, and replace the navigation's entry `reference/` by them."""
    tree: list[Any] = ["reference/index.md"]
    files.append(File.generated(config, "reference/index.md", content=_index()))
    for package in PACKAGES:
        tree.append({package: _add_package(ROOT / package, files, config)})
    for entry in config.nav:
        if "Reference" in entry:
            entry["Reference"] = [{"API": tree} if page == "reference/" else page for page in entry["Reference"]]
    return files


def modules(folder: Path) -> list[Path]:
    """Public modules and packages directly in a package."""
    found = (path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())
    return sorted((path for path in found if not path.name.startswith("_")), key=lambda path: path.stem)


def summary(module: Path) -> str:
    """The first line of a module's docstring."""
    return _first_line(ast.get_docstring(_parsed(module)))


def package_page(folder: Path) -> str:
    """The page of a package: its exported names with links to their definitions, then its modules."""
    parts = [f"# {_dotted(folder)}", summary(folder)]
    exported = exports(folder)
    if exported:
        rows = [_name_row(name, module, folder / "__init__.py") for name, module in exported.items()]
        parts += [f"## Import from `{_dotted(folder)}`", "\n".join(["| name | | defined in |", "|---|---|---|", *rows])]
    rows = [f"| [`{path.stem}`]({_link(path)}) | {summary(path)} |" for path in modules(folder)]
    if rows:
        parts += ["## Modules", "\n".join(["| module | |", "|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def exports(module: Path) -> dict[str, str]:
    """Names in `__all__` that another module of the two packages defines, with the dotted name of that module."""
    tree = _parsed(module)
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    listed = [ast.literal_eval(node.value) for node in assigned if ast.unparse(node.targets[0]) == "__all__"]
    imported = _imported(tree)
    return {name: _defining_module(name, imported[name]) for names in listed for name in names if name in imported}


def _add_package(folder: Path, files: Any, config: Any) -> list[Any]:
    """Add the pages of a package and of everything in it; return their part of the navigation."""
    where = folder.relative_to(ROOT)
    files.append(File.generated(config, f"reference/{where}/index.md", content=package_page(folder)))
    tree: list[Any] = [f"reference/{where}/index.md"]
    for path in modules(folder):
        if path.is_dir():
            tree.append({path.name: _add_package(path, files, config)})
            continue
        page = f"reference/{path.relative_to(ROOT).with_suffix('.md')}"
        content = f"{_META}# {_dotted(path)}\n\n::: {_dotted(path)}\n\n{_also_exported(path)}"
        files.append(File.generated(config, page, content=content))
        tree.append({path.stem: page})
    return tree


def _also_exported(module: Path) -> str:
    """One line with links to the names that a module exports and another module defines."""
    links = [f"[`{name}`]({_page_of(origin, module)})" for name, origin in exports(module).items()]
    return f"Also exported here: {', '.join(links)}.\n" if links else ""


def _name_row(name: str, module: str, seen_from: Path) -> str:
    """A table row for an exported name; a name without a docstring has no entry to link to, so its page is linked."""
    docstring = _docstring_of(name, _parsed(_path(module)))
    page = _page_of(module, seen_from)
    link = f"[`{name}`][{module}.{name}]" if docstring else f"[`{name}`]({page})"
    return f"| {link} | {docstring} | [`{module}`]({page}) |"


def _docstring_of(name: str, tree: ast.Module) -> str:
    """First line of the docstring of a function, a class or a module-level variable; empty if it has none."""
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return _first_line(ast.get_docstring(node))
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if name in (ast.unparse(target) for target in targets if target is not None):
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            return _first_line(str(following.value.value)) if is_text else ""
    return ""


def _defining_module(name: str, module: str) -> str:
    """Follow re-exports from a module to the one that defines the name."""
    imported = _imported(_parsed(_path(module)))
    return _defining_module(name, imported[name]) if name in imported else module


def _imported(tree: ast.Module) -> dict[str, str]:
    """Names that a module imports from the two packages, with the modules it imports them from."""
    return {
        alias.asname or alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES
        for alias in node.names
    }


def _parsed(module: Path) -> ast.Module:
    return ast.parse((module / "__init__.py" if module.is_dir() else module).read_text("utf-8"))


def _first_line(docstring: str | None) -> str:
    return (docstring or "").split("\n")[0]


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _path(module: str) -> Path:
    folder = ROOT / module.replace(".", "/")
    return folder if folder.is_dir() else folder.with_suffix(".py")


def _page_of(module: str, seen_from: Path) -> str:
    """The page of a module, as a relative link from another module's page."""
    path = _path(module)
    return os.path.relpath(path / "index.md" if path.is_dir() else path.with_suffix(".md"), seen_from.parent)


def _link(module: Path) -> str:
    return f"{module.name}/index.md" if module.is_dir() else f"{module.stem}.md"


def _index() -> str:
    rows = [f"| [`{package}`]({package}/index.md) | {summary(ROOT / package)} |" for package in PACKAGES]
    return "\n".join([INTRODUCTION, "| package | |", "|---|---|", *rows, ""])

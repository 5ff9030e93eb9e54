"""Bundling of JavaScript modules: an entry file and all that it imports become one module script."""

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["bundle"]

_IMPORT = re.compile(r'^import\s*\{(?P<names>[^{}]*)\}\s*from\s*"(?P<path>\.[^"\n]*)";[^\S\n]*$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|class|function|async function) (?P<name>[\w$]+))", re.MULTILINE)
_STATEMENT = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
_NAME = re.compile(r"(?P<name>[\w$]+)(?:\s+as\s+(?P<alias>[\w$]+))?")


@dataclass(frozen=True)
class _Module:
    """A module without its `import` and `export` statements.

    Attributes:
        imports: Line-by-line replacements of the import statements: the statement, the module it reads, and the
            names with the names that they get here.
        exports: Names.
        source: As written.
    """

    imports: Sequence[tuple[str, str, Mapping[str, str]]]
    exports: Sequence[str]
    source: str


def bundle(entry: str, read: Callable[[str], str]) -> str:
    """One module script from an entry module and the modules that it imports, directly or not.

    Each module runs once, after those that it imports. It becomes a function of its own, so names of two modules
    never collide; the entry module stays at the top level, where it may `await`. Statements begin a line and are of
    these forms: `import { a, b as c } from "./file.js";` and `export` before `const`, `function`, `async function` or
    `class`. What is exported is constant: a variable that changes belongs in an exported object.

    Args:
        entry: Path of the entry module.
        read: Returns the source of the module at a path.

    Raises:
        ValueError: If modules import each other in a circle, a name is imported that is not exported, or a statement
            has another form.

    >>> sources = {"main.js": 'import { two } from "./two.js";\\nprint(two);', "two.js": "export const two = 2;"}
    >>> print(bundle("main.js", sources.__getitem__))
    // two.js
    const $module0 = (() => {
    const two = 2;
    return { two };
    })();
    // main.js
    const { two } = $module0;
    print(two);
    """
    modules: dict[str, _Module] = {}
    _load(entry, read, modules, ())
    variables = {path: f"$module{number}" for number, path in enumerate(modules)}
    parts = []
    for path, module in modules.items():
        body = _EXPORT.sub("", module.source)
        for statement, imported, names in module.imports:
            pairs = ", ".join(name if name == alias else f"{name}: {alias}" for name, alias in names.items())
            body = body.replace(statement, f"const {{ {pairs} }} = {variables[imported]};", 1)
        body = body.strip("\n")
        if path != entry:
            body = f"const {variables[path]} = (() => {{\n{body}\nreturn {{ {', '.join(module.exports)} }};\n}})();"
        parts.append(f"// {path}\n{body}")
    return "\n".join(parts)


def _load(path: str, read: Callable[[str], str], modules: dict[str, _Module], importers: tuple[str, ...]) -> None:
    """Add a module to `modules`, after those that it imports."""
    if path in importers:
        circle = " -> ".join([*importers[importers.index(path) :], path])
        raise ValueError(f"JavaScript modules import each other in a circle: {circle}")
    if path in modules:
        return
    module = _parsed(path, read(path))
    for _, imported, names in module.imports:
        _load(imported, read, modules, (*importers, path))
        missing = [name for name in names if name not in modules[imported].exports]
        if missing:
            raise ValueError(f"'{path}' imports {', '.join(missing)} from '{imported}', which does not export it")
    modules[path] = module


def _parsed(path: str, source: str) -> _Module:
    imports = []
    for match in _IMPORT.finditer(source):
        imported = posixpath.normpath(posixpath.join(posixpath.dirname(path), match["path"]))
        imports.append((match[0], imported, _names(path, match)))
    exports = [match["name"] for match in _EXPORT.finditer(source)]
    for match in _STATEMENT.finditer(_EXPORT.sub("", _IMPORT.sub("", source))):
        raise ValueError(
            f"'{path}' has a statement that cannot be bundled: '{match[0]}'; write "
            'import { a, b as c } from "./file.js"; or export before const, function, async function or class'
        )
    return _Module(imports, exports, source)


def _names(path: str, statement: re.Match[str]) -> dict[str, str]:
    """The imported names, with the names that they get."""
    names = {}
    for text in filter(None, (part.strip() for part in statement["names"].split(","))):
        match = _NAME.fullmatch(text)
        if match is None:
            raise ValueError(f"'{path}' imports '{text}', which is not a name")
        names[match["name"]] = match["alias"] or match["name"]
    return names

"""For mkdocstrings: doctest examples as code, shapes as the source writes them, each object on a single page."""

import dataclasses
from typing import Any

import griffe
import jaxtyping


class ReadableDocstrings(griffe.Extension):
    """Fence the examples, which Markdown would render as quotations, and quote the shapes."""

    def on_package(self, *, pkg: Any, **_: Any) -> None:
        """Called by griffe for each package it has read: document every name only where it is defined."""
        pending = [pkg]
        while pending:
            module = pending.pop()
            pending += [inner for inner in module.modules.values() if not inner.is_alias]
            if module.exports is not None:
                module.exports = [name for name in module.exports if not module.members[str(name)].is_alias]

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called by griffe for each object it has read."""
        if obj.is_alias:
            return
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
        if obj.is_attribute:
            obj.annotation = quoted(obj.annotation)
        if obj.is_function:
            obj.returns = quoted(obj.returns)
            for parameter in obj.parameters:
                parameter.annotation = quoted(parameter.annotation)


def fenced(docstring: str) -> str:
    r"""Put fences around each run of lines from a prompt to the next empty line.

    >>> fenced("It adds.\n\n>>> 1 + 1\n2")
    'It adds.\n\n```pycon\n>>> 1 + 1\n2\n```'
    """
    lines, inside = [], False
    for line in [*docstring.split("\n"), ""]:
        if not inside and line.startswith(">>> "):
            lines.append("```pycon")
            inside = True
        elif inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line)
    return "\n".join(lines[:-1])


def quoted(annotation: Any) -> Any:
    """The annotation with every shape in double quotes; griffe reads a shape of one word as the name of a type."""
    if isinstance(annotation, list | tuple):
        return type(annotation)(quoted(part) for part in annotation)
    if not isinstance(annotation, griffe.Expr):
        return annotation
    if isinstance(annotation, griffe.ExprSubscript) and hasattr(jaxtyping, str(annotation.left)):
        shape = getattr(annotation.slice, "elements", None)
        if shape is not None and len(shape) == 2:
            shape[1] = '"' + str(shape[1]).strip("'\"") + '"'
        return annotation
    for field in dataclasses.fields(annotation):
        if field.name != "parent":
            setattr(annotation, field.name, quoted(getattr(annotation, field.name)))
    return annotation

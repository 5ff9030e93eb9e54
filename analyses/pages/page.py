"""One self-contained HTML file from a template: its values are escaped, and it sends no request."""

import base64
import hashlib
import html
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from PIL.Image import Image

from analyses.pages.modules import bundle

__all__ = ["notebook_frame", "picture_url", "render_page", "write_page"]

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def render_page(
    template: str,
    *,
    styles: Sequence[str] = (),
    script: str | None = None,
    data: Mapping[str, Any] | None = None,
    **values: Any,
) -> str:
    """A page from a template of `analyses/pages`, with everything that it needs inside it.

    Every value is escaped for its context: markup in a class or file name shows as text. The page's content security
    policy allows its own script only, by its hash, and no request.

    Args:
        template: A file of `analyses/pages`, in Jinja's language. It extends `page.html`.
        styles: CSS files of `analyses/pages`, in order, after `page.css`, the colours and type of all pages.
        script: The entry module, a JavaScript file of `analyses/pages`. It is bundled with the modules that it imports
            and runs after the body.
        data: What the script reads, as JSON: `JSON.parse(document.getElementById("data").textContent)`.
        **values: The values that the template shows, `title` among them.

    Raises:
        TypeError: If `data` holds something that JSON cannot represent.
        ValueError: If `data` holds a number that is not finite, or the script cannot be bundled.
        jinja2.UndefinedError: If the template shows a value that is not given.

    >>> page = render_page("page.html", title="<b>")
    >>> "<title>&lt;b&gt;</title>" in page, "default-src 'none'" in page
    (True, True)
    """
    code = "" if script is None else bundle(script, _source)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            style="\n".join(_source(name) for name in ("page.css", *styles)),
            script=code,
            script_source=f"'sha256-{digest}'" if code else "'none'",
            data=None if data is None else _json(data),
            **values,
        )
    )


def picture_url(picture: Image | bytes, kind: str = "png", **options: Any) -> str:
    """A picture as a `data:` address, which an `<img>` shows without a request.

    Args:
        picture: A PIL image, or the content of a file of this kind.
        kind: `png`, `jpeg`, `webp`, or `svg+xml` for bytes.
        **options: For PIL's `save`, such as `quality`.

    >>> import PIL.Image
    >>> picture_url(PIL.Image.new("RGB", (1, 1)))[:22]
    'data:image/png;base64,'
    """
    if isinstance(picture, Image):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        picture = buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def notebook_frame(page: str, title: str, height: int) -> str:
    """A page within a notebook's cell: sandboxed, so that its script runs but cannot reach the notebook.

    Args:
        page: Its HTML.
        title: For screen readers.
        height: In CSS pixels.

    >>> notebook_frame("<b>", "Explorer", 820).endswith('srcdoc="&lt;b&gt;"></iframe>')
    True
    """
    return (
        f'<iframe title="{title}" sandbox="allow-scripts" style="width: 100%; height: {height}px; border: 0" '
        f'srcdoc="{html.escape(page)}"></iframe>'
    )


def write_page(page: str, path: str | Path) -> Path:
    """Write a page to a file, whole or not at all.

    Args:
        page: HTML.
        path: The file; missing folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    return files("analyses.pages").joinpath(name).read_text("utf-8")


def _json(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text

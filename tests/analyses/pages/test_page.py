"""A page is one file, sends no request, runs only its own script, and shows markup in names as text."""

import base64
import hashlib
import json
import re
from pathlib import Path

import jinja2
import PIL.Image
import pytest

from analyses.pages.page import picture_url, render_page, write_page

NASTY = "</script><img src=x onerror=alert(1)>&\u2028"


def test_markup_in_values_and_data_is_text() -> None:
    page = render_page("page.html", title=NASTY, data={"class": NASTY})
    assert "<img" not in page
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&amp;" in page
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert json.loads(data) == {"class": NASTY}
    assert page.count("</script>") == 1


def test_only_its_own_script_may_run() -> None:
    page = render_page("page.html", title="", script="explorer/main.js", styles=["explorer/explorer.css"])
    [script] = re.findall(r'<script type="module">(.*?)</script>', page, flags=re.DOTALL)
    assert "// explorer/main.js" in script
    assert "=> {" in script
    assert "&gt;" not in script
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert page.index("--ground:") < page.index(".choice label")
    assert "script-src 'none'" in render_page("page.html", title="")


@pytest.mark.parametrize(
    ("data", "error"), [({"x": float("nan")}, ValueError), ({"x": float("inf")}, ValueError), ({"x": {1}}, TypeError)]
)
def test_data_that_json_cannot_represent_is_an_error(data: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        render_page("page.html", title="", data=data)


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render_page("page.html")


def test_pictures_are_data_addresses() -> None:
    picture = PIL.Image.new("RGB", (3, 2), "red")
    kind, content = picture_url(picture).split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content).startswith(b"\x89PNG")
    assert picture_url(b"<svg/>", "svg+xml") == "data:image/svg+xml;base64,PHN2Zy8+"
    assert len(picture_url(picture, "jpeg", quality=1)) < len(picture_url(picture, "jpeg", quality=100))


def test_a_page_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    path = write_page("né", tmp_path / "deep" / "page.html")
    assert path.read_text("utf-8") == "né"
    with pytest.raises(UnicodeEncodeError):
        write_page("\ud800", path)
    assert path.read_text("utf-8") == "né"
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]

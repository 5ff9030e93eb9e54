"""The tests' browser notices what a page must not do: log errors, throw, or send requests."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import open_page, started_browser, the_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """A browser for this file."""
    with started_browser() as started:
        yield started


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        ("<h1>still</h1><img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>", False),
        ("<script>throw new Error('thrown')</script>", True),
        ("<script>console.error('logged')</script>", True),
        ("<img src='http://127.0.0.1:9/x.png'>", True),
    ],
)
def test_a_visit_records_errors_and_requests(chromium: "Browser", tmp_path: Path, body: str, bad: bool) -> None:
    path = tmp_path / "page with a space.html"
    path.write_text(f"<!doctype html><title>t</title>{body}", "utf-8")
    with open_page(chromium, path, width=390, color_scheme="dark") as visit:
        assert visit.page.evaluate("[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]") == [390, True]
        if bad:
            with pytest.raises(AssertionError):
                visit.assert_clean()
        else:
            visit.assert_clean()


def test_without_a_browser_the_skip_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOOKED_VIT_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="install Debian's chromium"):
        the_browser()
    monkeypatch.setenv("HOOKED_VIT_CHROMIUM", "no-such-browser")
    with pytest.raises(pytest.skip.Exception, match="HOOKED_VIT_CHROMIUM=no-such-browser"):
        the_browser()

"""A real browser for tests of pages: headless Chromium, which records errors and requests of a page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["Visit", "open_page", "started_browser", "the_browser"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@dataclass
class Visit:
    """An open page, its errors and warnings, and its requests."""

    page: "Page"
    address: str
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def assert_clean(self) -> None:
        """No error in the console, no uncaught exception, and no request that leaves the page."""
        assert self.problems == []
        outside = [url for url in self.requests if not url.startswith((self.address, "data:", "blob:"))]
        assert outside == []


def the_browser() -> str:
    """Path of the browser: `HOOKED_VIT_CHROMIUM`, else the first of `NAMES` that is installed.

    Skips the test if there is none.
    """
    named = os.environ.get("HOOKED_VIT_CHROMIUM")
    found = [path for name in ([named] if named else NAMES) if (path := shutil.which(name))]
    if not found:
        wanted = f"HOOKED_VIT_CHROMIUM={named}, which does not run" if named else f"none of {', '.join(NAMES)}"
        pytest.skip(f"no browser ({wanted}): install Debian's chromium, or name one in HOOKED_VIT_CHROMIUM")
    return found[0]


@contextmanager
def started_browser() -> "Iterator[Browser]":
    """Headless Chromium; skips the test if the browser or Playwright is not installed."""
    path = the_browser()
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: "Browser", path: Path, width: int = 1366, height: int = 768, **context: Any) -> Iterator[Visit]:
    """Load an HTML file from disk in a new window.

    Args:
        browser: From `started_browser`.
        path: The file.
        width: Width of the window in CSS pixels; a phone has 390.
        height: Height of the window.
        **context: For Playwright's `new_context`: `color_scheme="dark"`, `reduced_motion="reduce"`, ….
    """
    opened = browser.new_context(viewport={"width": width, "height": height}, **context)
    page = opened.new_page()
    visit = Visit(page, path.resolve().as_uri())
    page.on("request", lambda request: visit.requests.append(request.url))
    page.on("pageerror", lambda error: visit.problems.append(f"uncaught: {error}"))
    page.on(
        "console",
        lambda message: visit.problems.append(message.text) if message.type in ("error", "warning") else None,
    )
    try:
        page.goto(visit.address)
        yield visit
    finally:
        opened.close()

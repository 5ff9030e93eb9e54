"""A real browser for tests of pages: headless Chromium, which notices complaints and requests of a page."""

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
    """A page that is open, what it complained of, and what it asked for besides itself and `data:` addresses."""

    page: "Page"
    address: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def assert_clean(self) -> None:
        """No error in the console, no uncaught exception, and no request that leaves the page."""
        assert self.complaints == []
        outside = [asked for asked in self.requests if not asked.startswith((self.address, "data:", "blob:"))]
        assert outside == []


def the_browser() -> str:
    """Path of the browser: what `HOOKED_VIT_CHROMIUM` names, else the first of `NAMES` that is installed.

    Skips the test where there is none.
    """
    named = os.environ.get("HOOKED_VIT_CHROMIUM")
    found = [path for name in ([named] if named else NAMES) if (path := shutil.which(name))]
    if not found:
        wanted = f"HOOKED_VIT_CHROMIUM={named}, which does not run" if named else f"none of {', '.join(NAMES)}"
        pytest.skip(f"no browser ({wanted}): install Debian's chromium, or name one in HOOKED_VIT_CHROMIUM")
    return found[0]


@contextmanager
def started_browser() -> "Iterator[Browser]":
    """Headless Chromium; skips the test where the browser or Playwright is not installed."""
    path = the_browser()
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: "Browser", path: Path, width: int = 1366, height: int = 768, **context: Any) -> Iterator[Visit]:
    """Load an HTML file from disk, in a window of its own.

    Args:
        browser: Of `started_browser`.
        path: The file.
        width: Of the window, in CSS pixels; 390 is a phone's.
        height: Of the window.
        **context: For Playwright's `new_context`: `color_scheme="dark"`, `reduced_motion="reduce"`, ….
    """
    opened = browser.new_context(viewport={"width": width, "height": height}, **context)
    page = opened.new_page()
    visit = Visit(page, path.resolve().as_uri())
    page.on("request", lambda request: visit.requests.append(request.url))
    page.on("pageerror", lambda error: visit.complaints.append(f"uncaught: {error}"))
    page.on(
        "console",
        lambda message: visit.complaints.append(message.text) if message.type in ("error", "warning") else None,
    )
    try:
        page.goto(visit.address)
        yield visit
    finally:
        opened.close()

"""A browser for each file of page tests; a test fails if a page logs an error or sends a request."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import Visit, open_page, started_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")  # not longer: while open, Playwright keeps an event loop running
def browser() -> "Iterator[Browser]":
    """Headless Chromium."""
    with started_browser() as started:
        yield started


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Callable[..., Visit]]:
    """Opens pages as `browser.open_page` does; after the test, every opened page must pass `assert_clean`."""
    with ExitStack() as windows:
        opened: list[Visit] = []

        def open_(path: Path, **options: Any) -> Visit:
            opened.append(windows.enter_context(open_page(browser, path, **options)))
            return opened[-1]

        yield open_
        for page in opened:
            page.assert_clean()

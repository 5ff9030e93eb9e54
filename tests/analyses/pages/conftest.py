"""A browser for each file of tests of pages; a test fails where a page complains, or asks somebody for something."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import Visit, open_page, started_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")  # no longer: Playwright leaves an event loop running as long as it is open
def browser() -> "Iterator[Browser]":
    """Headless Chromium."""
    with started_browser() as one:
        yield one


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Callable[..., Visit]]:
    """Opens a page as `browser.open_page` does, and holds every page opened to `assert_clean` after the test."""
    with ExitStack() as windows:
        opened: list[Visit] = []

        def open_(path: Path, **options: Any) -> Visit:
            opened.append(windows.enter_context(open_page(browser, path, **options)))
            return opened[-1]

        yield open_
        for one in opened:
            one.assert_clean()

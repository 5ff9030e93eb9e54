"""Printing a page to PDF with an installed browser."""

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from analyses.pages.page import write_page

__all__ = ["print_page"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_VARIABLE = "HOOKED_VIT_CHROMIUM"
_ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--no-pdf-header-footer")
_SECONDS = 120


def print_page(html: str, path: str | Path) -> Path:
    """Print a page to a PDF file with headless Chromium or Chrome: `HOOKED_VIT_CHROMIUM`, or one on the path.

    Args:
        html: The page.
        path: The PDF file; missing folders are created.

    Raises:
        ValueError: If there is no browser, or it fails.
    """
    browser, path = _browser(), Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        page, printed = write_page(html, Path(folder) / "page.html"), Path(folder) / "page.pdf"
        profile = f"--user-data-dir={folder}/profile"
        command = [browser, *_ARGUMENTS, profile, f"--print-to-pdf={printed}", page.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ValueError(f"'{browser}' did not print the page: {error}") from error
        if not printed.is_file():
            last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise ValueError(f"'{browser}' did not print the page: {last[0]}")
        shutil.copyfile(printed, path)
    return path


def _browser() -> str:
    chosen = os.environ.get(_VARIABLE)
    for name in [chosen] if chosen else _NAMES:
        if path := shutil.which(name):
            return path
    looked = f"{_VARIABLE}={chosen} cannot be run" if chosen else f"looked for {', '.join(_NAMES)}"
    raise ValueError(
        f"a PDF needs Chromium or Chrome, and none was found ({looked}): install one, name it in {_VARIABLE}, or open "
        "the HTML page in any browser and print it there"
    )

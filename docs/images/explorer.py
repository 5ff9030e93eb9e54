"""Draw docs/images/explorer.png, an explorer page in a browser: `make docs/images/explorer.png`.

    python docs/images/explorer.py photo.jpg --model vit_small_patch14_dinov2.lvd142m ...

Arguments are those of `hooked-vit explore`; by default, a picture and a model that the packages bring along. Needs
Playwright and Chromium, or a browser that HOOKED_VIT_CHROMIUM names.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import sync_playwright

from analyses.data import sample_scenes

TARGET = Path(__file__).with_suffix(".png")
WIDTH, HEIGHT, SCALE = 1400, 830, 1.25


def main(arguments: list[str]) -> None:
    """Make the page, and take its picture once all of it is drawn."""
    browser = os.environ.get("HOOKED_VIT_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "page.html"
        command = [sys.executable, "-c", "from analyses.commands.cli import main; main()", "explore"]
        subprocess.run([*command, *(arguments or [str(sample_scenes()[4].path)]), "--out", str(page)], check=True)
        window = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE
        )
        window.goto(page.as_uri())
        window.wait_for_selector("html[data-ready]")
        window.screenshot(path=str(TARGET))
    with Image.open(TARGET) as picture:
        picture.convert("RGB").save(TARGET, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The report in a real browser: no errors, working contents, names as text, and printable."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import open_page, started_browser, the_browser

from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.identifiability import Identifiability
from analyses.pages.report.build import Report, report
from analyses.statistics import Resampling
from analyses.sweep.run import sweep
from analyses.value_vectors.alignment import ClassValueAgreement
from hooked_vit import HookedViT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NASTY = "<img src=x onerror=document.title='broken'>"


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """A browser for this file."""
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a small sweep of a model with a nasty name."""
    folder = tmp_path_factory.mktemp("page")
    analyses = [Identifiability(resampling=Resampling(9)), ClassValueAgreement(resampling=Resampling(9))]
    sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(3, 1), analyses, out=folder)
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**record, "asked": {"model": NASTY, "data": NASTY}}))
    return report(folder)


@pytest.mark.parametrize(("width", "scheme"), [(1366, "light"), (1366, "dark"), (390, "light")])
def test_it_is_clean_and_fits(chromium: "Browser", page: Report, tmp_path: Path, width: int, scheme: str) -> None:
    with open_page(chromium, page.save(tmp_path / "report.html"), width, color_scheme=scheme) as visit:
        visit.assert_clean()
        assert visit.page.title() == NASTY
        assert NASTY in visit.page.inner_text("h1")
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width
        images = visit.page.eval_on_selector_all(
            "img", "all => all.map(image => [image.complete, image.naturalWidth > 100])"
        )
        assert images == [[True, True]] * 2
        card = visit.page.eval_on_selector(".card", "card => getComputedStyle(card).backgroundColor")
        assert card == "rgb(255, 255, 255)"
        ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def test_contents_and_tables(chromium: "Browser", page: Report, tmp_path: Path) -> None:
    with open_page(chromium, page.save(tmp_path / "report.html")) as visit:
        links = visit.page.query_selector_all("nav a")
        assert len(links) == 4
        for link in links:
            link.click()
            target = visit.page.evaluate("document.querySelector(':target h2').textContent")
            assert target == link.inner_text()
            top = visit.page.evaluate("document.querySelector(':target').getBoundingClientRect().top")
            assert -5 <= top < 768
        assert not visit.page.is_visible(".data")
        visit.page.click("summary >> nth=0")
        assert visit.page.inner_text(".data th >> nth=0") == "layer"
        visit.assert_clean()


def test_it_prints(page: Report, tmp_path: Path) -> None:
    the_browser()
    printed = page.save_pdf(tmp_path / "deep" / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(printed) > 10_000

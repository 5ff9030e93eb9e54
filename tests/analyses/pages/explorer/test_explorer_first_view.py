"""The first view of an explorer page: top classes in colours, a sentence made from the numbers, blocks that play."""

import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from browser import Visit, open_page
from conftest import make_timm
from explorer_reading import Reading, Truth, number
from PIL import Image

from analyses.data.emoji_scenes.sample_pictures import sample_scenes
from analyses.pages.explorer.build import explore
from analyses.projection import project
from hooked_vit import HookedViT

SCENE = sample_scenes()[4]  # a passenger ship
SHIP = "passenger ship"
BROKEN_OR_CUT_OFF = """elements => elements.filter(e => {
  const range = document.createRange();
  range.selectNodeContents(e);
  return range.getClientRects().length > 1 || (e.clientWidth && e.scrollWidth > e.clientWidth);
}).map(e => e.textContent)"""


@pytest.fixture(scope="module")
def truth() -> Truth:
    """The run that the page shows."""
    return Truth.of(HookedViT.from_pretrained("emoji-vit"), SCENE.path)


@pytest.fixture(scope="module")
def path(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page."""
    return explore(truth.model, SCENE.path).save(tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture
def read(path: Path, visit: Callable[..., Visit]) -> Reading:
    """The open page."""
    return Reading.when_ready(visit(path).page)


def legend(read: Reading) -> dict[str, tuple[int, tuple[float, ...]]]:
    """For each class of the legend: the number of its patches, and its colour."""
    entries = {}
    for entry in read.page.locator("#classes button").all():
        name, count = entry.locator("span").inner_text(), entry.locator("small").inner_text()
        colour = entry.locator("i").evaluate("i => getComputedStyle(i).backgroundColor")
        entries[name] = int(count), tuple(float(part) for part in re.findall(r"[\d.]+", colour))
    return entries


def test_patches_have_the_colour_of_their_top_class(read: Reading, truth: Truth) -> None:
    assert read.page.locator("#view input:checked").input_value() == "top"
    for block, stream in ((7, "resid_post"), (2, "resid_post"), (5, "mlp_out")):
        read.to_block(block)
        read.page.locator(f"#stream label:has-text('{stream}')").click()
        tops = project(truth.model, truth.cache, stream, k=1).top_classes[block, 0, 1:, 0].tolist()  # pyright: ignore[reportArgumentType]
        names = [truth.name(label) for label in tops]
        counts, shown = Counter(names), legend(read)
        assert SHIP in shown
        assert {name: count for name, (count, _) in shown.items()} == {name: counts[name] for name in shown}
        assert len({colour for _, colour in shown.values()}) == len(shown)
        for patch, name in enumerate(names):
            *colour, strength = read.colour(patch)
            assert strength == pytest.approx(0.78, abs=0.003)
            if name in shown:
                assert tuple(colour) == shown[name][1]
            else:
                assert tuple(colour) not in [of for _, of in shown.values()]
        further = sum(int(n) for n in re.findall(r": (\d+)\spatch", read.text("#classes")))
        assert further == 64 - sum(count for count, _ in shown.values())
    read.patch(9).hover()
    assert f"top class: {names[9]}" in read.text("#readout")


def test_pointing_at_the_legend_lights_a_class_and_choosing_it_selects_it(read: Reading, truth: Truth) -> None:
    tops = project(truth.model, truth.cache, "resid_post", k=1).top_classes[-1, 0, 1:, 0].tolist()
    entry = read.page.locator("#classes button", has_text="whale")
    entry.hover()
    lit = [patch for patch in range(64) if read.colour(patch)[3] > 0]
    assert lit == [patch for patch, label in enumerate(tops) if truth.name(label) == "whale"]
    entry.click()
    assert read.chosen().startswith("whale")
    read.page.locator("h1").hover()
    assert all(read.colour(patch)[3] > 0 for patch in range(64))


def test_the_sentence_is_made_from_the_numbers(read: Reading, truth: Truth) -> None:
    for name in (SHIP, "bus"):
        read.choose(name)
        label = truth.model.class_index(name)
        rank = truth.projected(label).rank
        assert rank is not None
        at_cls, on_top = rank[:, 0, 0].tolist(), (rank[:, 0, 1:] == 0).sum(-1).tolist()
        says = read.text("#takeaway")
        assert says.startswith(name)
        if at_cls[-1] == 0:
            first = max(block for block, one in enumerate(at_cls) if one > 0) + 1
            assert f"is the top class at CLS from block {first} on" in says
        else:
            assert f"is not the top class at CLS after the last block (rank {at_cls[-1]})" in says
        if max(on_top):
            assert f"up to {max(on_top)} of 64 patches (block {on_top.index(max(on_top))})" in says
        else:
            assert "nor of any patch after any block" in says
        parts = truth.attribution(label)
        attention, mlp = (parts.head.sum() + parts.attn_bias.sum()).item(), parts.mlp.sum().item()
        assert attention > mlp
        assert read.value("attention carries it", "#takeaway") == pytest.approx(attention, abs=0.0051)
        assert read.value("of its logit of", "#takeaway") == pytest.approx(truth.logits[label].item(), abs=0.0051)
        assert read.value("MLPs", "#takeaway") == pytest.approx(mlp, abs=0.0051)
        best = parts.head[:, 0].flatten().topk(3)
        heads = read.page.locator("#takeaway button").all_inner_texts()
        assert heads == [f"{index // 4}.{index % 4}" for index in best.indices.tolist()]
        shown = [number(text) for text in read.page.locator("#takeaway .number").all_inner_texts()[-3:]]
        assert shown == pytest.approx(best.values.tolist(), abs=0.0051)


def test_its_heads_lead_to_their_importance(read: Reading) -> None:
    read.page.locator("#takeaway button").first.click()
    block, head = read.page.locator("#takeaway button").first.inner_text().split(".")
    assert read.page.locator("#view input:checked").input_value() == "importance"
    assert read.page.locator("#head").input_value() == head
    assert f"block {block} ·" in read.text("#readout")
    assert read.page.evaluate("document.activeElement.textContent") == f"{block}.{head}"


def test_the_legend_by_keyboard(read: Reading) -> None:
    read.page.locator("#classes button", has_text="doughnut").focus()
    read.page.keyboard.press("Tab")
    name = read.page.evaluate("document.activeElement.querySelector('span').textContent")
    lit = sum(read.colour(patch)[3] > 0 for patch in range(64))
    assert lit == legend(read)[name][0]
    read.page.keyboard.press("Enter")
    assert read.chosen().startswith(name)
    assert read.page.evaluate("document.activeElement.querySelector('span').textContent") == name


def test_blocks_play_to_the_last_one(path: Path, visit: Callable[..., Visit]) -> None:
    page = visit(path).page
    page.clock.install(time=datetime(2030, 1, 1))
    page.reload()
    page.wait_for_selector("html[data-drawn]")
    page.clock.pause_at(datetime(2030, 1, 2))  # from here on, time passes in the test only
    read, seen = Reading(page), []
    page.locator("#play").click()
    assert page.locator("#play").get_attribute("aria-label") == "Pause"
    for _ in range(8):
        seen.append(read.text("#block-number"))
        page.clock.run_for(900)
    assert seen == [f"{block} / 7" for block in range(8)]
    assert page.locator("#play").get_attribute("aria-label") == "Play through the blocks"
    page.clock.run_for(5000)
    assert read.text("#block-number") == "7 / 7"
    page.keyboard.press("p")
    page.clock.run_for(900)
    page.keyboard.press("[")  # a block chosen by hand stops it
    page.clock.run_for(5000)
    assert read.text("#block-number") == "0 / 7"


def test_with_reduced_motion_blocks_are_stepped_through(path: Path, visit: Callable[..., Visit]) -> None:
    read = Reading.when_ready(visit(path, reduced_motion="reduce").page)
    assert read.page.locator("#play").get_attribute("aria-label") == "Next block"
    for block in (0, 1, 2):
        read.page.keyboard.press("p") if block == 1 else read.page.locator("#play").click()
        read.page.locator("#block-number", has_text=f"{block} / 7").wait_for()
    read.page.wait_for_timeout(1100)  # longer than a playing block lasts
    assert read.text("#block-number") == "2 / 7"


def test_nothing_is_seen_before_everything_is_drawn(path: Path, browser: object, tmp_path: Path) -> None:
    held_back = tmp_path / "page.html"
    html = path.read_text("utf-8")
    # the page's script, kept from running: its hash no longer fits
    held_back.write_text(html.replace("await loadNumbers()", "await  loadNumbers()"), "utf-8")
    with open_page(browser, held_back) as visit:  # pyright: ignore[reportArgumentType]
        visible = "e => getComputedStyle(e).visibility"
        for hidden in ("main", "#play", "#picture-0", "#takeaway", "footer", ".thumb"):
            assert visit.page.locator(hidden).first.evaluate(visible) == "hidden", hidden
        assert visit.page.locator("#loading").is_visible()
        assert visit.page.locator("h1").inner_text() == SCENE.path.name
    with open_page(browser, path) as visit:  # pyright: ignore[reportArgumentType]
        Reading.when_ready(visit.page)
        assert visit.page.locator("main").evaluate(visible) == "visible"
        assert not visit.page.locator("#loading").is_visible()


def test_numbers_are_never_broken(path: Path, visit: Callable[..., Visit]) -> None:
    for width in (320, 390, 1366):
        read = Reading.when_ready(visit(path, width=width, height=800).page)
        for view in ("top", "logit", "importance"):
            read.view(view)
            texts = read.page.locator(
                ".number, output, #tops small, .bar span, .head-list b, #memories td:nth-child(2)"
            )
            assert texts.count() > 30
            assert texts.evaluate_all(BROKEN_OR_CUT_OFF) == []


def test_a_pooling_models_sentence_speaks_of_what_its_head_reads(visit: Callable[..., Visit], tmp_path: Path) -> None:
    model = HookedViT.from_timm(make_timm("gap_registers_layerscale"))
    page = explore(model, Image.new("RGB", (24, 32), (200, 30, 90))).save(tmp_path / "page.html")
    assert "in the mean of the patches" in Reading.when_ready(visit(page).page).text("#takeaway")

"""Selections by mouse or keyboard on an explorer page show the numbers that the analyses compute."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from browser import Visit
from explorer_reading import Reading, Truth, number

from analyses.data.emoji_scenes.sample_pictures import sample_scenes
from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.pages.explorer.build import explore
from analyses.projection import Stream
from analyses.value_vectors.vectors import top_classes, value_logits
from hooked_vit import HookedViT

SCENE = sample_scenes()[0]  # an eggplant and a crocodile
STREAMS: tuple[Stream, ...] = ("resid_post", "attn_out", "mlp_out")


@pytest.fixture(scope="module")
def truth() -> Truth:
    """The run that the page shows."""
    return Truth.of(HookedViT.from_pretrained("emoji-vit"), SCENE.path)


@pytest.fixture(scope="module")
def path(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a scene with a crocodile."""
    return explore(truth.model, SCENE.path, ["crocodile"]).save(tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture
def read(path: Path, visit: Callable[..., Visit]) -> Reading:
    """The open page."""
    return Reading.when_ready(visit(path).page)


def shows(read: Reading, truth: Truth, label: int, stream: Stream, block: int, token: int) -> None:
    """Check the line under the picture, and the table."""
    p = truth.projected(label, stream)
    assert p.rank is not None
    assert p.label_logit is not None
    rank, name = int(p.rank[block, 0, token]), truth.name(label)
    assert f"block {block} ·" in read.text("#readout")
    assert read.value(f"rank of {name}") == rank
    assert read.value("identifiability") == pytest.approx(1 - rank / 100, abs=5e-4)
    assert read.value("logit") == pytest.approx(p.label_logit[block, 0, token].item(), abs=0.0052)
    rows = read.tops()
    assert [row[:2] for row in rows] == [[f"{b}", f"{r}"] for b, r in enumerate(p.rank[:, 0, token].tolist())]
    for b, row in enumerate(rows):
        for place, cell in enumerate(row[2:]):
            top, logit = cell.split("\n")
            assert top == truth.name(int(p.top_classes[b, 0, token, place]))
            assert number(logit) == pytest.approx(p.top_logits[b, 0, token, place].item(), abs=0.0052)


def test_pointing_and_pinning(read: Reading, truth: Truth) -> None:
    crocodile = truth.model.class_index("crocodile")
    shows(read, truth, crocodile, "resid_post", 7, 0)
    read.patch(19).hover()
    assert read.text("#token-name") == "Row 2, column 3"
    shows(read, truth, crocodile, "resid_post", 7, 20)
    read.page.locator("h1").hover()
    assert read.text("#token-name") == "CLS"
    read.patch(19).click()
    read.page.locator("h1").hover()
    assert read.text("#token-name") == "Row 2, column 3"
    assert read.patch(19).get_attribute("aria-selected") == "true"
    read.page.locator("#prefix button").click()
    assert read.page.locator("#prefix button").get_attribute("aria-pressed") == "true"
    shows(read, truth, crocodile, "resid_post", 7, 0)


def test_block_stream_and_class_by_mouse(read: Reading, truth: Truth) -> None:
    box = read.page.locator("#block").bounding_box()
    assert box is not None
    read.page.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    shows(read, truth, truth.model.class_index("crocodile"), "resid_post", 0, 0)
    eggplant = truth.model.class_index("eggplant")
    read.choose("eggplant")
    read.to_block(4)
    for stream in STREAMS:
        read.page.locator("#stream label", has_text=stream).click()
        shows(read, truth, eggplant, stream, 4, 0)


def test_all_selections_by_keyboard(read: Reading, truth: Truth) -> None:
    keys, crocodile = read.page.keyboard, truth.model.class_index("crocodile")
    for _ in range(20):
        keys.press("Tab")
        if read.page.evaluate("document.activeElement.closest('#patches') !== null"):
            break
    assert read.text("#token-name") == "Row 0, column 0"
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp"):
        keys.press(key)
    shows(read, truth, crocodile, "resid_post", 7, 1 + 9)
    outline = read.page.evaluate("getComputedStyle(document.activeElement).boxShadow")
    assert "255, 159, 67" in outline  # a ring that no other cell has
    keys.press("[")
    keys.press("[")
    keys.press("s")
    shows(read, truth, crocodile, "attn_out", 5, 1 + 9)
    keys.press("Enter")
    assert read.page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    keys.press("End")
    assert read.text("#token-name") == "Row 1, column 7"
    keys.press("5")
    keys.press(".")
    read.page.locator("#readout", has_text="attention from Row 1, column 1").wait_for()
    pattern = truth.cache["pattern", 5][0, 0, 10]
    assert read.value("attention from Row 1, column 1") == pytest.approx(100 * pattern[1 + 15].item(), abs=0.5)
    keys.press("]")
    assert "block 6" in read.text("#readout")
    keys.press("c")
    assert read.page.evaluate("document.activeElement.closest('.picker').id") == "class"
    keys.press("ArrowDown")
    keys.press("Enter")
    predicted = [label for label in truth.logits.argsort(descending=True).tolist() if label != crocodile]
    assert read.chosen() == truth.model.class_names[predicted[0]]
    for key, view in zip("123456", ("top", "rank", "identifiability", "logit", "attention", "importance"), strict=True):
        read.page.locator("#block").focus()
        keys.press(key)
        assert read.page.locator("#view input:checked").input_value() == view
    keys.press("ArrowLeft")
    assert "5 / 7" in read.text("#block-number")


def test_colours_show_the_numbers(read: Reading, truth: Truth) -> None:
    p = truth.projected(truth.model.class_index("crocodile"))
    assert p.rank is not None
    viridis, rank = matplotlib.colormaps["viridis"], p.rank[-1, 0, 1:].double()
    for view, share in (("identifiability", 1 - rank / 100), ("rank", 1 - torch.log1p(rank) / np.log1p(99))):
        read.view(view)
        for patch in (0, 9, 27, 63):
            *shown, strength = read.colour(patch)
            right = 255 * np.array(viridis(share[patch].item())[:3])
            assert np.abs(np.array(shown) - right).max() < 15  # between the page's eleven colours
            assert strength == pytest.approx(0.78)
    read.page.locator("#strength").fill("0")
    assert read.colour(0)[3] == 0


def test_attention_of_a_head_and_their_mean(read: Reading, truth: Truth) -> None:
    read.patch(12).click()
    read.view("attention")
    for block, head in ((7, None), (7, 2), (3, 2), (3, 0)):
        read.to_block(block)
        read.page.locator("#head").select_option("all" if head is None else f"{head}")
        pattern = truth.cache["pattern", block][0, :, 13]
        row = pattern.mean(0) if head is None else pattern[head]
        for patch in (3, 12, 40):
            read.patch(patch).hover()
            read.page.locator("#readout", has_text=f"block {block} · attention from Row 1, column 4").wait_for()
            if row[1 + patch] >= 1e-4:
                error = 100 * row.max().item() / 255 + 0.05 * 100 * row[1 + patch].item()
                shown = read.value("attention from Row 1, column 4")
                assert shown == pytest.approx(100 * row[1 + patch].item(), abs=error)
        read.page.locator("#prefix button").hover()
        assert "CLS" in read.text("#readout")
    assert "share of attention from" in read.text("#view-means")


def test_importance_by_block_and_head(read: Reading, truth: Truth) -> None:
    expected = truth.importance(truth.model.class_index("crocodile"))
    read.view("importance")
    read.patch(30).hover()
    total = expected.sum((0, 1))
    assert read.value("importance") == pytest.approx(total[30].item(), abs=total.abs().max().item() / 50)
    orange = total.argmax().item()
    red, _, blue, _ = read.colour(int(orange))
    assert red > blue
    assert read.value("All blocks and heads", "#matrix-readout") == read.value("importance")
    cells = read.page.locator("#matrix .cell")
    assert cells.count() == 8 * 5
    cells.nth(5 * 5 + 3).click()  # block 5, head 3
    read.patch(30).hover()
    of_head = expected[5, 3]
    assert read.value("importance") == pytest.approx(of_head[30].item(), abs=of_head.abs().max().item() / 50)
    assert "block 5" in read.text("#readout")
    assert read.page.locator("#head").input_value() == "3"
    cells.nth(5 * 5 + 3).focus()
    read.page.keyboard.press("ArrowUp")
    over_patches = expected[4, 3].sum().item()
    read.page.locator("#prefix button").click()
    cells.nth(4 * 5 + 3).focus()
    read.page.keyboard.press("Enter")
    error = 64 * expected[4, 3].abs().max().item() / 127
    assert read.value("Block 4, head 3", "#matrix-readout") == pytest.approx(over_patches, abs=error)


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
def test_most_active_memories(read: Reading, truth: Truth, sublayer: str) -> None:
    read.page.locator(f"#sublayer input[value={sublayer}]").check(force=True)
    read.page.locator("#order input[value=fired]").check(force=True)
    read.to_block(6)
    read.patch(21).hover()
    crocodile = truth.model.class_index("crocodile")
    logits = value_logits(truth.model, 6, sublayer, layer_scale=True)[:, crocodile]  # pyright: ignore[reportArgumentType]
    fired = memory_coefficients(truth.model, truth.cache, 6, sublayer, "post")[0, 22].topk(5)  # pyright: ignore[reportArgumentType]
    rows = read.page.locator("#memories tbody tr").all()
    for row, memory, coefficient in zip(rows, fired.indices.tolist(), fired.values.tolist(), strict=True):
        name, adds, shown, classes = row.locator("td").all_inner_texts()
        assert number(adds) == pytest.approx(coefficient * logits[memory].item(), abs=0.0062)
        assert name == (f"neuron {memory}" if sublayer == "mlp" else f"head {memory // 32}, {memory % 32}")
        assert number(shown) == pytest.approx(coefficient, abs=0.0052)
        table = top_classes(truth.model, 6, [memory], sublayer, k=3)  # pyright: ignore[reportArgumentType]
        assert classes == ", ".join(name.split(",")[0] for name in table["class_name"])
    all_logits = value_logits(truth.model, 6, sublayer, layer_scale=True)  # pyright: ignore[reportArgumentType]
    coefficients = memory_coefficients(truth.model, truth.cache, 6, sublayer, "post")[0, 22]  # pyright: ignore[reportArgumentType]
    read.page.locator("#order input[value=adding]").check(force=True)
    for name in ("crocodile", "eggplant"):
        read.choose(name)
        read.patch(21).hover()
        adds = (coefficients * all_logits[:, truth.model.class_index(name)]).sort(descending=True).values.tolist()
        shown = [number(text) for text in read.page.locator("#memories tbody td:nth-child(2)").all_inner_texts()]
        assert shown == pytest.approx([*adds[:4], *adds[-2:]], abs=0.0062)


def test_bars_add_up_to_the_logit(read: Reading, truth: Truth) -> None:
    eggplant = truth.model.class_index("eggplant")
    read.choose("eggplant")
    parts = truth.attribution(eggplant)
    bars = read.page.locator("#parts .bar")
    values = [float(bar.get_attribute("data-value") or "nan") for bar in bars.all()]
    assert parts.pos_embed is not None
    expected = [parts.embed.item(), parts.pos_embed.item(), parts.constant.item()]
    for block in range(8):
        expected += [(parts.head[block].sum() + parts.attn_bias[block]).item(), parts.mlp[block].item()]
    assert values == pytest.approx(expected, abs=1e-5)
    assert sum(values) == pytest.approx(truth.logits[eggplant].item(), abs=1e-4)
    assert read.value("Sum of all bars", "#parts") == pytest.approx(truth.logits[eggplant].item(), abs=6e-4)
    assert [number(text) for text in bars.locator("span").all_inner_texts()] == pytest.approx(expected, abs=0.0051)
    width = "bar => parseFloat(getComputedStyle(bar).getPropertyValue('--long'))"
    widths = [bar.evaluate(width) for bar in bars.all()]
    longest = max(map(abs, expected))
    assert widths == pytest.approx([50 * abs(value) / longest for value in expected], abs=0.01)
    heads = [number(text) for text in read.page.locator("#parts .head-list b").all_inner_texts()]
    assert heads == pytest.approx([*parts.head[7, 0].tolist(), parts.attn_bias[7].item()], abs=0.0051)


def test_selections_are_announced(read: Reading) -> None:
    assert read.page.locator("#readout").get_attribute("role") == "status"
    assert read.page.locator("#patches").get_attribute("aria-label") == "Patches, 8 rows by 8 columns"
    assert read.page.locator("#block").get_attribute("aria-valuetext") == "block 7 of 0 to 7"
    assert read.page.locator("#curve svg").get_attribute("aria-label")
    named = "control => Boolean(control.labels?.length || control.textContent || control.ariaLabel)"
    controls = read.page.locator("select, input, button").all()
    assert len(controls) > 15
    assert all(control.evaluate(named) for control in controls)

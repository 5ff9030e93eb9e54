"""An explorer page compares two classes, and two pictures, with the differences that the analyses compute."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Visit
from conftest import make_timm
from explorer_reading import Reading, Truth, number

from analyses.data.emoji_scenes.sample_pictures import sample_scenes
from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.pages.explorer.build import explore
from analyses.patching import activation_patching, logit_difference
from analyses.projection import project
from analyses.value_vectors.vectors import value_logits
from hooked_vit import HookedViT

SHIP, EGGPLANT = "passenger ship", "eggplant"
SCENES = [sample_scenes()[place].path for place in (4, 0)]


@pytest.fixture(scope="module")
def model() -> HookedViT:
    """The embedded model."""
    return HookedViT.from_pretrained("emoji-vit")


@pytest.fixture(scope="module")
def truths(model: HookedViT) -> list[Truth]:
    """The runs that the page shows."""
    return [Truth.of(model, path) for path in SCENES]


@pytest.fixture(scope="module")
def path(model: HookedViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two pictures, with patching."""
    return explore(model, SCENES, patching=True).save(tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture
def read(path: Path, visit: Callable[..., Visit]) -> Reading:
    """The open page."""
    return Reading.when_ready(visit(path).page)


def show_run(read: Reading, run: str) -> None:
    read.page.locator(f"#run input[value='{run}']").check(force=True)


def logit_of(truth: Truth, name: str) -> torch.Tensor:
    """[layer token]"""
    logit = truth.projected(truth.model.class_index(name)).label_logit
    assert logit is not None
    return logit[:, 0]


def rank_of(truth: Truth, name: str) -> torch.Tensor:
    """[layer token]"""
    rank = truth.projected(truth.model.class_index(name)).rank
    assert rank is not None
    return rank[:, 0]


def test_two_classes(read: Reading, truths: list[Truth]) -> None:
    show_run(read, "1")
    read.choose(EGGPLANT)
    read.choose(SHIP, of="against")
    read.view("logit")
    read.to_block(4)
    read.patch(19).hover()
    truth = truths[1]
    difference = logit_of(truth, EGGPLANT) - logit_of(truth, SHIP)
    assert read.value("logit") == pytest.approx(difference[4, 20].item(), abs=0.0105)
    ranks = [rank_of(truth, name)[:, 20].tolist() for name in (EGGPLANT, SHIP)]
    assert [row[1] for row in read.tops()] == [f"{a} / {b}" for a, b in zip(*ranks, strict=True)]
    red, _, blue, _ = read.colour(int(difference[4, 1:].argmax()))
    assert red > blue
    parts = truth.attribution(truth.model.class_index(EGGPLANT), truth.model.class_index(SHIP))
    assert read.value("Sum of all bars", "#parts") == pytest.approx(parts.logit.item(), abs=0.0011)
    assert read.value("= difference of logits in B", "#parts") == pytest.approx(parts.logit.item(), abs=0.0011)
    bars = [float(bar.get_attribute("data-value") or "nan") for bar in read.page.locator("#parts td .bar").all()]
    assert bars[1::2] == pytest.approx(parts.mlp[:, 0].tolist(), abs=1e-4)
    assert read.value(f"The logit of {EGGPLANT} minus that of {SHIP} in picture B is", "#takeaway") == pytest.approx(
        parts.logit.item(), abs=0.0051
    )
    read.view("importance")
    read.patch(30).hover()
    own, other = (truth.importance(truth.model.class_index(name)).sum((0, 1)) for name in (EGGPLANT, SHIP))
    error = (own.abs().max() + other.abs().max()).item() / 50
    assert read.value("importance") == pytest.approx((own - other)[30].item(), abs=error)
    read.page.locator("#against .clear").click()
    assert read.chosen("against") == ""
    assert "difference" not in read.text("#parts")


def test_memories_of_two_classes_are_ordered_by_the_difference(read: Reading, truths: list[Truth]) -> None:
    show_run(read, "0")
    read.choose(SHIP)
    read.choose(EGGPLANT, of="against")
    read.to_block(6)
    coefficients = memory_coefficients(truths[0].model, truths[0].cache, 6, "mlp", "post")[0, 0]
    logits = value_logits(truths[0].model, 6, layer_scale=True)
    labels = [truths[0].model.class_index(name) for name in (SHIP, EGGPLANT)]
    difference = coefficients * (logits[:, labels[0]] - logits[:, labels[1]])
    rows = [row.locator("td").all_inner_texts() for row in read.page.locator("#memories tbody tr:has(td)").all()]
    shown = [number(row[1]) for row in rows]
    assert len(rows) >= 6
    assert shown == sorted(shown, reverse=True)
    expected = [difference[int(row[0].removeprefix("neuron "))].item() for row in rows]
    assert shown == pytest.approx(expected, abs=0.011)


def test_two_pictures(read: Reading, truths: list[Truth]) -> None:
    assert read.page.locator("#run input:checked").input_value() == "difference"
    assert read.text("h1") == "scene_04.png – scene_00.png"
    read.to_block(5)
    logits, ranks = ([of(truth, SHIP) for truth in truths] for of in (logit_of, rank_of))
    tops = [project(truth.model, truth.cache, k=1).top_classes[:, 0, :, 0] for truth in truths]
    for patch in (0, 27, 63):  # the map of top classes has a colour where the pictures differ
        same = tops[0][5, 1 + patch] == tops[1][5, 1 + patch]
        assert (read.colour(patch)[3] == 0) == bool(same)
    read.patch(27).hover()
    names = [truth.name(int(top[5, 28])) for truth, top in zip(truths, tops, strict=True)]
    assert f"top class: A {names[0]}, B {names[1]}" in read.text("#readout")
    assert [row[1] for row in read.tops()] == [
        f"{a} / {b}" for a, b in zip(*(r[:, 28].tolist() for r in ranks), strict=True)
    ]
    read.view("logit")
    read.patch(27).hover()
    assert read.value("logit") == pytest.approx((logits[0] - logits[1])[5, 28].item(), abs=0.0105)
    read.view("identifiability")
    read.patch(27).hover()
    assert read.value("identifiability") == pytest.approx((ranks[1] - ranks[0])[5, 28].item() / 100, abs=0.0011)
    read.view("attention")
    read.patch(12).hover()
    read.page.locator("#readout", has_text="attention from CLS: ").wait_for()
    patterns = [truth.cache["pattern", 5][0, :, 0].mean(0) for truth in truths]
    error = sum(pattern.max().item() for pattern in patterns) / 2.55 + 0.05 * 100 * patterns[0][13].item()
    shown = read.text("#readout").split("attention from CLS: ")[1].split(" %")[0]
    assert number(shown.replace("<", "")) == pytest.approx(100 * (patterns[0] - patterns[1])[13].item(), abs=error)
    label = truths[0].model.class_index(SHIP)
    totals = [truth.logits[label].item() for truth in truths]
    assert read.value("Sum of all bars", "#parts") == pytest.approx(totals[0] - totals[1], abs=0.0011)
    shown = [f"{total:.2f}".replace("-", "−") for total in totals]
    assert f"is {shown[0]} in picture A and {shown[1]} in picture B" in read.text("#takeaway")
    read.page.keyboard.press("x")
    assert read.page.locator("#run input:checked").input_value() == "0"
    assert read.page.locator("#picture-0").is_visible()
    show_run(read, "1")
    assert read.page.locator("#picture-1").is_visible()
    assert not read.page.locator("#picture-0").is_visible()


def test_what_patching_restores(read: Reading, truths: list[Truth], model: HookedViT) -> None:
    labels = [truth.predicted for truth in truths]
    metric = logit_difference(labels[0], against=labels[1])
    tokens, heads = (
        activation_patching(model, truths[0].image, truths[1].image, metric, stream).recovered  # pyright: ignore[reportArgumentType]
        for stream in ("resid_post", "z")
    )
    head = int(heads.argmax())
    assert f"head {head // 4}.{head % 4} restores" in read.text("#takeaway")
    read.view("patching")
    best = tokens[:, 1:].argmax().item()
    assert f"{int(best) // 64} / 7" in read.text("#block-number")  # from the last block it goes to the best one
    for block, patch in ((2, 27), (0, int(best) % 64)):
        read.to_block(block)
        read.patch(patch).hover()
        shown = read.text("#readout").split("restores ")[1].split(" %")[0]
        assert number(shown.replace("< ", "")) == pytest.approx(
            100 * tokens[block, 1 + patch].item(), rel=0.006, abs=0.02
        )
    read.page.locator("#matrix .cell").nth(3 * 5 + 3).hover()
    assert read.value("Block 3, head 3: restores", "#matrix-readout") == pytest.approx(
        100 * heads[3, 3].item(), rel=0.006, abs=0.02
    )


def test_all_four_differences_at_once_and_on_a_phone(
    path: Path, visit: Callable[..., Visit], truths: list[Truth]
) -> None:
    read = Reading.when_ready(visit(path, width=390, height=844).page)
    read.choose(EGGPLANT, of="against")
    for view in ("top", "rank", "identifiability", "logit", "attention", "importance", "patching"):
        read.view(view)
        assert read.page.evaluate("document.documentElement.scrollWidth") == 390
        assert "NaN" not in read.page.locator("body").inner_text()
    own, other = (logit_of(truth, SHIP) - logit_of(truth, EGGPLANT) for truth in truths)
    read.to_block(7)
    read.view("logit")
    read.patch(3).hover()
    assert read.value("logit") == pytest.approx((own - other)[7, 4].item(), abs=0.021)


def test_pictures_of_different_sizes_are_an_error() -> None:
    model = HookedViT.from_timm(make_timm("dynamic"))
    sizes = iter([(32, 24), (16, 40)])
    model.preprocess = lambda picture: torch.zeros(1, 3, *next(sizes))  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="their sizes must agree"):
        explore(model, SCENES)
    with pytest.raises(ValueError, match="pass two pictures"):
        explore(model, SCENES[0], patching=True)
    with pytest.raises(ValueError, match="a title for each of the 2 pictures, got 1"):
        explore(model, SCENES, title="one")


def test_blocks_whose_sublayers_run_side_by_side(visit: Callable[..., Visit], tmp_path: Path) -> None:
    model = HookedViT.from_timm(make_timm("cls", block_fn="ParallelScalingBlock"))
    assert not any("resid_mid" in name for name in model.hook_dict)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 24, 3), dtype=np.uint8)
    page = explore(model, list(pixels), [5, 2], patching=True).save(tmp_path / "page.html")
    read, truths = Reading.when_ready(visit(page).page), [Truth.of(model, picture) for picture in pixels]
    own, other = (truth.logits[5].item() for truth in truths)
    assert read.value("Sum of all bars", "#parts") == pytest.approx(own - other, abs=0.0021)
    metric = logit_difference(5, against=2)
    shares = activation_patching(model, truths[0].image, truths[1].image, metric, "resid_post").recovered
    read.view("patching")
    read.to_block(0)
    read.patch(4).hover()
    shown = read.text("#readout").split("restores ")[1].split(" %")[0]
    assert number(shown.replace("< ", "")) == pytest.approx(100 * shares[0, 5].item(), rel=0.006, abs=0.02)

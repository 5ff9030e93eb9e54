"""On a fine grid, an explorer page draws no lines and clips colour scales as figures do, and says so."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from browser import Visit
from explorer_reading import Reading, Truth, number

from analyses.data.emoji_scenes.sample_pictures import sample_scenes
from analyses.pages.explorer.build import explore
from analyses.plots.patch_maps import FINEST_LINED_GRID, colour_range
from hooked_vit import HookedViT

CLASS = 7
PICTURE = sample_scenes()[4].picture


def tiny(n_patches: int) -> HookedViT:
    """A random model with a square grid, in which few patches get most of CLS's attention."""
    torch.manual_seed(0)
    module = timm.create_model(
        "vit_tiny_patch16_224", img_size=4 * n_patches, patch_size=4, depth=2, embed_dim=24, num_heads=2, num_classes=12
    )
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return HookedViT.from_timm(module.eval())


@pytest.fixture
def opened(visit: Callable[..., Visit], tmp_path: Path) -> Callable[[HookedViT], Reading]:
    """Opens the page of a picture."""

    def open_(model: HookedViT) -> Reading:
        path = explore(model, PICTURE, [CLASS]).save(tmp_path / "page.html")
        return Reading.when_ready(visit(path).page)

    return open_


def shadow(read: Reading, patch: int) -> str:
    """What separates a patch from its neighbours."""
    return read.patch(patch).evaluate("cell => getComputedStyle(cell).boxShadow")


def ends(read: Reading) -> list[str]:
    return [read.text("#legend-low"), read.text("#legend-high")]


def test_lines_separate_patches_of_coarse_grids_only(opened: Callable[[HookedViT], Reading]) -> None:
    read = opened(tiny(FINEST_LINED_GRID))
    assert shadow(read, 7) != "none"
    read.view("attention")
    read.page.locator("#view-means", has_text="the scale ends at the patch with the most attention").wait_for()
    assert "clipped" not in read.text("#view-means")
    read = opened(tiny(FINEST_LINED_GRID + 1))
    assert shadow(read, 7) == "none"


def test_scales_of_fine_grids_are_clipped_as_in_figures(opened: Callable[[HookedViT], Reading]) -> None:
    model = tiny(37)
    read, truth = opened(model), Truth.of(model, PICTURE)
    attention = truth.cache["pattern", 1][0, :, 0, 1:].mean(0).numpy()
    expected = colour_range(attention)
    assert expected.note
    read.view("attention")
    read.page.locator("#view-means", has_text="The scale is clipped at the 98th percentile.").wait_for()
    assert "the scale ends at" not in read.text("#view-means")
    low, high = ends(read)
    assert low == "0 %"
    assert high.startswith("≥ ")
    assert number(high[2:-2]) == pytest.approx(100 * expected.high, rel=0.06)  # two digits
    # a patch beyond the end has the colour of the end
    beyond = int(np.argsort(attention)[-2])
    assert attention[beyond] > expected.high
    assert read.colour(beyond) == read.colour(int(attention.argmax()))

    importance = truth.importance(CLASS).sum((0, 1)).abs().numpy()
    expected = colour_range(importance)
    assert expected.note
    read.view("importance")
    assert read.text("#view-means").endswith("The scale is clipped at the 98th percentile of the magnitudes.")
    low, high = ends(read)
    assert low == "≤ " + high[2:].replace("+", "−")
    assert read.value("≥ ", "#legend-high") == pytest.approx(expected.high, rel=0.06)  # two digits

    logits = truth.projected(CLASS).label_logit
    assert logits is not None
    expected = colour_range(logits.numpy())
    read.view("logit")
    for text, value in zip(ends(read), (expected.low, expected.high), strict=True):
        assert number(text.strip("≤≥ ")) == pytest.approx(value, abs=0.011)
    assert ("clipped" in read.text("#view-means")) == bool(expected.note)
    read.view("identifiability")
    assert ends(read) == ["0.000", "1.000"]

"""Every corruption of ImageNet-C is the package's, gets stronger, and draws alike for the same image."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from analyses.analysis.base import AnalysisBatch
from analyses.data import EmojiScenes
from analyses.robustness import CORRUPTIONS, corruption
from analyses.robustness.corruptions import Corruption
from analyses.robustness.pictures import seeded
from hooked_vit import HookedViT

package = pytest.importorskip("imagecorruptions", reason="the robustness extra is missing", exc_type=ImportError)
RANDOM = {"gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost", "fog",
          "elastic_transform", "speckle_noise", "spatter"}  # fmt: skip
SLOW = {"glass_blur"}  # numba compiles it for five seconds


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """An emoji."""
    return EmojiScenes(1, seed=5).picture(0)


def test_names_are_the_packages() -> None:
    assert tuple(package.get_corruption_names("all")) == CORRUPTIONS


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in CORRUPTIONS])
def test_it_is_the_packages_function_and_seeded(name: str, picture: Image.Image) -> None:
    transform = corruption(name, 4).transform
    found = []
    for image in (7, 7, 8):
        with seeded(0, image):
            found.append(np.asarray(transform(picture)))
    assert found[0].shape == (64, 64, 3)
    assert found[0].dtype == np.uint8
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any() == (name in RANDOM)
    if name not in RANDOM:
        assert (found[0] == package.corrupt(np.asarray(picture), 4, name)).all()
    assert (found[0] != np.asarray(picture)).any()


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "contrast", "brightness"])
def test_it_gets_stronger(name: str, picture: Image.Image) -> None:
    clean, changes = np.asarray(picture).astype(float), []
    for severity in range(1, 6):
        with seeded(0, 0):
            changes.append(np.abs(np.asarray(Corruption(name, severity)(picture)) - clean).mean())
    assert changes == sorted(changes)
    assert changes[0] < changes[-1]


def test_on_a_batch() -> None:
    model, scenes = HookedViT.from_pretrained("emoji-vit"), EmojiScenes(3, seed=5).batch([1, 2])
    logits, cache = model.run_with_cache(scenes.images, names_filter="logits")
    batch = AnalysisBatch(model, cache, logits, scenes.labels[:, 0], scenes.indices, images=scenes.images)
    corrupt = [package.corrupt(np.array(scenes[place].picture), 5, "contrast") for place in range(2)]
    assert torch.equal(corruption("contrast", 5)(batch), model.preprocess(corrupt))


@pytest.mark.usefixtures("bad_input")
def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"unknown corruption 'frog'; did you mean 'f(og|rost)'"):
        corruption("frog")
    for severity in (0, 6, 2.5):
        with pytest.raises(ValueError, match=f"expected a severity from 1 to 5 for 'fog', got {severity}"):
            corruption("fog", severity)  # pyright: ignore
    with pytest.raises(ValueError, match="'snow' needs pictures of at least 32 × 32 pixels, got 40 × 31"):
        Corruption("snow", 1)(Image.new("RGB", (40, 31)))
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(ImportError, match=r"need imagecorruptions-imaug: pip install 'hooked-vit\[robustness\]'"):
        corruption("fog")

"""An explorer page shows one picture as the model saw it, with the classes asked for; errors are in plain words."""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_timm, ported
from PIL import Image

from analyses.data.emoji_scenes.sample_pictures import sample_scenes
from analyses.pages.explorer.build import ExplorerPage, explore
from hooked_vit import HookedViT

SCENE = sample_scenes()[0]


@pytest.fixture
def emoji() -> HookedViT:
    """The embedded model."""
    return HookedViT.from_pretrained("emoji-vit")


def data_of(page: ExplorerPage) -> dict[str, Any]:
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.html, flags=re.DOTALL)
    return json.loads(data)


def picture_of_page(page: ExplorerPage) -> np.ndarray:
    data = re.findall(r'src="data:image/\w+;base64,([^"]+)"', page.html)[0]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.array(picture.convert("RGB"))


def test_a_page_of_a_file(emoji: HookedViT, tmp_path: Path) -> None:
    page = explore(emoji, SCENE.path, ["crocodile", 3], model_name="emoji-vit")
    data = data_of(page)
    assert data["shown"][:2] == [emoji.class_index("crocodile"), 3]
    assert (data["n_asked"], data["runs"][0]["title"], data["model"]) == (2, SCENE.path.name, "emoji-vit")
    assert np.array_equal(picture_of_page(page), np.array(SCENE.picture))
    written = page.save(tmp_path / "new" / "page.html")
    assert written.read_text("utf-8") == page.html
    assert f"{len(page.html) / 1e6:.1f} MB" in repr(page)


def test_arrays_and_pictures_are_accepted(emoji: HookedViT) -> None:
    of_file, of_picture, of_array = (
        data_of(explore(emoji, picture)) for picture in (SCENE.path, SCENE.picture, np.array(SCENE.picture))
    )
    assert of_picture["runs"][0]["title"] == of_array["runs"][0]["title"] == "picture"
    assert (
        of_file["runs"][0]["projections"] == of_picture["runs"][0]["projections"] == of_array["runs"][0]["projections"]
    )


def test_the_picture_is_the_models_input() -> None:
    page = explore(ported("cls"), Image.fromarray(np.full((90, 300, 3), (200, 40, 90), dtype=np.uint8)))
    shown = picture_of_page(page)
    assert shown.shape == (32, 24, 3)
    assert np.abs(shown.astype(int) - (200, 40, 90)).max() <= 2


def test_padding_is_grey() -> None:
    model = HookedViT.from_timm(make_timm("dynamic", dynamic_img_pad=True))
    assert model.data_config is not None
    model.data_config = {**model.data_config, "input_size": (3, 30, 20)}
    page = explore(model, Image.fromarray(np.zeros((30, 20, 3), dtype=np.uint8)))
    shown = picture_of_page(page)
    assert data_of(page)["grid"] == [4, 3]
    assert shown.shape == (32, 24, 3)
    assert (shown[:30, :20] == 0).all()
    assert (shown[30:] == 128).all()
    assert (shown[:, 20:] == 128).all()


@pytest.mark.parametrize("n_channels", [1, 4])
def test_models_with_other_numbers_of_channels(n_channels: int) -> None:
    model = HookedViT.from_timm(make_timm("cls", in_chans=n_channels))
    page = explore(model, Image.fromarray(np.full((32, 24, 3), (200, 40, 90), dtype=np.uint8)))
    right = (200, 40, 90) if n_channels == 4 else np.array(Image.new("RGB", (1, 1), (200, 40, 90)).convert("L")).item()
    assert np.abs(picture_of_page(page).astype(int) - right).max() <= 2


@pytest.mark.parametrize("changes", [{"num_classes": 300}, {"depth": 1, "num_heads": 1}])
def test_many_classes_one_head(changes: dict[str, int]) -> None:
    model = HookedViT.from_timm(make_timm("cls", **changes))
    data = data_of(explore(model, Image.new("RGB", (24, 32)), [0]))
    n_shown = {300: 10}.get(model.cfg.n_classes, 7)
    assert len(data["shown"]) in (n_shown, n_shown + 1)  # one more if the class asked for is not among the ten
    assert data["runs"][0]["projections"]["rank"]["shape"] == [3, model.cfg.n_layers, 13, len(data["shown"])]


def test_a_single_logit_has_a_page_as_two_classes() -> None:
    model, picture = HookedViT.from_timm(make_timm("cls", num_classes=1)), Image.new("RGB", (24, 32))
    with pytest.raises(ValueError, match=r"an explorer page, which shows ranks, needs .*with_two_classes"):
        explore(model, picture, [0])
    assert len(data_of(explore(model.with_two_classes(), picture))["shown"]) == 2


def test_half_precision_is_accepted() -> None:
    model = HookedViT.from_timm(make_timm("cls").to(torch.bfloat16))
    assert data_of(explore(model, Image.new("RGB", (24, 32))))["runs"][0]["attention"]["kept"] == "everything"


def test_a_notebook_shows_the_page_in_a_sandboxed_frame(emoji: HookedViT) -> None:
    page = explore(emoji, SCENE.path)
    shown = page._repr_html_()
    [document] = re.findall(r'srcdoc="([^"]*)"', shown)
    assert html.unescape(document) == page.html
    assert 'sandbox="allow-scripts"' in shown


def test_the_model_is_unchanged(emoji: HookedViT) -> None:
    before = {name: parameter.clone() for name, parameter in emoji.named_parameters()}
    explore(emoji, SCENE.path)
    assert all(torch.equal(before[name], parameter) for name, parameter in emoji.named_parameters())
    assert all(parameter.grad is None for parameter in emoji.parameters())
    assert not any(point.fwd_hooks for point in emoji.hook_dict.values())


@pytest.mark.parametrize(
    ("picture", "classes", "says"),
    [
        ([SCENE.path] * 3, [], "expected one picture, or two to compare, got 3"),
        ([], [], "got 0"),
        (SCENE.path, ["crocodil"], "did you mean 'crocodile'"),
        (SCENE.path, [100], "class index 100 is out of range"),
        (__file__, [], "cannot be read as a picture"),
        ("no-such.png", [], "no picture at 'no-such.png'"),
    ],
)
def test_errors(emoji: HookedViT, picture: Any, classes: list, says: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(says)):
        explore(emoji, picture, classes)

"""The data of a page come from one forward pass, for any token layout, and fit into the room."""

import json

import pytest
import torch
from conftest import make_timm, ported
from explored import ASKED, an_image, explored

from analyses.pages.explorer.content import explorer_data
from analyses.pages.explorer.run import explorer_names
from hooked_vit import HookedViT


def test_the_model_runs_once() -> None:
    model, runs = HookedViT.from_timm(make_timm("cls")), []
    model.blocks[0].register_forward_hook(lambda *_: runs.append(1))
    explorer_data(model, an_image())
    assert runs == [1]


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("cls", ["CLS"]),
        ("distilled", ["CLS", "Distillation"]),
        ("dynamic", ["CLS", "Register 1", "Register 2"]),
        ("map", ["Register 1"]),
        ("post_norm", []),
    ],
)
def test_tokens_and_grid(kind: str, prefix: list[str]) -> None:
    _, _, data = explored(kind)
    assert data["prefix"] == prefix
    assert data["grid"] == [4, 3]
    assert data["projections"]["rank"]["shape"] == [3, 3, 12 + len(prefix), 7]


def test_pages_need_no_stream_between_the_sublayers(kind: str) -> None:
    """Blocks whose sub-layers run side by side have none."""
    model, _, _ = explored(kind)
    assert not any(name.endswith("resid_mid") for name in explorer_names(model))


def test_classes_and_predictions(kind: str) -> None:
    model, _, data = explored(kind)
    with torch.no_grad():
        probabilities = model(an_image())[0].softmax(-1)
    order = probabilities.argsort(descending=True).tolist()
    assert data["shown"] == [*ASKED, *(label for label in order if label not in ASKED)]
    assert (data["n_asked"], data["n_leading"]) == (2, 7)
    assert [label for label, _ in data["predicted"]] == order[:5]
    assert [share for _, share in data["predicted"]] == pytest.approx(probabilities[order[:5]].tolist(), abs=1e-6)


def test_an_image_of_another_size_has_its_own_grid() -> None:
    data = explorer_data(ported("dynamic"), torch.randn(1, 3, 16, 40))
    assert data["grid"] == [2, 5]
    assert data["runs"][0]["importance"]["shape"] == [7, 4, 4, 10]


def test_the_data_fit_into_the_room() -> None:
    whole = len(json.dumps(explorer_data(ported("cls"), an_image(), ASKED)))
    data = explorer_data(ported("cls"), an_image(), ASKED, room=whole - 2000)
    assert data["runs"][0]["attention"]["kept"] != "everything"
    assert len(json.dumps(data)) <= whole - 2000


def test_a_model_without_classes_is_an_error() -> None:
    with pytest.raises(ValueError, match="with_class_embeddings"):
        explorer_data(HookedViT.from_timm(make_timm("cls", num_classes=0)), an_image())

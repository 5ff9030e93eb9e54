"""All methods have the same signature, are found by name, and work on models of every kind."""

import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.feature_importance.methods import CLASS_AGNOSTIC, METHODS, Explainer, explainer, needs_pixels

CLASSES = torch.tensor([5, 0])


@pytest.mark.parametrize("name", METHODS)
def test_all_methods_are_called_the_same_way(name: str, kind: str, images: Tensor) -> None:
    model, method = ported(kind), explainer(name)
    maps = method(model, images, CLASSES)
    assert maps.shape == (2, 12)
    assert not maps.requires_grad
    tokens = model(images, stop_at_layer=0)
    if needs_pixels(name):
        with pytest.raises(ValueError, match="pass images, not the stream's start"):
            method(model, tokens, CLASSES, start_at_layer=0)
    elif name != "random":  # drawn from the bytes of its input
        torch.testing.assert_close(method(model, tokens, CLASSES, start_at_layer=0), maps, rtol=1e-4, atol=1e-6)


def test_traits() -> None:
    assert CLASS_AGNOSTIC == ("raw_attention", "rollout", "random")
    assert {name for name in METHODS if needs_pixels(name)} == {"input_gradients", "integrated_gradients"}
    assert all(needs_pixels(method) == needs_pixels(name) for name, method in METHODS.items())
    assert all(isinstance(method, Explainer) for method in METHODS.values())
    assert not needs_pixels("unknown")


@pytest.mark.parametrize("name", METHODS)
def test_class_agnostic_methods_ignore_the_class(name: str, images: Tensor) -> None:
    model, method = ported("cls"), explainer(name)
    same = torch.equal(method(model, images, CLASSES), method(model, images, CLASSES.flip(0)))
    assert same == (name in CLASS_AGNOSTIC)


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"no method is called 'relevence': did you mean 'relevance'\? there are"):
        explainer("relevence")

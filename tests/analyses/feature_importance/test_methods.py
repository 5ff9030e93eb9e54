"""All methods are called alike, by name, on models of every kind."""

import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.feature_importance.methods import METHODS, explainer, needs_pixels

CLASSES = torch.tensor([5, 0])


@pytest.mark.parametrize("name", METHODS)
def test_all_are_called_alike(name: str, kind: str, images: Tensor) -> None:
    model, method = ported(kind), explainer(name)
    maps = method(model, images, CLASSES)
    assert maps.shape == (2, 12)
    assert not maps.requires_grad
    tokens = model(images, stop_at_layer=0)
    if needs_pixels(name):
        with pytest.raises(ValueError, match="pass images, not the stream's start"):
            method(model, tokens, CLASSES, start_at_layer=0)
    elif name != "random":  # drawn from the bytes of what it is given
        torch.testing.assert_close(method(model, tokens, CLASSES, start_at_layer=0), maps, rtol=1e-4, atol=1e-6)


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"no method is called 'relevence': did you mean 'relevance'\? there are"):
        explainer("relevence")

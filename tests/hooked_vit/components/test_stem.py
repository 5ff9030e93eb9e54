"""A stem: an architecture without weights, and a copy of it that runs."""

import torch
from stem_models import STEMS
from torch import nn

from hooked_vit.components.stem import Stem, without_weights
from hooked_vit.config import StemConfig


def test_a_module_without_weights_leaves_the_module_unchanged() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
    before = module(torch.ones(1, 3, 4, 4))
    empty = without_weights(module)
    assert {tensor.device.type for tensor in empty.state_dict().values()} == {"meta"}
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"cpu"}
    assert [type(part) for part in empty] == [type(part) for part in module]
    assert torch.equal(module(torch.ones(1, 3, 4, 4)), before)


def test_frozen_parameters_stay_frozen() -> None:
    module = nn.Conv2d(3, 4, 2).requires_grad_(False)
    assert not without_weights(module).weight.requires_grad


def test_a_stem_computes_what_its_module_computes() -> None:
    images = torch.randn(2, 3, 32, 16)
    for make, _, _ in STEMS.values():
        module = make().eval()
        stem = Stem(StemConfig(without_weights(module), "", 1))
        stem.backbone.load_state_dict(module.state_dict())
        expected = module(images)
        assert torch.equal(stem(images), expected[-1] if isinstance(expected, list) else expected)


def test_a_stem_from_its_config_alone_runs() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
    stem = Stem(StemConfig(without_weights(module), "", 4))
    assert stem(torch.randn(1, 3, 4, 4)).isfinite().all()
    with torch.device("meta"):
        assert Stem(StemConfig(without_weights(module), "", 4)).backbone[0].weight.is_meta

"""Analyses of models with differential attention: the same numbers as their definitions, or a reason why not."""

import conftest
import pytest
import torch
from conftest import make_timm
from torch import Tensor

from analyses.attribution import attribution_names, logit_attribution
from analyses.feature_importance import attention_rollout, feature_importance
from analyses.pages.explorer.run import explored_run
from hooked_vit import HookedViT

CLASSES = torch.tensor([3, 5])


@pytest.fixture(params=[{}, {"scale_attn_norm": True, "qk_norm": True, "init_values": 0.3}], ids=["plain", "norms"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> HookedViT:
    """A small model with a CLS readout."""
    monkeypatch.setitem(conftest.KINDS, "diff", {"attn_layer": "diff", **request.param})
    return HookedViT.from_timm(make_timm("diff")).requires_grad_(False)


def test_heads_and_their_sources_sum_to_the_logit(model: HookedViT, images: Tensor) -> None:
    names = attribution_names(model.cfg, sources=True)
    _, cache = model.run_with_cache(images, names_filter=names)
    parts = logit_attribution(model, cache, CLASSES, sources=True)
    torch.testing.assert_close(parts.total, parts.logit, rtol=1e-4, atol=1e-5)
    by_source = parts.source.sum(dim=-1) + parts.source_bias
    # a norm over all heads subtracts their common mean, so only the sum over heads is the same
    heads = (2,) if model.cfg.attn_inner_norm is not None else ()
    by_source, by_head = (x.sum(heads) if heads else x for x in (by_source, parts.head))
    torch.testing.assert_close(by_source, by_head, rtol=1e-3, atol=1e-5)


def test_importance_is_the_derivative_at_the_pattern(model: HookedViT, images: Tensor) -> None:
    found = feature_importance(model, images, CLASSES)
    _, cache = model.run_with_cache(images)
    for layer, block in enumerate(model.blocks):
        pattern = cache["pattern", layer][:, :, :1].clone().requires_grad_()
        mix = (pattern @ cache["v", layer].transpose(1, 2)).transpose(1, 2)
        attn_out = block.write_attn(block.attn.norm_z(mix))
        logits = model.class_logits(attn_out)[:, 0]
        loss = torch.nn.functional.cross_entropy(logits, CLASSES, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, pattern)
        expected = -gradient[:, :, 0, model.token_layout.patches]
        torch.testing.assert_close(found[:, layer], expected, rtol=1e-3, atol=1e-6)


def test_rollout_and_the_explorer_say_what_they_cannot_mean(model: HookedViT, images: Tensor) -> None:
    with pytest.raises(ValueError, match="the explorer shows shares of attention, and the patterns of differential"):
        explored_run(model, images[:1])
    with pytest.raises(ValueError, match="the patterns of differential attention are differences with negative"):
        attention_rollout(model, images, CLASSES)

"""Tokens are named in the same ways in all patching sweeps, compared with hooks that patch masks written out."""

from typing import Any

import pytest
import torch
from conftest import ported
from token_choices import TOKEN_CHOICES, chosen_tokens
from torch import Tensor

from analyses.patching import activation_patching, attribution_patching, path_patching

MODEL = ported("cls")
CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(3))
choices = pytest.mark.parametrize("chosen", TOKEN_CHOICES.values(), ids=TOKEN_CHOICES.keys())


def metric(logits: Tensor) -> Tensor:
    """One number per image."""
    return logits[:, 0] - logits[:, 4]


@torch.no_grad()
def patched(mask: Tensor, source: Tensor) -> Tensor:
    """The metric of the corrupt run with the masked tokens of block 1's input from the clean run."""
    hooks = [(("resid_pre", 1), lambda stream, hook: torch.where(mask[..., None], source, stream))]
    return metric(MODEL.run_with_hooks(CORRUPT, fwd_hooks=hooks))


@choices
def test_activation_patching(chosen: Any) -> None:
    arguments = {"layers": [1], "per_image": True}
    source = MODEL(CLEAN, stop_at_layer=1)
    mask = chosen_tokens(chosen)
    together = activation_patching(MODEL, CLEAN, CORRUPT, metric, groups={"chosen": chosen}, **arguments)
    torch.testing.assert_close(together.values[0, 0], patched(mask, source), rtol=1e-4, atol=1e-5)
    each = activation_patching(MODEL, CLEAN, CORRUPT, metric, tokens=chosen, **arguments)
    assert list(each.labels["token"]) == mask.any(dim=0).nonzero()[:, 0].tolist()
    for values, token in zip(each.values[0], each.labels["token"], strict=True):
        expected = patched(mask & (torch.arange(13) == token), source)
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


@choices
def test_attribution_patching(chosen: Any) -> None:
    arguments = {"layers": [1], "per_image": True}
    mask = chosen_tokens(chosen)
    all_tokens = attribution_patching(MODEL, CLEAN, CORRUPT, metric, **arguments)
    together = attribution_patching(MODEL, CLEAN, CORRUPT, metric, groups={"chosen": chosen}, **arguments)
    effect = (all_tokens.effect[0] * mask.T).sum(dim=0)
    torch.testing.assert_close(together.effect[0, 0], effect, rtol=1e-4, atol=1e-5)
    each = attribution_patching(MODEL, CLEAN, CORRUPT, metric, tokens=chosen, **arguments)
    torch.testing.assert_close(each.effect[0].sum(dim=0), effect, rtol=1e-4, atol=1e-5)


@choices
def test_path_patching(chosen: Any) -> None:
    mask = chosen_tokens(chosen)[..., None]
    (_, source), (_, base) = (MODEL.run_with_cache(images, names_filter="hook_tokens") for images in (CLEAN, CORRUPT))
    written = (source["hook_tokens"] - base["hook_tokens"]) * mask
    expected = MODEL.run_with_hooks(CORRUPT, fwd_hooks=[("hook_tokens", lambda stream, hook: stream + written)])
    # every reader of the stream's start: the whole effect of the embedding
    receivers = [(kind, layer, head) for kind in ("head",) for layer in range(3) for head in range(3)]
    receivers += [("mlp", layer) for layer in range(3)] + [("logits",)]
    result = path_patching(
        MODEL, CLEAN, CORRUPT, metric, receivers, [("embed",)], tokens=chosen, per_image=True
    )  # fmt: skip
    torch.testing.assert_close(result.values[0], metric(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sweep", [activation_patching, attribution_patching, path_patching])
def test_masks_for_other_images_are_refused(sweep: Any) -> None:
    arguments = {"receivers": [("logits",)]} if sweep is path_patching else {}
    with pytest.raises(ValueError, match="tokens is a mask for 3 images, the run has 2"):
        sweep(MODEL, CLEAN, CORRUPT, metric, tokens=torch.ones(3, 13) > 0, per_image=True, **arguments)

"""The twin of a model shares its weights, has none of its hooks, and leaves them on the model."""

import pytest
import torch
from conftest import make_timm
from torch import Tensor

from hooked_vit import HookedViT
from hooked_vit.hook_point import is_watched
from hooked_vit.unhooked import unhooked


def test_the_twin_has_no_hooks_and_the_model_keeps_its_own(kind: str, images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm(kind))
    expected = model(images)
    model.add_hook("resid_post", lambda residual, hook: 2 * residual)
    model.add_hook(("z", 1), lambda gradient, hook: None, dir="bwd")
    model.blocks[0].register_forward_hook(lambda module, args, out: out + 1)
    model.blocks[1].mlp.register_forward_pre_hook(lambda module, args: None)
    model.set_live_hook_points("pattern")
    edited = model(images)
    twin = unhooked(model)
    assert torch.equal(twin(images), expected)
    assert torch.equal(model(images), edited)
    assert not any(map(is_watched, twin.hook_points()))
    assert twin._tokens is not model._tokens  # each may run while the other does
    assert list(twin.hook_dict) == list(model.hook_dict)
    assert all(a is b for a, b in zip(twin.parameters(), model.parameters(), strict=True))
    twin.add_hook("hook_tokens", lambda tokens, hook: 0 * tokens)
    twin.blocks[0].attn.out = torch.nn.Identity()
    assert torch.equal(model(images), edited)


@torch.no_grad()
def test_nnsight_reads_and_edits_live_points() -> None:
    nnsight = pytest.importorskip("nnsight")
    model, images = HookedViT.from_pretrained("emoji-vit"), torch.rand(2, 3, 64, 64)
    model.set_live_hook_points()
    plain = model(images)
    _, cache = model.run_with_cache(images, names_filter=[("pattern", 3), ("resid_post", 3)])
    seen = nnsight.NNsight(model)
    with seen.trace(images):
        pattern = seen.blocks[3].attn.hook_pattern.output.save()
        stream = seen.blocks[3].hook_resid_post.output.save()
    assert torch.equal(pattern, cache["pattern", 3])
    assert torch.equal(stream, cache["resid_post", 3])
    with seen.trace(images):
        seen.blocks[3].attn.hook_pattern.output[:] = 0
        edited = seen.output.save()
    expected = model.run_with_hooks(images, fwd_hooks=[(("pattern", 3), lambda pattern, hook: 0 * pattern)])
    assert torch.equal(edited, expected)
    assert not torch.allclose(edited, plain, atol=1e-2)

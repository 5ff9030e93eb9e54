"""What test_compile_and_export runs in processes without shape checks, since tracing needs plain code."""

import sys
from typing import Any

import torch
from conftest import make_timm, original
from torch import Tensor

from hooked_vit import HookedViT

POINTS = [
    "hook_tokens", "blocks.1.ln1.hook_scale", "blocks.1.attn.hook_q", "blocks.1.attn.hook_pattern",
    "blocks.1.attn.hook_result", "blocks.1.hook_q_input", "hook_logits",
]  # fmt: skip


def shifted(a: Tensor, hook: Any) -> Tensor:
    return a + torch.linspace(1, 2, a.shape[-1])


def shifted_in_place(a: Tensor, hook: Any) -> None:
    a += torch.linspace(1, 2, a.shape[-1])


@torch.no_grad()
def compiled(images: Tensor) -> None:
    """Hooks attached after a compiled run act, everywhere."""
    model = HookedViT.from_timm(make_timm("cls"))
    run: Any = torch.compile(model, backend="eager")
    plain = run(images)
    torch.testing.assert_close(plain, model(images), rtol=0, atol=1e-6)
    for name in POINTS:
        for hook in (shifted, shifted_in_place):
            with model.hooks(fwd_hooks=[(name, hook)]):
                edited = run(images)
                torch.testing.assert_close(edited, model(images), rtol=0, atol=1e-6)
            assert not torch.allclose(edited, plain, atol=1e-6), name
            torch.testing.assert_close(run(images), plain, rtol=0, atol=1e-6)
    cache, fwd_hooks, _ = model.get_caching_hooks(lambda name: True)
    with model.hooks(fwd_hooks=fwd_hooks):
        run(images)
    assert cache.keys() == model.hook_dict.keys()


def exported(images: Tensor) -> None:
    """Any batch passes through one export, for each kind of pooling."""
    for kind in ("cls", "map", "gap_registers_layerscale", "rotary", "relative"):
        export(HookedViT.from_timm(original(kind)), images)


def export(model: HookedViT, images: Tensor) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (images,), dynamic_shapes={"input": {0: batch}}, strict=False).module()
    many = torch.randn(5, *images.shape[1:])
    torch.testing.assert_close(program(many), model(many), rtol=0, atol=1e-6)


if __name__ == "__main__":
    {"compiled": compiled, "exported": exported}[sys.argv[1]](torch.randn(2, 3, 32, 24))

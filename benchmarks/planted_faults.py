"""Mistakes that ports make, planted in trained models: what `verify` finds, and what a tolerance would let through.

Each mistake is planted in an embedded model's HookedViT, and its logits on Emoji Scenes are compared with timm's. The
table states the largest difference of the logits, absolute and relative to the largest logit; at which stage `verify`
says that the two first differ; and whether `torch.allclose` accepts the logits with the absolute and relative
tolerances 1e-3 and 3e-2, which other packages test their ports with.

    python benchmarks/planted_faults.py
"""

import dataclasses
from collections.abc import Callable
from importlib.resources import as_file, files
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from analyses.data import EmojiScenes, ItemReader
from hooked_vit import HookedViT
from hooked_vit.config import NormConfig
from hooked_vit.loading import embedded_card

_TOLERANCES = (1e-3, 3e-2)


def swap_queries_and_keys(model: HookedViT) -> None:
    """In one block, as a port does that reads the rows in another order."""
    weight, width = model.blocks[4].attn.qkv.weight, model.cfg.d_model
    weight[: 2 * width] = torch.cat([weight[width : 2 * width], weight[:width]])


def bfloat16_weights(model: HookedViT) -> None:
    """Weights that were stored in half precision on the way."""
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16().float())


def no_value_bias(model: HookedViT) -> None:
    """A bias that was not copied."""
    model.blocks[2].attn.qkv.bias[2 * model.cfg.d_model :] = 0


Change = dict[str, Any] | Callable[[HookedViT], None]
FAULTS: dict[str, tuple[str, Change]] = {
    "LayerNorm's epsilon 1e-5 for 1e-6": ("emoji-vit", {"block_norm": NormConfig(eps=1e-5)}),
    "tanh GELU for GELU": ("emoji-vit", {"act_fn": "gelu_tanh"}),
    "QuickGELU for GELU": ("emoji-vit", {"act_fn": "quick_gelu"}),
    "queries and keys swapped in one block": ("emoji-vit", swap_queries_and_keys),
    "the value bias of one block left out": ("emoji-vit", no_value_bias),
    "weights rounded to bfloat16": ("emoji-vit", bfloat16_weights),
    "scores scaled after the product": ("emoji-vit", {"scale_scores": True}),
    "prefix tokens in the mean": ("emoji-vit-gap", {"pool_includes_prefix": True}),
    "norm before the mean instead of after it": ("emoji-vit-gap", {"norm_after_pool": False}),
}


@torch.no_grad()
def main() -> None:
    """Print the table as Markdown."""
    print("| mistake | model | largest difference | relative | first differs after | allclose 1e-3 | allclose 3e-2 |")
    print("|---|---|--:|--:|---|---|---|")
    for fault, (name, change) in FAULTS.items():
        right = HookedViT.from_pretrained(name)
        module = reference(name)
        images = pictures(right)
        right.fused_attention = False
        assert right.verify(module, images).bitwise
        wrong = planted(right, change)
        found, (logits, expected) = wrong.verify(module, images), (wrong(images), right(images))
        accepted = ["accepts" if torch.allclose(logits, expected, atol=t, rtol=t) else "rejects" for t in _TOLERANCES]
        numbers = f"{found.difference:.1e} | {found.relative:.1e} | {found.first_difference} | {' | '.join(accepted)}"
        print(f"| {fault} | {name} | {numbers} |", flush=True)


def planted(model: HookedViT, change: Change) -> HookedViT:
    """A copy of the model with the mistake."""
    cfg = dataclasses.replace(model.cfg, **change) if isinstance(change, dict) else model.cfg
    wrong = model.with_weights({name: weight.clone() for name, weight in model.named_parameters()}, cfg)
    if callable(change):
        change(wrong)
    return wrong


def pictures(model: HookedViT) -> torch.Tensor:
    """A batch of scenes."""
    batch = ItemReader(EmojiScenes(32, seed=5), model.cfg, model.data_config).__getitems__(range(32))
    assert batch.images is not None
    return batch.images


def reference(name: str) -> nn.Module:
    """timm's module of an embedded model, with plain attention."""
    module = VisionTransformer(**embedded_card(name)["architecture"])
    with as_file(files("hooked_vit") / "assets" / f"{name}.safetensors") as path:
        module.load_state_dict(load_file(path))
    part: Any
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
    return module.eval()


if __name__ == "__main__":
    main()

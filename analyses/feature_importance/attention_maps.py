"""Maps from attention alone, the same for every class: raw attention of a block, and attention rollout."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.feature_importance.memory import within_budget
from analyses.feature_importance.traits import with_traits
from hooked_vit import HookedViT, HookedViTConfig
from hooked_vit.absent_points import refuse_absent

__all__ = ["attention_rollout", "raw_attention", "readout_row"]


@with_traits(class_agnostic=True)
@within_budget()
@torch.no_grad()
def raw_attention(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    layer: int = -1,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """How much the tokens that the head reads attend to each patch in one block, averaged over heads.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> raw_attention(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14])).shape
    torch.Size([2, 64])
    """
    name = ("pattern", layer)
    _, cache = model.run_with_cache(images, names_filter=name, start_at_layer=start_at_layer)
    pattern = cache[name].mean(dim=1)
    weights = model.cfg.read_weights(pattern.shape[1]).to(pattern)
    return weights @ pattern[:, :, model.cfg.token_layout.n_prefix :]


@with_traits(class_agnostic=True)
@within_budget(patterns=2)
@torch.no_grad()
def attention_rollout(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """Attention through all blocks (Abnar and Zuidema, 2020): `R = Â_L ... Â_1`, with `Â = (mean over heads + I) / 2`.

    The rows of the tokens that the head reads, averaged (see `cfg.read_weights`).

    Raises:
        ValueError: If attention is differential: its patterns are differences, not shares; or if a block has several
            attentions.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> attention_rollout(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14])).shape
    torch.Size([2, 64])
    """
    if model.cfg.differential is not None:
        raise ValueError(
            "attention rollout multiplies shares of attention, and the patterns of differential attention are "
            "differences with negative entries: use another method, such as input_gradients"
        )
    refuse_absent(["blocks.0.attn.hook_pattern"], model.cfg)
    _, cache = model.run_with_cache(images, names_filter="pattern", start_at_layer=start_at_layer)
    half_steps = [cache["pattern", layer].mean(dim=1) / 2 for layer in range(model.cfg.n_layers)]
    return readout_row(half_steps, 0.5, model.cfg)


def readout_row(
    steps: Sequence[Float[Tensor, "batch query key"]], kept: float, cfg: HookedViTConfig
) -> Float[Tensor, "batch patch"]:
    """The row of the readout in `(s I + A_L) ... (s I + A_1)` at the patches, computed without building the product.

    If the head reads several tokens, this is the mean of their rows. `kept` is s, the share that a token keeps.
    """
    row = cfg.read_weights(steps[0].shape[-1]).to(steps[0]).expand(len(steps[0]), 1, -1)
    for step in reversed(steps):
        row = kept * row + row @ step
    return row[:, 0, cfg.token_layout.n_prefix :]

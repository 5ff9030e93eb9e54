"""Feature importance in class space: how much attending to a patch, in each block and head, supports a class."""

import warnings
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.func import vjp

from analyses.feature_importance.class_gradients import Target, class_gradients, pull_back
from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache
from hooked_vit.input_checks import require_one_grid

__all__ = [
    "feature_importance",
    "importance_from_cache",
    "importance_map",
    "importance_names",
    "saturated_blocks",
]

CHUNK_ELEMENTS = 2**25  # numbers that the classes' gradients at the tokens that the head reads may take at a time


@torch.inference_mode(False)
@torch.no_grad()
def feature_importance(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"] | Int[Tensor, "batch chosen"] | int | str,
    double_softmax: bool = False,
    *,
    target: Target = "cross_entropy",
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch layer head patch"] | Float[Tensor, "batch chosen layer head patch"]:
    """How much attending to a patch supports a class (paper, section 6): exact, and without a backward pass.

    For patch s, block b and head h, this is the derivative, local to the block, of class k's loss when the model's head
    reads what attention writes in that block instead of the stream:

        importance[b, h, s] = - sum over q of  d CE(head(attn_out[b]), k) / d pattern[b, h, q, s]

    over the tokens q that the head reads. Under a CLS readout that is CLS alone, the paper's definition: `head(x)` is
    `E norm(x) + b`. Where the head pools (GAP, maximum, attention pooling), it pools `attn_out` as it would the stream,
    with the norm before or after pooling as in the model, and the queries are the pooled patches: the importance is how
    much the class gains if all of them attend more to s. A distilled model's heads read two tokens. Since
    `attn_out[q] = write(pattern[q] v)`, the derivative is a closed form: with `u[q, h] = d CE / d z[q, h]`,

        importance[b, h, s] = - v[s, h] · (sum over q of u[q, h]),     in a pre-norm block u[q, h] = W_O[h] (ls1 * g[q])

    where `g` are `class_gradients` and `ls1` is LayerScale; in post-norm blocks and with a norm inside attention, the
    gradient first passes that norm, with the norm's own statistics.

    Args:
        model: The model.
        images: Preprocessed images, or the stream's start (`hook_tokens`) with `start_at_layer=0`.
        classes: One class per image, or several.
        double_softmax: Softmax twice before the loss, as in the released code.
        target: `"cross_entropy"`, the paper's loss; or `"logit"` or `"margin"` (the class's logit, or its lead over the
            best other class), which have a gradient also where the class's probability rounds to 1.
        start_at_layer: 0 if `images` is the stream's start.

    Returns:
        Nats of cross-entropy (or logits) per unit of attention, positive where attending to a patch supports the class.
        The sum over heads and layers is the global map, `importance_map`. Several classes get an axis after the batch
        axis.

    Raises:
        ValueError: If the model does not have these classes, or has a single one, or rejects the images.

    Warns:
        UserWarning: If the importance is exactly 0 in whole blocks, because the class's probability rounds to 1 there
            and its cross-entropy has no gradient; see `saturated_blocks`.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> feature_importance(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14])).shape
    torch.Size([2, 8, 4, 64])
    """
    model.require_several_classes("feature importance, a gradient of cross-entropy,")
    require_one_grid(images)
    chosen = model.class_indices(classes, len(images), several=True)
    images = images.clone() if images.is_inference() else images
    _, cache = model.run_with_cache(
        images,
        names_filter=importance_names(model.cfg),
        start_at_layer=start_at_layer,
        stop_at_layer=model.cfg.n_layers,  # the head reads each block's attention output instead of the last stream
    )
    importance = importance_from_cache(model, cache, chosen, double_softmax, target)
    if target == "cross_entropy":
        _warn_of_saturation(importance)
    return importance if isinstance(classes, Tensor) and classes.ndim == 2 else importance[:, 0]


def importance_map(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"] | int | str,
    *,
    target: Target = "cross_entropy",
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """`feature_importance` summed over blocks and heads: the paper's global map.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> importance_map(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14])).shape
    torch.Size([2, 64])
    """
    importance = feature_importance(model, images, classes, target=target, start_at_layer=start_at_layer)
    return importance.sum(dim=(1, 2))


def importance_names(cfg: HookedViTConfig) -> list[str]:
    """The hook points that `importance_from_cache` reads.

    >>> importance_names(HookedViT.from_pretrained("emoji-vit").cfg)[:2]
    ['blocks.0.attn.hook_v', 'blocks.0.hook_attn_out']
    """
    points = ["attn.hook_v", "hook_attn_out"]
    if _reshapes_the_mix(cfg):
        points += ["attn.hook_z_pre", *(["attn.hook_gate"] if cfg.gated_attn else [])]
    elif cfg.write_norms is not None:
        points.append("attn.hook_z")
    return [f"blocks.{layer}.{point}" for layer in range(cfg.n_layers) for point in points]


@torch.inference_mode(False)
@torch.no_grad()
def importance_from_cache(
    model: HookedViT,
    cache: ViTActivationCache,
    classes: Int[Tensor, "batch chosen"],
    double_softmax: bool = False,
    target: Target = "cross_entropy",
) -> Float[Tensor, "batch chosen layer head patch"]:
    """`feature_importance` from the cache of an earlier run, for several classes per image.

    Raises:
        ValueError: If the cache lacks one of `importance_names`.
    """
    cfg, read = model.cfg, model.cfg.read_tokens
    cache.require(importance_names(cfg), how="importance_names(model.cfg)")
    importances = []
    for layers in _layers_at_a_time(cache, cfg, read):
        written = torch.stack([_differentiable(cache[f"blocks.{layer}.hook_attn_out"][:, read]) for layer in layers])
        parts = []
        for some_classes in classes.split(max(1, CHUNK_ELEMENTS // written.numel()), dim=1):
            rows = some_classes.repeat(len(layers), 1)
            gradients = class_gradients(model, written.flatten(0, 1), rows, double_softmax, target)
            by_layer = zip(layers, gradients.unflatten(0, (len(layers), -1)), strict=True)
            parts.append(torch.stack([_layer_importance(model, cache, layer, g) for layer, g in by_layer]))
        importances.append(torch.cat(parts, dim=2))
    return torch.cat(importances).permute(1, 2, 0, 3, 4)


def saturated_blocks(importance: Float[Tensor, "*axes layer head patch"]) -> Bool[Tensor, "*axes layer"]:
    """True where a block's importance is exactly 0 at every head and patch.

    The cross-entropy of a class whose probability rounds to 1 has no gradient: a 0 then says nothing about the patches.

    >>> saturated_blocks(torch.tensor([[[0.0, 0.0]], [[0.0, 0.1]]])).tolist()
    [True, False]
    """
    return (importance == 0).all(dim=-1).all(dim=-1)


def _warn_of_saturation(importance: Float[Tensor, "batch chosen layer head patch"]) -> None:
    saturated = saturated_blocks(importance)
    if saturated.any():
        image, chosen, _ = saturated.nonzero()[0].tolist()
        n_blocks = int(saturated[image, chosen].sum())
        warnings.warn(
            f"importance is exactly 0 in {n_blocks} of {saturated.shape[2]} blocks for image {image}: the class's "
            "probability rounds to 1 there, so its cross-entropy has no gradient. target='logit' or target='margin' "
            "has one",
            stacklevel=3,
        )


def _layers_at_a_time(cache: ViTActivationCache, cfg: HookedViTConfig, read: slice) -> Iterator[list[int]]:
    """Groups of layers: all together where the head reads few tokens, so that the class embeddings are read once."""
    n_elements = cache["blocks.0.hook_attn_out"][:, read].numel()
    size = max(1, min(cfg.n_layers, CHUNK_ELEMENTS // 4 // n_elements))
    for start in range(0, cfg.n_layers, size):
        yield list(range(start, min(start + size, cfg.n_layers)))


def _layer_importance(
    model: HookedViT, cache: ViTActivationCache, layer: int, gradients: Float[Tensor, "batch chosen read d_model"]
) -> Float[Tensor, "batch chosen head patch"]:
    cfg, block = model.cfg, model.blocks[layer]
    if cfg.write_norms is not None or _reshapes_the_mix(cfg):
        point = "hook_z_pre" if _reshapes_the_mix(cfg) else "hook_z"
        z = _differentiable(cache[f"blocks.{layer}.attn.{point}"][:, cfg.read_tokens])
        gate = cache[f"blocks.{layer}.attn.hook_gate"][:, cfg.read_tokens] if cfg.gated_attn else None
        u = pull_back(vjp(lambda mixed: block.write_attn(block.attn.norm_z(mixed, gate)), z)[1], gradients).sum(dim=2)
    else:
        g = gradients.sum(dim=2)
        u = F.linear(g if block.ls1 is None else g * block.ls1, block.attn.out.weight.T)
        u = u.unflatten(-1, (cfg.n_heads, cfg.d_head))
    v = block.attn.for_query_heads(cache[f"blocks.{layer}.attn.hook_v"][:, cfg.token_layout.n_prefix :], dim=2)
    return -torch.einsum("bshd,bkhd->bkhs", v, u)


def _reshapes_the_mix(cfg: HookedViTConfig) -> bool:
    """Whether a norm or a gate comes between the mix of values and W_O."""
    return cfg.attn_inner_norm is not None or cfg.gated_attn or cfg.differential is not None


def _differentiable(tensor: Tensor) -> Tensor:
    """A tensor that can enter a backward pass: a copy, if it comes from a run in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor

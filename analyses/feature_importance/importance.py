"""Feature importance in class space: how attending to a patch, in each block and head, speaks for a class."""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import vjp

from analyses.feature_importance.class_gradients import checked_classes, class_gradients, pull_back, read_tokens
from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache
from hooked_vit.components.block import Block

__all__ = ["feature_importance", "importance_from_cache", "importance_map", "importance_names"]

# How many numbers the gradients of all classes at the tokens that the head reads may take at a time.
_CHUNK = 2**25


@torch.inference_mode(False)
@torch.no_grad()
def feature_importance(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"] | Int[Tensor, "batch chosen"],
    double_softmax: bool = False,
    *,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch layer head patch"] | Float[Tensor, "batch chosen layer head patch"]:
    """How much attending to a patch speaks for a class (paper, section 6): exact, and without a backward pass.

    For patch s, block b and head h, the derivative local to the block of the loss that class k has if the head reads
    what attention writes there in the place of the stream:

        importance[b, h, s] = - sum over q of  d CE(head(attn_out[b]), k) / d pattern[b, h, q, s]

    over the tokens q that the head reads. Under a CLS readout that is CLS alone, the paper's definition: `head(x)` is
    `E norm(x) + b`. Where the head pools (GAP, maximum, attention pooling), it pools `attn_out` as it would the stream,
    norm before or after pooling as the model has it, and the queries are the pooled patches: what is asked is how much
    the class gains if all of them attend more to s. A distilled model's heads read two tokens. Since
    `attn_out[q] = write(pattern[q] v)`, the derivative is a closed form: with `u[q, h] = d CE / d z[q, h]`,

        importance[b, h, s] = - v[s, h] · (sum over q of u[q, h]),     in a pre-norm block u[q, h] = W_O[h] (ls1 * g[q])

    where `g` are `class_gradients` and `ls1` is LayerScale; in post-norm blocks and behind a norm inside attention, u
    passes that norm at its own statistics first.

    Args:
        model: The model.
        images: Preprocessed images, or the stream's start (`hook_tokens`) with `start_at_layer=0`.
        classes: A class for each image, or several.
        double_softmax: Softmax twice before the loss, as in the released code.
        start_at_layer: 0 if `images` is the stream's start.

    Returns:
        In nats of cross-entropy for each unit of attention, positive where attending to a patch speaks for the class.
        Sum over heads and layers for the global map: `importance_map`. Several classes have an axis after the batch's.

    Raises:
        ValueError: If classes are none of the model's, or the model refuses the images.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> feature_importance(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14])).shape
    torch.Size([2, 8, 4, 64])
    """
    chosen = checked_classes(classes, len(images), model)
    images = images.clone() if images.is_inference() else images
    _, cache = model.run_with_cache(
        images,
        names_filter=importance_names(model.cfg),
        start_at_layer=start_at_layer,
        stop_at_layer=model.cfg.n_layers,  # the head is not read: each block's attention is, in its place
    )
    importance = importance_from_cache(model, cache, chosen, double_softmax)
    return importance if classes.ndim == 2 else importance[:, 0]


def importance_map(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """`feature_importance` summed over blocks and heads: the paper's global map.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> importance_map(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14])).shape
    torch.Size([2, 64])
    """
    return feature_importance(model, images, classes, start_at_layer=start_at_layer).sum(dim=(1, 2))


def importance_names(cfg: HookedViTConfig) -> list[str]:
    """The hook points that `importance_from_cache` reads.

    >>> importance_names(HookedViT.from_pretrained("emoji-vit").cfg)[:2]
    ['blocks.0.attn.hook_v', 'blocks.0.hook_attn_out']
    """
    points = ["attn.hook_v", "hook_attn_out"]
    if cfg.attn_inner_norm is not None:
        points.append("attn.hook_z_pre")
    elif cfg.post_norm:
        points.append("attn.hook_z")
    return [f"blocks.{layer}.{point}" for layer in range(cfg.n_layers) for point in points]


@torch.inference_mode(False)
@torch.no_grad()
def importance_from_cache(
    model: HookedViT,
    cache: ViTActivationCache,
    classes: Int[Tensor, "batch chosen"],
    double_softmax: bool = False,
) -> Float[Tensor, "batch chosen layer head patch"]:
    """`feature_importance` of a run that is there already, for several classes an image.

    Raises:
        ValueError: If the cache lacks one of `importance_names`.
    """
    cfg, read = model.cfg, read_tokens(model.cfg)
    missing = [name for name in importance_names(cfg) if name not in cache.cache_dict]
    if missing:
        raise ValueError(
            f"the cache lacks '{missing[0]}': run "
            "`model.run_with_cache(images, names_filter=importance_names(model.cfg))`"
        )
    of_layers = []
    for layers in _layers_at_a_time(cache, cfg, read):
        written = torch.stack([_own(cache[f"blocks.{layer}.hook_attn_out"][:, read]) for layer in layers])
        of_parts = []
        for part in classes.split(max(1, _CHUNK // written.numel()), dim=1):
            rows = part.repeat(len(layers), 1)
            gradients = class_gradients(model, written.flatten(0, 1), rows, double_softmax)
            by_layer = gradients.unflatten(0, (len(layers), -1))
            of_parts.append(torch.stack([_of_layer(model, cache, *one) for one in zip(layers, by_layer, strict=True)]))
        of_layers.append(torch.cat(of_parts, dim=2))
    return torch.cat(of_layers).permute(1, 2, 0, 3, 4)


def _layers_at_a_time(cache: ViTActivationCache, cfg: HookedViTConfig, read: slice) -> Iterator[list[int]]:
    """All layers together where the head reads few tokens, so that the class embeddings are read once."""
    numbers = cache["blocks.0.hook_attn_out"][:, read].numel()
    size = max(1, min(cfg.n_layers, _CHUNK // 4 // numbers))
    for start in range(0, cfg.n_layers, size):
        yield list(range(start, min(start + size, cfg.n_layers)))


def _of_layer(
    model: HookedViT, cache: ViTActivationCache, layer: int, gradients: Float[Tensor, "batch chosen read d_model"]
) -> Float[Tensor, "batch chosen head patch"]:
    cfg, block = model.cfg, model.blocks[layer]
    if cfg.post_norm or cfg.attn_inner_norm is not None:
        z = _own(cache[f"blocks.{layer}.attn.hook_z{'_pre' if cfg.attn_inner_norm else ''}"][:, read_tokens(cfg)])
        u = pull_back(vjp(lambda mixed: _write(block, mixed), z)[1], gradients).sum(dim=2)
    else:
        g = gradients.sum(dim=2)
        u = F.linear(g if block.ls1 is None else g * block.ls1, block.attn.out.weight.T)
        u = u.unflatten(-1, (cfg.n_heads, cfg.d_head))
    v = cache[f"blocks.{layer}.attn.hook_v"][:, cfg.token_layout.n_prefix :]
    return -torch.einsum("bshd,bkhd->bkhs", v, u)


def _write(block: Block, mixed: Float[Tensor, "batch read head d_head"]) -> Float[Tensor, "batch read d_model"]:
    """From the mix of values to what is added to the stream, as `Block` does it, past its hook points."""
    z = mixed.flatten(-2)
    if block.attn.ln is not None:
        z = block.attn.ln.fused(z)
    out = F.linear(z, block.attn.out.weight, block.attn.out.bias)
    if block.post_norm:
        return block.ln1.fused(out)
    return out if block.ls1 is None else out * block.ls1


def _own(tensor: Tensor) -> Tensor:
    """Tensors of an inference-mode run cannot enter a backward pass; a copy can."""
    return tensor.clone() if tensor.is_inference() else tensor

"""Direct logit attribution: the contribution of each component to a class logit; together they are the logit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from einops import rearrange
from fancy_einsum import einsum
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache
from hooked_vit.components.block import Block
from hooked_vit.components.differential_attention import DifferentialAttention
from hooked_vit.components.norm import Norm

__all__ = ["LogitAttribution", "attribution_names", "logit_attribution", "readout_gradient", "readout_names"]

Classes = int | str | Sequence[int] | Int[Tensor, "batch"]


@dataclass(frozen=True)
class LogitAttribution:
    """Contributions of the parts of a run to a class logit, or to the difference of two, in logits.

    `constant + embed + pos_embed` and the sums of `attn_bias`, `head` and `mlp` add up to the logit; `mlp` can be
    replaced by `mlp_bias + neuron.sum(-1)`, and `head` by `source_bias + source.sum(-1)` (with a norm inside attention,
    which mixes the heads, only for all heads of a layer together).

    Attributes:
        logit: The logit, or difference, as the model computed it.
        constant: The bias of the final norm and of the head.
        embed: Patch embeddings and prefix tokens; with a norm before the first block, positions too.
        pos_embed: Positions; `None` where `embed` includes them.
        attn_bias: What attention adds that no head writes.
        head: Each head.
        mlp: Each MLP.
        mlp_bias: What each MLP adds that no neuron writes; `None` without neurons.
        neuron: Each neuron; `None` unless requested.
        source: The part of each head that comes from each token it attends to; `None` unless requested.
        source_bias: The part of each head that comes from no token: the bias of a norm inside attention, else zero.
    """

    logit: Float[Tensor, "batch"]
    constant: Float[Tensor, "batch"]
    embed: Float[Tensor, "batch"]
    pos_embed: Float[Tensor, "batch"] | None
    attn_bias: Float[Tensor, "layer batch"]
    head: Float[Tensor, "layer batch head"]
    mlp: Float[Tensor, "layer batch"]
    mlp_bias: Float[Tensor, "layer batch"] | None = None
    neuron: Float[Tensor, "layer batch neuron"] | None = None
    source: Float[Tensor, "layer batch head token"] | None = None
    source_bias: Float[Tensor, "layer batch head"] | None = None

    @property
    def total(self) -> Float[Tensor, "batch"]:
        """The sum of all parts: equals `logit` up to rounding."""
        parts = self.constant + self.embed + self.attn_bias.sum(0) + self.head.sum((0, 2)) + self.mlp.sum(0)
        return parts if self.pos_embed is None else parts + self.pos_embed

    def table(self) -> pd.DataFrame:
        """One row per image and part: `component`, `layer`, `head`, `neuron`, `token`, `value` in logits.

        Only the finest available parts, so that the values of an image sum to its logit.
        """
        parts: dict[str, tuple[Tensor | None, tuple[str, ...]]] = {
            "constant": (self.constant, ("image",)),
            "embed": (self.embed, ("image",)),
            "pos_embed": (self.pos_embed, ("image",)),
            "attn_bias": (self.attn_bias, ("layer", "image")),
        }
        if self.source is None:
            parts["head"] = self.head, ("layer", "image", "head")
        else:
            parts["source"] = self.source, ("layer", "image", "head", "token")
            parts["source_bias"] = self.source_bias, ("layer", "image", "head")
        if self.neuron is None:
            parts["mlp"] = self.mlp, ("layer", "image")
        else:
            parts["neuron"] = self.neuron, ("layer", "image", "neuron")
            parts["mlp_bias"] = self.mlp_bias, ("layer", "image")
        tables = []
        for component, (values, axes) in parts.items():
            if values is not None:
                index = pd.MultiIndex.from_product([range(n) for n in values.shape], names=axes)
                rows = index.to_frame(index=False)
                tables.append(rows.assign(component=component, value=values.flatten().cpu().double().numpy()))
        columns = ["image", "component", "layer", "head", "neuron", "token", "value"]
        index_types = dict.fromkeys(("image", "layer", "head", "neuron", "token"), "Int64")
        return pd.concat(tables, ignore_index=True).reindex(columns=columns).astype(index_types)


def attribution_names(cfg: HookedViTConfig, *, neurons: bool = False, sources: bool = False) -> list[str]:
    """The hook points that `logit_attribution` reads: a `names_filter` for `run_with_cache`.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> attribution_names(model.cfg)[:4]
    ['hook_logits', 'hook_embed', 'hook_pos_embed', 'ln_final.hook_scale']
    """
    start = ["hook_tokens"] if cfg.pre_norm else ["hook_embed", "hook_pos_embed"]
    logits, *scales = readout_names(cfg)
    names = [logits, *start, *scales]
    points = ["attn.hook_z", "hook_mlp_out"]
    points += [f"{norm}.hook_scale" for norm in cfg.write_norms or ()]
    points += ["mlp.hook_post"] if neurons else []
    points += ["attn.hook_pattern", "attn.hook_v"] if sources else []
    points += ["attn.ln.hook_scale"] if sources and cfg.attn_inner_norm else []
    points += ["attn.head_ln.hook_scale"] if sources and cfg.differential else []
    points += ["attn.hook_gate"] if sources and cfg.gated_attn else []
    return names + [f"blocks.{layer}.{point}" for layer in range(cfg.n_layers) for point in points]


def readout_names(cfg: HookedViTConfig) -> list[str]:
    """The hook points that `readout_gradient` reads.

    >>> readout_names(HookedViT.from_pretrained("emoji-vit").cfg)
    ['hook_logits', 'ln_final.hook_scale']
    """
    names = ["hook_logits"]
    names += ["hook_logits_cls", "hook_logits_dist"] if cfg.pool == "cls_and_dist" else []
    names += ["ln_final.hook_scale"] if cfg.final_norm else []
    return names + (["ln_pooled.hook_scale"] if cfg.pooled_norm else [])


@torch.no_grad()
def readout_gradient(
    model: HookedViT, cache: ViTActivationCache, classes: Classes, n_tokens: int
) -> Float[Tensor, "batch read d_model"]:
    """The gradient of a class logit at the last residual stream, with the scale of the final norm frozen.

    What is added to the stream at these tokens contributes its dot product with the gradient to the logit directly (see
    `logit_attribution`).

    Args:
        model: The model.
        cache: Holds the hook points of `readout_names`, with a batch axis.
        classes: The class, by index or name, or one index per image.
        n_tokens: The number of tokens of the stream.

    Returns:
        For the first tokens, up to the last one that the head reads.

    Raises:
        ValueError: If the head does not read the stream linearly (maximum or attention pooling), the cache lacks a
            hook point, or a class does not exist.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=readout_names(model.cfg))
    >>> readout_gradient(model, cache, "dog", n_tokens=65).shape
    torch.Size([2, 1, 128])
    """
    model.require_classes()
    model.require_linear_readout()
    cache.require(readout_names(model.cfg), how="readout_names(model.cfg)")
    index = _index(model, classes, len(cache["hook_logits"]))
    return _readout(model, cache, index, n_tokens)[0]


@torch.no_grad()
def logit_attribution(
    model: HookedViT,
    cache: ViTActivationCache,
    classes: Classes,
    against: Classes | None = None,
    *,
    neurons: bool = False,
    sources: bool = False,
) -> LogitAttribution:
    """Decompose a class logit into the contributions of all components (Elhage et al. 2021, direct paths).

    The head reads the last residual stream x as `norm(x) W_U + b_U`. With the norm's scale s frozen at its value in
    the run, that is linear in x, and so in each of the parts whose sum is x:

        logit_c = constant + sum over parts of part · g,    g = (I - 11ᵀ/d) diag(weight) W_U[c] / s

    at the CLS token, or for the mean over the pooled tokens; a head on CLS and the mean of the patches has a g for
    each. (The class-space projections of `analyses.projection` use each part's own scale instead, and do not sum to the
    logit.)

    Args:
        model: The model.
        cache: Holds the hook points of `attribution_names`, with a batch axis.
        classes: The class, by index or name, or one index per image.
        against: Another class, for the difference `classes - against`.
        neurons: Whether to split MLPs into neurons.
        sources: Whether to split heads by the token that they read.

    Raises:
        ValueError: If the head does not read the stream linearly (maximum or attention pooling), the cache lacks a
            hook point, or a class does not exist.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=attribution_names(model.cfg))
    >>> parts = logit_attribution(model, cache, "dog", against="cat")
    >>> parts.head.shape, torch.allclose(parts.total, parts.logit, atol=1e-4)
    (torch.Size([8, 2, 4]), True)
    """
    cfg = model.cfg
    _check(model, cache, neurons, sources)
    n_images = len(cache["hook_logits"])
    start = cache["hook_tokens" if cfg.pre_norm else "hook_embed"]
    gradient, constant, logit = _readout(model, cache, _index(model, classes, n_images), start.shape[1])
    if against is not None:
        subtracted = _readout(model, cache, _index(model, against, n_images), start.shape[1])
        gradient, constant, logit = gradient - subtracted[0], constant - subtracted[1], logit - subtracted[2]
    read = slice(0, gradient.shape[1])
    parts: dict[str, list[Tensor]] = {}
    for layer, block in enumerate(model.blocks):
        for name, values in _block_parts(block, cache, layer, gradient, read, neurons, sources).items():
            parts.setdefault(name, []).append(values)
    return LogitAttribution(
        logit=logit,
        constant=constant,
        embed=_dot(start[:, read], gradient),
        pos_embed=None if cfg.pre_norm else _dot(cache["hook_pos_embed"][:, read], gradient),
        **{name: torch.stack(layers) for name, layers in parts.items()},
    )


def _readout(model: HookedViT, cache: ViTActivationCache, classes: Tensor, n_tokens: int) -> tuple[Tensor, ...]:
    """The logit's gradient at the tokens that the head reads, with the scale frozen; the constant; the logit."""
    cfg, norm = model.cfg, model.ln_final
    gradients, constant, logit = [], torch.zeros((), device=classes.device), torch.zeros((), device=classes.device)
    for W, b, name, read in _heads(model, n_tokens):
        direction = W.T[classes][:, None]
        if model.ln_pooled is not None:
            shift = model.ln_pooled.bias
            constant = constant + (0 if shift is None else direction[:, 0] @ shift)
            direction = _back_through(model.ln_pooled, direction, cache["ln_pooled.hook_scale"])
        constant = constant + (b[classes] + (0 if norm is None or norm.bias is None else direction[:, 0] @ norm.bias))
        logit = logit + (cache[name].gather(-1, classes[:, None])[:, 0] if name else 0)
        if norm is not None:
            scale = cache["ln_final.hook_scale"]
            direction = _back_through(norm, direction, scale if cfg.norm_after_pool else scale[:, read])
        n_read = len(range(*read.indices(n_tokens)))
        padding = (0, 0, read.start, n_tokens - read.stop)
        gradients.append(F.pad(direction.expand(-1, n_read, -1) / n_read, padding))
    n_heads = 1 if model.head_dist is None else 2
    total = sum(gradients[1:], gradients[0]) / n_heads
    last = n_tokens if cfg.read_tokens.stop is None else cfg.read_tokens.stop
    return total[:, :last], constant / n_heads, logit / n_heads


def _heads(model: HookedViT, n_tokens: int) -> list[tuple[Tensor, Tensor, str | None, slice]]:
    """The linear maps whose sum, or in a distilled model mean, is the logit: W, b, hook point, tokens (averaged)."""
    cfg, head, patches = model.cfg, model.require_classes(), slice(model.token_layout.n_prefix, n_tokens)
    if model.head_dist is not None:
        both = enumerate(((head, "hook_logits_cls"), (model.head_dist, "hook_logits_dist")))
        return [(one.weight.T, one.bias, name, slice(token, token + 1)) for token, (one, name) in both]
    if cfg.pool == "cls_and_mean":
        W_cls, W_mean = head.weight.T.chunk(2)
        return [
            (W_cls, model.b_U, "hook_logits", slice(0, 1)),
            (W_mean, torch.zeros_like(model.b_U), None, patches),
        ]
    every = slice(0, n_tokens) if cfg.pool_includes_prefix else patches
    return [(model.W_U, model.b_U, "hook_logits", slice(0, 1) if cfg.pool == "cls" else every)]


def _block_parts(
    block: Block, cache: ViTActivationCache, layer: int, gradient: Tensor, read: slice, neurons: bool, sources: bool
) -> dict[str, Tensor]:
    prefix, attn = f"blocks.{layer}.", block.attn
    names = cache.model.cfg.write_norms or (None, None)
    scales = [None if name is None else cache[f"{prefix}{name}.hook_scale"][:, read] for name in names]
    attn_gradient, mlp_gradient = (
        _back_to_sublayer(gradient, norm, layer_scale, scale)
        for norm, layer_scale, scale in zip(block.write_norms, (block.ls1, block.mlp_ls), scales, strict=True)
    )
    z = cache[f"{prefix}attn.hook_z"][:, read]
    z_gradient = einsum("batch token d_model, head d_head d_model -> batch token head d_head", attn_gradient, attn.W_O)
    parts = {
        "attn_bias": _dot(block.attn_out_bias(scales[0]).expand_as(gradient), gradient),
        "head": (z * z_gradient).sum(dim=(1, 3)),
        "mlp": _dot(cache[f"{prefix}hook_mlp_out"][:, read], gradient),
    }
    if neurons:
        parts["mlp_bias"] = _dot(block.mlp_out_bias(scales[1]).expand_as(gradient), gradient)
        parts["neuron"] = (cache[f"{prefix}mlp.hook_post"][:, read] * (mlp_gradient @ block.mlp.W_out.T)).sum(dim=1)
    if sources:
        gate = cache[f"{prefix}attn.hook_gate"][:, read] if attn.gate is not None else 1
        mix_gradient, bias = z_gradient * gate, torch.zeros_like(parts["head"])
        if attn.ln is not None:
            flat = rearrange(mix_gradient, "batch token head d_head -> batch token (head d_head)")
            scale = cache[f"{prefix}attn.ln.hook_scale"][:, read]
            if attn.ln.bias is not None:
                bias = (attn.ln.bias.view(attn.n_heads, attn.d_head) * mix_gradient).sum(dim=(1, 3))
            mix_gradient = _back_through(attn.ln, flat, scale).view_as(z_gradient)
        if isinstance(attn, DifferentialAttention):
            scale = cache[f"{prefix}attn.head_ln.hook_scale"][:, read]
            mix_gradient = _back_through(attn.head_ln, mix_gradient * (1 - attn.lambda_init), scale)
        pattern, v = cache[f"{prefix}attn.hook_pattern"][:, :, read], cache[f"{prefix}attn.hook_v"]
        v = attn.for_query_heads(v, dim=2)
        v_gradient = einsum(
            "batch head query key, batch query head d_head -> batch key head d_head", pattern, mix_gradient
        )
        parts["source"] = rearrange((v * v_gradient).sum(dim=-1), "batch key head -> batch head key")
        parts["source_bias"] = bias
    return parts


def _back_to_sublayer(gradient: Tensor, norm: Norm | None, layer_scale: Tensor | None, scale: Tensor | None) -> Tensor:
    """From the gradient at a sub-layer's addition to the stream to the gradient at the output of W_O or W_out."""
    if norm is not None and scale is not None:
        return _back_through(norm, gradient, scale)
    return gradient if layer_scale is None else gradient * layer_scale


def _back_through(norm: Norm, gradient: Tensor, scale: Tensor) -> Tensor:
    """From the gradient after a norm to the gradient before it, with the norm's scale frozen."""
    weighted = gradient if norm.weight is None else gradient * norm.weight
    return norm.centre(weighted) / scale


def _dot(values: Tensor, gradient: Tensor) -> Tensor:
    return (values * gradient).sum(dim=(1, 2))


def _index(model: HookedViT, classes: Any, n_images: int) -> Tensor:
    return model.class_indices(classes if isinstance(classes, int | str) else torch.as_tensor(classes), n_images)


def _check(model: HookedViT, cache: ViTActivationCache, neurons: bool, sources: bool) -> None:
    model.require_classes()
    model.require_linear_readout()
    cache.require(
        attribution_names(model.cfg, neurons=neurons, sources=sources),
        how=f"attribution_names(model.cfg, neurons={neurons}, sources={sources})",
    )
    if not cache.has_batch_dim:
        raise ValueError("expected a cache with a batch axis: do not pass remove_batch_dim")
    start, z = cache["hook_tokens" if model.cfg.pre_norm else "hook_embed"], cache["z", 0]
    if start.shape[1] != z.shape[1]:
        raise ValueError(f"{z.shape[1]} of {start.shape[1]} tokens were kept: attribute a run without token_mask")

"""Projection of the residual stream, and of the outputs of sub-layers and heads, onto the classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache
from hooked_vit.absent_points import refuse_absent
from hooked_vit.class_space import describe_indices, require_several_classes

__all__ = ["STREAMS", "Lens", "Projection", "Stream", "class_ranks", "project", "stream_names"]

Stream = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "result"]
STREAMS: tuple[Stream, ...] = get_args(Stream)

# Logits held at a time: on a CPU, about as many as stay in its cache until they have been compared.
_LOGITS_ON_CPU, _LOGITS_ON_GPU = 2**20, 2**26
_MIN_VECTORS = 256  # with fewer, reading the class embeddings costs more than the product


@runtime_checkable
class Lens(Protocol):
    """What a stream passes before it is projected: a map to the last residual stream, such as `TunedLens`."""

    def check(self, model: HookedViT) -> None:
        """Raise a `ValueError` if the lens does not fit the model."""
        ...

    def translate(
        self, vectors: Float[Tensor, "*axes d_model"], stream: str, layer: int
    ) -> Float[Tensor, "*axes d_model"]:
        """Vectors of a stream at a block, as they would stand in the last residual stream."""
        ...


@dataclass(frozen=True)
class Projection:
    """A stream in class space, for each layer, image and token (for `result`, also each head).

    Attributes:
        stream: The projected stream.
        layers: The block of each entry of the layer axis.
        n_classes: How many classes were ranked.
        rank: How many classes have a logit strictly greater than the label's, 0 to `n_classes - 1`; `None` without
            labels.
        label_logit: The label's logit; `None` without labels.
        top_classes: The classes of the `k` largest logits, largest first.
        top_logits: Those logits.
    """

    stream: Stream
    layers: tuple[int, ...]
    n_classes: int
    rank: Int[Tensor, "layer batch token *head"] | None
    label_logit: Float[Tensor, "layer batch token *head"] | None
    top_classes: Int[Tensor, "layer batch token *head k"]
    top_logits: Float[Tensor, "layer batch token *head k"]


def class_ranks(class_logits: Float[Tensor, "*axes n_classes"], labels: Int[Tensor, "*axes"]) -> Int[Tensor, "*axes"]:
    """The number of classes whose logit is strictly greater than the label's: 0 where the label is on top.

    Args:
        class_logits: Any logits; they are not changed.
        labels: The class index of each row of logits.

    Raises:
        ValueError: If there is not exactly one class index for each row of logits, or there is only one class.

    >>> class_ranks(torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]]), torch.tensor([2, 1]))
    tensor([1, 0])
    """
    require_several_classes(class_logits.shape[-1], "the rank of a class")
    if labels.shape != class_logits.shape[:-1]:
        raise ValueError(
            f"labels must be of shape {tuple(class_logits.shape[:-1])}, an index for each row of the logits "
            f"{tuple(class_logits.shape)}, got {tuple(labels.shape)}"
        )
    return class_logits.gt(class_logits.gather(-1, labels[..., None])).count_nonzero(dim=-1)


def stream_names(cfg: HookedViTConfig, stream: Stream, layers: Sequence[int] | None = None) -> list[str]:
    """The hook points that `project` reads for a stream: a `names_filter` for `run_with_cache`.

    The results of heads are computed from `hook_z` when they are needed: caching them takes `n_heads` times a stream.

    Raises:
        ValueError: If the stream or a layer does not exist.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> stream_names(model.cfg, "attn_out", layers=[0, -1])
    ['blocks.0.hook_attn_out', 'blocks.7.hook_attn_out']
    """
    if stream not in STREAMS:
        raise ValueError(f"unknown stream {stream!r}: expected one of {', '.join(map(repr, STREAMS))}")
    refuse_absent([f"hook_{stream}"], cfg)
    if stream != "result":
        return [f"blocks.{layer}.hook_{stream}" for layer in _layers(cfg, layers)]
    points = ("attn.hook_z", *(f"{norm}.hook_scale" for norm in (cfg.write_norms or ())[:1]))
    return [f"blocks.{layer}.{point}" for layer in _layers(cfg, layers) for point in points]


@torch.no_grad()
def project(
    model: HookedViT,
    cache: ViTActivationCache,
    stream: Stream = "resid_post",
    labels: Int[Tensor, "batch"] | None = None,
    k: int = 5,
    *,
    normalise: bool = True,
    bias: bool = True,
    sublayer_norm: bool = False,
    layers: Sequence[int] | None = None,
    chunk_size: int | None = None,
    lens: Lens | None = None,
) -> Projection:
    """Project a stream at every layer and token onto the classes: `p = norm(x) W_U + b_U`, by `model.class_logits`.

    A model with a single logit is projected without labels: `top_logits` is then the logit, and it has no rank.

    Only the label's logit, its rank and the `k` largest logits are kept: no more than `chunk_size` rows of `n_classes`
    logits exist at a time.

    Args:
        model: The model that the cache comes from.
        cache: Holds the hook points of `stream_names`; for `result`, either those or `hook_result`. A cache without a
            batch axis is a batch of one.
        stream: `resid_pre`, `resid_mid`, `resid_post`, `attn_out`, `mlp_out`, or `result` for each head's share of
            `attn_out`, with a head axis after the token axis.
        labels: The class of each image.
        k: How many top classes to keep; may be 0.
        normalise: Whether to apply the final norm, with each vector's own statistics.
        bias: Whether to add `b_U`.
        sublayer_norm: Whether `attn_out` and `mlp_out` pass their block's `ln1` and `ln2` first, as in the published
            figures of the model with global average pooling.
        layers: The blocks to project, all by default; negative ones count from the end.
        chunk_size: Vectors projected at a time; the default is chosen for speed.
        lens: A map to the last residual stream that vectors pass first, such as a `TunedLens`; by default they are
            projected as they are, as in the paper.

    Raises:
        ValueError: If the model has no classes, or with labels a single one; the cache lacks a hook point; the lens
            was made for another model; or an argument is invalid.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter="resid_post")
    >>> p = project(model, cache, labels=torch.tensor([3, 14]), k=2)
    >>> p.rank.shape, p.top_classes.shape
    (torch.Size([8, 2, 65]), torch.Size([8, 2, 65, 2]))
    """
    chosen, n_classes, device = _layers(model.cfg, layers), model.cfg.n_classes, model.cfg.device
    _check(model, cache, stream, k, sublayer_norm, chosen, chunk_size)
    if labels is not None:
        model.require_several_classes("the rank of a class")
    if lens is not None:
        lens.check(model)
        if sublayer_norm:
            raise ValueError("sublayer_norm applies to direct projection: a lens maps what is added to the stream")
    if chunk_size is None:
        chunk_size = max(_MIN_VECTORS, (_LOGITS_ON_CPU if device.type == "cpu" else _LOGITS_ON_GPU) // n_classes)
    shape, tops, ranks = torch.Size(), [], []
    for layer in chosen:
        vectors = _vectors(model, cache, stream, layer, sublayer_norm)
        shape = vectors.shape[:-1]
        row_labels = None if labels is None else _labels_of_rows(labels, shape, n_classes).to(device)
        if lens is not None:
            vectors = lens.translate(vectors, stream, layer)
        rows = vectors.reshape(-1, model.cfg.d_model)
        for start in range(0, len(rows), chunk_size):
            chunk = slice(start, start + chunk_size)
            class_logits = model.class_logits(rows[chunk].to(device), normalise, bias)
            # a maximum costs half as much as topk
            tops.append(class_logits.max(-1, keepdim=True) if k == 1 else class_logits.topk(k))
            if row_labels is not None:
                ranks.append(_rank_in_place(class_logits, row_labels[chunk]))

    def joined(parts: Sequence[tuple[Tensor, Tensor]], which: int) -> Tensor:
        return torch.cat([part[which] for part in parts]).reshape(len(chosen), *shape, *parts[0][which].shape[1:])

    return Projection(
        stream=stream,
        layers=chosen,
        n_classes=n_classes,
        rank=joined(ranks, 1) if ranks else None,
        label_logit=joined(ranks, 0) if ranks else None,
        top_classes=joined(tops, 1),
        top_logits=joined(tops, 0),
    )


def _rank_in_place(class_logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The labels' logits and ranks. The logits are overwritten: a separate mask would not fit the processor's cache."""
    label_logit = class_logits.gather(-1, labels[:, None])
    # summed as float32, the fastest type that counts beyond bfloat16's 256
    rank = class_logits.gt_(label_logit).sum(dim=-1, dtype=torch.float32).long()
    return label_logit[:, 0], rank


def _vectors(model: HookedViT, cache: ViTActivationCache, stream: Stream, layer: int, sublayer_norm: bool) -> Tensor:
    """[batch token d_model], or [batch token head d_model]."""
    block, prefix = model.blocks[layer], f"blocks.{layer}."
    if stream != "result":
        vectors = cache[f"{prefix}hook_{stream}"]
        if sublayer_norm:
            vectors = (block.ln1 if stream == "attn_out" else block.mlp_ln).fused(vectors)
    elif f"{prefix}attn.hook_result" in cache.cache_dict:
        vectors = cache[f"{prefix}attn.hook_result"]
    else:
        names = model.cfg.write_norms
        scale = None if names is None else cache[f"{prefix}{names[0]}.hook_scale"]
        vectors = block.head_results(cache[f"{prefix}attn.hook_z"], scale)
    return vectors if cache.has_batch_dim else vectors[None]


def _layers(cfg: HookedViTConfig, layers: Sequence[int] | None) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(cfg.n_layers))
    outside = [layer for layer in layers if not -cfg.n_layers <= layer < cfg.n_layers]
    if outside or not layers:
        raise ValueError(f"expected layers from 0 to {cfg.n_layers - 1} (or negative from the end), got {list(layers)}")
    return tuple(layer % cfg.n_layers for layer in layers)


def _check(
    model: HookedViT,
    cache: ViTActivationCache,
    stream: Stream,
    k: int,
    sublayer_norm: bool,
    layers: tuple[int, ...],
    chunk_size: int | None,
) -> None:
    model.require_classes()
    needed, held = stream_names(model.cfg, stream, layers), cache.cache_dict
    if stream == "result":
        needed = [name for name in needed if f"{name.rsplit('.', 2)[0]}.attn.hook_result" not in held]
    cache.require(needed, how=f"stream_names(model.cfg, '{stream}')", reader=f"projecting '{stream}'")
    if not 0 <= k <= model.cfg.n_classes:
        raise ValueError(f"k must be from 0 to the number of classes, {model.cfg.n_classes}, got {k}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if sublayer_norm and stream not in ("attn_out", "mlp_out"):
        raise ValueError(f"sublayer_norm applies to the sub-layer outputs 'attn_out' and 'mlp_out', not to '{stream}'")
    if sublayer_norm and model.cfg.write_norms is not None:
        raise ValueError("sublayer_norm applies to pre-norm blocks: in a post-norm block, outputs have passed the norm")


def _labels_of_rows(labels: Tensor, shape: Sequence[int], n_classes: int) -> Tensor:
    """Each image's label, once for each of its vectors."""
    if not isinstance(labels, Tensor):
        raise ValueError(
            f"labels must be a tensor with a class index for each image, [{shape[0]}], got {labels!r}: "
            "`model.class_indices(name_or_index, batch)` makes one of a single class"
        )
    if labels.shape != (shape[0],):
        raise ValueError(f"labels must be a class index for each image, [{shape[0]}], got shape {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels must be class indices from 0 to {n_classes - 1}, got {describe_indices(labels)}")
    return repeat(labels, "batch -> (batch row)", row=prod(shape[1:]))

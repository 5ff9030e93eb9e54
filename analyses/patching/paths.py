"""Path patching: the effect of one component on a metric through chosen readers of the residual stream only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.patching.metrics import Metric, checked_metric, metric_values
from analyses.patching.result import Direction
from analyses.patching.runs import base_and_source, rows_within
from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache
from hooked_vit.absent_points import refuse_absent
from hooked_vit.interventions.selection import select_tokens

__all__ = ["PathResult", "Receiver", "Sender", "all_receivers", "all_senders", "path_patching"]

ReceiverKind = Literal["q", "k", "v", "head", "mlp", "logits"]
Sender = tuple[Any, ...]
"""`("head", layer, head)`, `("attn", layer)`, `("mlp", layer)` or `("embed",)`."""
Receiver = tuple[Any, ...]
"""`("q", layer, head)`, `("k", …)`, `("v", …)`, `("head", …)` for all three, `("mlp", layer)`, `("logits",)`."""

_INPUTS = {"q": ("q",), "k": ("k",), "v": ("v",), "head": ("q", "k", "v")}


@dataclass(frozen=True)
class PathResult:
    """A metric after patching what each sender writes, as seen by the receivers only.

    Attributes:
        direction: `denoising` or `noising`.
        senders: The patched components.
        receivers: The readers of the stream that see the patch.
        values: The metric in its own unit; per image if these numbers were kept.
        base: The metric of the run that was patched.
        source: The metric of the run that patches came from.
    """

    direction: Direction
    senders: tuple[Sender, ...]
    receivers: tuple[Receiver, ...]
    values: Float[Tensor, "sender *image"]
    base: Float[Tensor, "*image"]
    source: Float[Tensor, "*image"]

    @property
    def effect(self) -> Float[Tensor, "sender *image"]:
        """`values - base`: how far each sender moves the metric through the receivers."""
        return self.values - self.base

    @property
    def recovered(self) -> Float[Tensor, "sender *image"]:
        """`(values - base) / (source - base)`: 1 where the path carries the whole difference."""
        return self.effect / (self.source - self.base)

    def table(self) -> pd.DataFrame:
        """One row per sender (and image): `sender`, `layer`, `head`, `value`, `effect`, `recovered`."""
        rows: list[dict[str, Any]] = []
        for i, (kind, *at) in enumerate(self.senders):
            row = {"sender": kind, "layer": at[0] if at else None, "head": at[1] if len(at) > 1 else None}
            numbers = {"value": self.values, "effect": self.effect, "recovered": self.recovered}
            per_image = {name: values[i].flatten().tolist() for name, values in numbers.items()}
            for image in range(len(per_image["value"])):
                image_row = {"image": image} if self.base.ndim else {}
                rows.append({**row, **image_row, **{name: values[image] for name, values in per_image.items()}})
        table = pd.DataFrame(rows).assign(direction=self.direction)
        return table.astype({"layer": "Int64", "head": "Int64"})


def all_senders(cfg: HookedViTConfig) -> list[Sender]:
    """Every head and every MLP.

    >>> all_senders(HookedViTConfig(1, 12, 2, 20, 7, (16, 24), (8, 8)))
    [('head', 0, 0), ('head', 0, 1), ('mlp', 0)]
    """
    senders: list[Sender] = []
    for layer in range(cfg.n_layers):
        senders += [("head", layer, head) for head in range(cfg.n_heads)]
        senders.append(("mlp", layer))
    return senders


def all_receivers(cfg: HookedViTConfig) -> list[Receiver]:
    """Every reader of the stream: all heads, all MLPs, and the classification head.

    Through all of them, a sender has its total effect.
    """
    receivers: list[Receiver] = []
    for layer in range(cfg.n_layers):
        receivers += [("head", layer, head) for head in range(cfg.n_heads)]
        receivers.append(("mlp", layer))
    return [*receivers, ("logits",)]


@torch.no_grad()
def path_patching(
    model: HookedViT,
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Float[Tensor, "batch channel height width"],
    metric: Metric,
    receivers: Sequence[Receiver],
    senders: Sequence[Sender] | None = None,
    *,
    tokens: Any = None,
    direction: Direction = "denoising",
    per_image: bool = False,
    memory_limit: float | int | None = None,
) -> PathResult:
    """Patch what a component writes, as seen by only some readers of the stream (Goldowsky-Dill et al. 2023).

    With Δ the difference between the two runs in what a sender adds to the stream, each receiver after the sender reads
    the stream + Δ, every other component reads the stream unchanged, and the rest is computed from what the receivers
    write. So `receivers=[("logits",)]` gives direct effects; `all_receivers(model.cfg)` gives total effects, exactly
    those of `activation_patching`; and `("q", 5, 2)` gives the effect through the queries of head 2 in block 5. If a
    sender's receivers are in one layer, this is path patching as in Wang et al. (2022), with all other components
    frozen.

    Args:
        model: The model, without hooks.
        clean: As for `activation_patching`.
        corrupt: As above.
        metric: As above.
        receivers: `("q", layer, head)`, `("k", …)`, `("v", …)`, `("head", …)` for all three, `("mlp", layer)`,
            `("logits",)`. Where query heads share keys and values, `"k"` and `"v"` number the fewer heads, and
            `"head"` needs all query heads that share.
        senders: `("head", layer, head)`, `("attn", layer)` for all heads, `("mlp", layer)`, `("embed",)` for the
            stream's start; by default every head and every MLP.
        tokens: The tokens whose Δ is patched: indices, a slice, a group, or a mask; all by default.
        direction: `denoising` (the clean run's Δ into the corrupt run) or `noising`.
        per_image: Whether `metric` returns one number per image, all of which are kept.
        memory_limit: Bytes that the patched runs may take at a time.

    Raises:
        ValueError: As `activation_patching`; if a sender or receiver does not exist, or no receiver comes after a
            sender.

    >>> from analyses.patching import logit_difference
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> images = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    >>> direct = path_patching(model, *images, logit_difference(3, against=14), receivers=[("logits",)])
    >>> direct.table()["sender"].value_counts().to_dict()
    {'head': 32, 'mlp': 8}
    """
    images = base_and_source(model, clean, corrupt, direction)
    sending = tuple(all_senders(model.cfg) if senders is None else senders)
    receiving = tuple(dict.fromkeys(receivers))
    _check_components(model.cfg, sending, receiving)
    refuse_absent(["blocks.0.attn.hook_z"], model.cfg)
    names = ["hook_tokens", *model.hook_names(["resid_pre", "resid_post", "z", "attn_out", "mlp_out"])]
    (base_logits, base), (source_logits, source) = (
        model.run_with_cache(run_images, names_filter=names) for run_images in images
    )
    ends = [checked_metric(metric, logits, per_image) for logits in (base_logits, source_logits)]
    n_tokens, n_images = base["resid_pre", 0].shape[1], len(clean)
    at = select_tokens("any" if tokens is None else tokens, model.cfg.token_layout, n_tokens, n_images=n_images)
    at = at.to(clean.device)
    at = (at if at.ndim == 2 else at[None])[..., None]
    n_rows, size = rows_within(model, "pattern", n_tokens, memory_limit), (clean.shape[2], clean.shape[3])
    n_senders, values = max(1, n_rows // n_images), []
    for first in range(0, len(sending), n_senders):
        some = sending[first : first + n_senders]
        written = torch.cat([_written(model, base, source, sender) * at for sender in some])
        logits = []
        for start in range(0, n_images, n_rows):
            part = torch.arange(start, min(start + n_rows, n_images), device=clean.device)
            rows = (torch.arange(len(some), device=clean.device)[:, None] * n_images + part).flatten()
            logits.append(
                _run(model, base, part.repeat(len(some)), written[rows], some, receiving, size).unflatten(
                    0, (len(some), -1)
                )
            )
        values.append(metric_values(metric, torch.cat(logits, dim=1), per_image))
    return PathResult(direction, sending, receiving, torch.cat(values), *ends)


def _written(model: HookedViT, base: ViTActivationCache, source: ViTActivationCache, sender: Sender) -> Tensor:
    """The difference between the two runs in what a component adds to the stream: [batch token d_model]."""
    kind, *at = sender
    if kind == "embed":
        return source["hook_tokens"] - base["hook_tokens"]
    if kind != "head":
        name = f"blocks.{at[0]}.hook_{kind}_out"
        return source[name] - base[name]
    layer, head = at
    z = base["z", layer].clone()
    z[:, :, head] = source["z", layer][:, :, head]
    # computed from what the block writes, since the heads' contributions do not add up after a post-norm
    return model.blocks[layer].write_attn(z) - base["attn_out", layer]


def _step(kind: str, at: Sequence[int], cfg: HookedViTConfig) -> int:
    """When a component reads or writes: a block's heads at step 2 * layer, its MLP at the next, or in a parallel block
    at the same step, so that the two do not feed each other."""
    if kind == "embed":
        return -1
    if kind == "logits":
        return 2 * cfg.n_layers
    return 2 * at[0] + (kind == "mlp" and not cfg.parallel_attn_mlp)


def _run(
    model: HookedViT,
    base: ViTActivationCache,
    images: Tensor,
    written: Tensor,
    senders: Sequence[Sender],
    receivers: Sequence[Receiver],
    image_size: tuple[int, int],
) -> Tensor:
    """Logits where every row's receivers read the stream plus what the row's sender has `written`."""
    n_layers = model.cfg.n_layers
    n_images = len(images) // len(senders)
    steps = torch.tensor([_step(kind, at, model.cfg) for kind, *at in senders], device=images.device)
    steps = steps.repeat_interleave(n_images)
    hooks: list[Any] = []
    first = n_layers
    for (point, step), heads in _by_hook_point(model.cfg, receivers).items():
        comes_after = (steps < step)[:, None, None]
        first = min(first, step // 2)
        add = (written * comes_after)[:, :, None] if point.endswith("_input") else written * comes_after
        hooks.append((point, partial(_add, what=add, heads=heads)))
    if ("logits",) in receivers:
        # what the head reads, separately: the stream after the last block has no other reader
        hooks.append((f"blocks.{n_layers - 1}.hook_resid_post", partial(_add, what=written, heads=None)))
    if first == n_layers:
        stream = base["resid_post", n_layers - 1][images] + written
        return model(stream, start_at_layer=n_layers, image_size=image_size)
    stream = base["resid_pre", first][images]
    return model.run_with_hooks(stream, fwd_hooks=hooks, start_at_layer=first, image_size=image_size)


def _by_hook_point(cfg: HookedViTConfig, receivers: Sequence[Receiver]) -> Mapping[tuple[str, int], list[int] | None]:
    """The hook points at which receivers read and the steps at which they do, with the heads that are receivers."""
    points: dict[tuple[str, int], list[int] | None] = {}
    for kind, *at in receivers:
        if kind == "mlp":
            points[f"blocks.{at[0]}.hook_mlp_in", _step(kind, at, cfg)] = None
        elif kind != "logits":
            for read in _INPUTS[kind]:
                heads = points.setdefault((f"blocks.{at[0]}.hook_{read}_input", 2 * at[0]), [])
                assert heads is not None
                shared = kind == "head" and read != "q"
                heads.append(at[1] // _n_sharing(cfg, at[0]) if shared else at[1])
    return points


def _add(activation: Tensor, hook: Any, what: Tensor, heads: list[int] | None) -> Tensor:
    if heads is None:
        return activation + what
    reads: Bool[Tensor, "head 1"] = torch.zeros(activation.shape[2], 1, dtype=torch.bool, device=activation.device)
    reads[heads] = True
    return torch.where(reads, activation + what, activation)


def _n_sharing(cfg: HookedViTConfig, layer: int) -> int:
    """How many query heads share a key and value head."""
    return cfg.n_heads // cfg.n_key_value_heads_at(layer)


def _check_shared_heads(cfg: HookedViTConfig, receivers: Sequence[Any]) -> None:
    """Raise ValueError if keys and values would reach heads that are no receivers, or a gate is left out."""
    if cfg.gated_attn and any(kind in ("head", "q", "k", "v") for kind, *_ in receivers):
        raise ValueError(
            "heads of a gated attention cannot be receivers: its gate reads the stream too, which the queries, keys "
            "and values that are patched leave out. MLPs and ('logits',) can"
        )
    for _, layer, head in [receiver for receiver in receivers if receiver[0] == "head"]:
        n_sharing = _n_sharing(cfg, layer)
        group = range(head // n_sharing * n_sharing, (head // n_sharing + 1) * n_sharing)
        missing = [other for other in group if ("head", layer, other) not in receivers]
        if missing:
            raise ValueError(
                f"heads {group.start} to {group.stop - 1} of layer {layer} share their keys and values, which reach "
                f"head {missing[0]} too: name all of them as receivers, or ('q', {layer}, {head})"
            )


def _check_components(cfg: HookedViTConfig, senders: Sequence[Any], receivers: Sequence[Any]) -> None:
    lengths = {"head": 2, "q": 2, "k": 2, "v": 2, "attn": 1, "mlp": 1, "embed": 0, "logits": 0}
    known = {"sender": ("head", "attn", "mlp", "embed"), "receiver": get_args(ReceiverKind)}
    for what, components in (("sender", senders), ("receiver", receivers)):
        if not components:
            raise ValueError(f"expected at least one {what}, got none")
        for component in components:
            if not isinstance(component, tuple) or not component or component[0] not in known[what]:
                raise ValueError(f"expected a {what} that begins with one of {known[what]}, got {component!r}")
            kind, *at = component
            if len(at) != lengths[kind]:
                form = ", ".join([repr(kind), *("layer", "head")[: lengths[kind]]])
                raise ValueError(f"expected a {what} as ({form}), got {component!r}")
            heads = cfg.n_key_value_heads_at(at[0]) if kind in ("k", "v") and 0 <= at[0] < cfg.n_layers else cfg.n_heads
            for (axis, size), index in zip((("layer", cfg.n_layers), ("head", heads)), at, strict=False):
                if not 0 <= index < size:
                    raise ValueError(f"no {axis} {index} for the {what} {component!r}: the model has 0 to {size - 1}")
    _check_shared_heads(cfg, receivers)
    last = max(_step(kind, at, cfg) for kind, *at in receivers)
    for kind, *at in senders:
        if _step(kind, at, cfg) >= last:
            raise ValueError(
                f"no receiver comes after the sender {(kind, *at)!r}: add a later one, such as ('logits',)"
            )

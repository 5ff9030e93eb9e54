"""Activation patching: which parts of a run, put into another, carry the difference between the two."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.patching.metrics import Metric, checked_metric, metric_values
from analyses.patching.plan import PatchStream, plan_patches
from analyses.patching.result import Direction, PatchResult, as_result, check_direction
from analyses.patching.runs import check_pair, patched_runs, record, rows_within
from analyses.progress import progress_bar
from hooked_vit import HookedViT
from hooked_vit.interventions import random_directions
from hooked_vit.resuming import resume

__all__ = ["activation_patching"]


@torch.no_grad()
def activation_patching(
    model: HookedViT,
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Float[Tensor, "batch channel height width"],
    metric: Metric,
    stream: PatchStream = "resid_pre",
    *,
    layers: Sequence[int] | None = None,
    tokens: Any = None,
    groups: Mapping[str, Any] | None = None,
    heads: Any = None,
    neurons: Any = None,
    direction: Direction = "denoising",
    per_image: bool = False,
    control: Literal["random"] | None = None,
    seed: int = 0,
    memory_limit: float | int | None = None,
    progress: bool | None = False,
) -> PatchResult:
    """Patch one place at a time, and tell what it does to a metric (Meng et al. 2022; Wang et al. 2022).

    Each patch is a run of its own, equal to TransformerLens's `generic_activation_patch`, but many of a layer run at
    once, and each resumes at its patch, so that nothing before it is computed again. A patch that puts in what is
    there already is not run.

    Args:
        model: The model, without hooks.
        clean: Preprocessed images.
        corrupt: As many, each the counterpart of the clean one in its place.
        metric: From logits [batch n_classes] to one number, such as `logit_difference(label, against=other)`.
        stream: `resid_pre`, `resid_mid`, `resid_post`, `attn_out`, `mlp_out`: one patch a token; `z`, `q`, `k`, `v`,
            `pattern`: one a head, at all tokens; `post`: one a neuron of the MLP, at all tokens.
        layers: Which blocks; all by default.
        tokens: Only these, or, in streams of heads or neurons, one patch for each head and each of these: indices, a
            slice, a group (`"patch"`, `"cls"`), or a bool mask: [token], or [batch token] for one per image, where a
            token is patched in the images whose mask holds it. Of a pattern, these are queries.
        groups: Tokens that are patched together instead of one at a time: by name, tokens as above, such as masks per
            image of `object` and `context`.
        heads: Only these.
        neurons: Only these.
        direction: `denoising` puts parts of the clean run into the corrupt one: what suffices to restore the metric.
            `noising` puts parts of the corrupt run into the clean one: what it takes to break it.
        per_image: Whether `metric` returns a number an image, all of which are kept.
        control: `"random"` puts in, at each place, a step as long as that to the other run, in a random direction.
        seed: Of the control.
        memory_limit: Bytes that the patched runs may take at a time; by default what is fast, a quarter of the free
            memory on a GPU.
        progress: Whether to show a bar on standard error; `None`, if that is a terminal.

    Raises:
        ValueError: If clean and corrupt differ in shape, the metric returns no scalar, a stream, layer, token, head or
            neuron does not exist, the model has hooks on, or one run needs more than `memory_limit`.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.patching import logit_difference
    >>> model, scenes = HookedViT.from_pretrained("emoji-vit"), EmojiScenes(1, seed=0)
    >>> clean, corrupt = scenes.batch([0]), scenes.swap_object().batch([0])
    >>> metric = logit_difference(clean.labels[:, 0], against=corrupt.labels[:, 0])
    >>> result = activation_patching(model, clean.images, corrupt.images, metric, "z")
    >>> result.axes, result.values.shape
    (('layer', 'head'), torch.Size([8, 4]))
    """
    check_pair(model, clean, corrupt)
    check_direction(direction)
    if control not in (None, "random"):
        raise ValueError(f"expected control 'random' or None, got {control!r}")
    images = {"denoising": (corrupt, clean), "noising": (clean, corrupt)}[direction]
    n_tokens = model.cfg.token_layout_at(*clean.shape[-2:]).n_tokens
    plan = plan_patches(model.cfg, stream, n_tokens, len(clean), layers=layers, tokens=tokens, heads=heads,
                        neurons=neurons, groups=groups)  # fmt: skip
    n_rows = rows_within(model, plan.stream, n_tokens, memory_limit)
    base = record(model, images[0], plan.stream, plan.layers)
    source = record(model, images[1], plan.stream, plan.layers, context=False)
    ends = [checked_metric(metric, run.logits, per_image) for run in (base, source)]
    chance = torch.Generator().manual_seed(seed)
    values = []
    with progress_bar(len(plan.layers) * plan.n_cells, show=progress, what="patches") as advance:
        for layer in plan.layers:
            here, there = (run.activations[plan.stream, layer] for run in (base, source))
            if control == "random":
                there = here + random_directions((there - here).cpu(), chance).to(here)
            finish, context = partial(resume, model, plan.stream, layer), base.context(plan.stream, layer)
            of_layer = []
            for logits in patched_runs(plan, here, there, context, finish, base.logits, n_rows):
                of_layer.append(metric_values(metric, logits, per_image))
                advance(len(logits))
            values.append(torch.cat(of_layer))
    return as_result(plan, direction, model, torch.stack(values), *ends)

"""Activation patching: which activations of one run, copied into another, carry the difference between the two."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.patching.metrics import Metric, checked_metric, metric_values
from analyses.patching.plan import PatchStream, plan_patches
from analyses.patching.result import Direction, PatchResult, as_result
from analyses.patching.runs import base_and_source, patched_runs, record, rows_within
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
    """Patch one activation at a time and measure the effect on a metric (Meng et al. 2022; Wang et al. 2022).

    Each patch is a separate run, as in TransformerLens's `generic_activation_patch`, but many patches of a layer share
    a batch, and each run resumes at its patch, so nothing before it is computed again. A patch that changes nothing is
    not run.

    Args:
        model: The model, without hooks.
        clean: Preprocessed images.
        corrupt: As many images, each the counterpart of the clean image at the same index.
        metric: From logits [batch n_classes] to one number, such as `logit_difference(label, against=other)`. Metrics
            of this package are computed for many patches in one call, any other function patch by patch.
        stream: `resid_pre`, `resid_mid`, `resid_post`, `attn_out`, `mlp_out`: one patch per token; `z`, `q`, `k`, `v`,
            `pattern`: one per head, at all tokens; `post`: one per neuron of the MLP, at all tokens.
        layers: Indices of blocks; all by default.
        tokens: The tokens to patch: indices, a slice, a group such as `"patch"` or `"cls"`, or a bool mask: [token],
            or [batch token] for one per image, where a token is patched in the images whose mask holds it. In streams
            of heads or neurons, there is then one patch per head and token. In `pattern`, these are queries.
        groups: Tokens that are patched together instead of one at a time, by name: tokens as above, such as masks per
            image of `object` and `context`.
        heads: The heads to patch; all by default. In `k` and `v`, heads of keys and values, which queries may share.
        neurons: The neurons to patch; all by default.
        direction: `denoising` copies activations of the clean run into the corrupt one, to find what suffices to
            restore the metric. `noising` copies from the corrupt run into the clean one, to find what breaks it.
        per_image: Whether `metric` returns one number per image, all of which are kept.
        control: `"random"` adds a step of the same length as the step to the other run, in a random direction.
        seed: Seed of the control.
        memory_limit: Bytes that the patched runs may take at a time; by default a fast size on a CPU, and a quarter of
            the free memory on a GPU.
        progress: Whether to show a bar on standard error; `None` shows it if that is a terminal.

    Raises:
        ValueError: If clean and corrupt differ in shape, the metric returns no scalar, a stream, layer, token, head or
            neuron does not exist, the model has hooks, or one run needs more than `memory_limit`.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.patching import logit_difference
    >>> model, scenes = HookedViT.from_pretrained("emoji-vit"), EmojiScenes(1, seed=0)
    >>> clean, corrupt = scenes.batch([0]), scenes.swap_object().batch([0])
    >>> metric = logit_difference(clean.labels[:, 0], against=corrupt.labels[:, 0])
    >>> result = activation_patching(model, clean.images, corrupt.images, metric, "z")
    >>> result.axes, result.values.shape
    (('layer', 'head'), torch.Size([8, 4]))
    """
    images = base_and_source(model, clean, corrupt, direction)
    if control not in (None, "random"):
        raise ValueError(f"expected control 'random' or None, got {control!r}")
    n_tokens = model.cfg.token_layout_at(*clean.shape[-2:]).n_tokens
    plan = plan_patches(model.cfg, stream, n_tokens, len(clean), layers=layers, tokens=tokens, heads=heads,
                        neurons=neurons, groups=groups)  # fmt: skip
    n_rows = rows_within(model, plan.stream, n_tokens, memory_limit)
    base = record(model, images[0], plan.stream, plan.layers)
    source = record(model, images[1], plan.stream, plan.layers, context=False)
    ends = [checked_metric(metric, run.logits, per_image) for run in (base, source)]
    generator = torch.Generator().manual_seed(seed)
    values = []
    with progress_bar(len(plan.layers) * plan.n_cells, show=progress, what="patches") as advance:
        for layer in plan.layers:
            here, there = (run.activations[plan.stream, layer] for run in (base, source))
            if control == "random":
                there = here + random_directions((there - here).cpu(), generator).to(here)
            finish = partial(resume, model, plan.stream, layer, image_size=(clean.shape[2], clean.shape[3]))
            context = base.context(layer)
            layer_values = []
            for logits in patched_runs(plan, here, there, context, finish, base.logits, n_rows):
                layer_values.append(metric_values(metric, logits, per_image))
                advance(len(logits))
            values.append(torch.cat(layer_values))
    return as_result(plan, direction, model, torch.stack(values), *ends)

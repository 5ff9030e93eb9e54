"""Attribution patching: all patches at once, to first order, from the metric's gradient."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.patching.metrics import Metric, checked_metric, metric_values
from analyses.patching.plan import PatchPlan, PatchStream, plan_patches
from analyses.patching.result import Direction, PatchResult, as_result
from analyses.patching.runs import Run, base_and_source, record, rows_within
from hooked_vit import HookedViT
from hooked_vit.resuming import resume

__all__ = ["attribution_patching"]

_ROWS_PER_GRAPH = 8  # a backward pass keeps several blocks in memory, a patched run one


def attribution_patching(
    model: HookedViT,
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Float[Tensor, "batch channel height width"],
    metric: Metric,
    stream: PatchStream = "resid_pre",
    *,
    steps: int = 0,
    layers: Sequence[int] | None = None,
    tokens: Any = None,
    groups: Mapping[str, Any] | None = None,
    heads: Any = None,
    neurons: Any = None,
    direction: Direction = "denoising",
    per_image: bool = False,
    memory_limit: float | int | None = None,
) -> PatchResult:
    """Estimate what `activation_patching` computes (Nanda 2023; Kramár et al. 2024).

    With x the stream of the run that is patched, x' that of the run that patches come from, and m the metric,

        m(patched) ≈ m(x) + sum over the patched entries of (x' - x) · dm/dx,

    from two forward passes and one backward pass, however many patches there are. With `steps`, the gradient is
    averaged along the straight line from x to x' at each layer (integrated gradients, Sundararajan et al. 2017), which
    costs that many passes from the layer on; the effects of all tokens of a layer then sum to the layer's total effect.

    Args:
        model: The model, without hooks.
        clean: As for `activation_patching`, as are all arguments without a description here.
        corrupt: As above.
        metric: As above; it needs a gradient, so not `class_rank`.
        stream: As above.
        steps: Number of points on the line; 0 uses the gradient at x only.
        layers: As above.
        tokens: As above.
        groups: As above.
        heads: As above.
        neurons: As above.
        direction: As above.
        per_image: As above.
        memory_limit: As above, with `steps`.

    Raises:
        ValueError: As `activation_patching`; if the metric has no gradient, or `steps` is negative.

    >>> from analyses.patching import logit_difference
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> images = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    >>> attribution_patching(model, *images, logit_difference(3, against=14), "post").values.shape
    torch.Size([8, 512])
    """
    images = base_and_source(model, clean, corrupt, direction)
    if steps < 0:
        raise ValueError(f"steps must be 0 (the gradient at one end) or more, got {steps}")
    n_tokens = model.cfg.token_layout_at(*clean.shape[-2:]).n_tokens
    plan = plan_patches(model.cfg, stream, n_tokens, len(clean), layers=layers, tokens=tokens, heads=heads,
                        neurons=neurons, groups=groups)  # fmt: skip
    with torch.no_grad():
        source = record(model, images[1], plan.stream, plan.layers, context=False)
        base = record(model, images[0], plan.stream, plan.layers, context=steps > 0)
        ends = [checked_metric(metric, run.logits, per_image) for run in (base, source)]
    differences = {layer: source.activations[plan.stream, layer] - base.activations[plan.stream, layer]
                   for layer in plan.layers}  # fmt: skip
    if steps:
        n_rows, size = rows_within(model, plan.stream, n_tokens, memory_limit), (clean.shape[2], clean.shape[3])
        gradients = {
            layer: _along_the_line(
                model, plan.stream, layer, base, differences[layer], metric, per_image, steps, n_rows, size
            )
            for layer in plan.layers
        }
    else:
        _, _, found = model.run_with_gradients(images[0], metric, [(plan.stream, layer) for layer in plan.layers])
        gradients = {layer: found[plan.stream, layer] for layer in plan.layers}
    effects = torch.stack([_sum_over_cells(plan, differences[layer] * gradients[layer]) for layer in plan.layers])
    values = ends[0] + (effects if per_image else effects.sum(dim=-1))
    return as_result(plan, direction, model, values, *ends)


def _along_the_line(
    model: HookedViT,
    stream: PatchStream,
    layer: int,
    base: Run,
    difference: Tensor,
    metric: Metric,
    per_image: bool,
    steps: int,
    n_rows: int,
    image_size: tuple[int, int],
) -> Tensor:
    """Mean gradient at the midpoints of `steps` equal pieces of the line from the base to the source."""
    start = base.activations[stream, layer]
    context = base.context(layer)
    total, n_images = torch.zeros_like(start), len(start)
    points = (torch.arange(steps, device=start.device, dtype=start.dtype) + 0.5) / steps
    for some in points.split(max(1, n_rows // (n_images * _ROWS_PER_GRAPH))):
        with torch.enable_grad():
            shape = (len(some), *(1,) * start.ndim)
            values = (start + some.reshape(shape) * difference).flatten(0, 1).detach().requires_grad_()
            given = {name: kept.repeat(len(some), *(1,) * (kept.ndim - 1)) for name, kept in context.items()}
            logits = resume(model, stream, layer, values, given, image_size=image_size)
            logits = logits.unflatten(0, (len(some), n_images))
            value = metric_values(metric, logits, per_image).sum()
            if not value.requires_grad:
                raise ValueError(
                    "metric returned a constant: compute it from the logits with operations that have a gradient"
                )
            (gradient,) = torch.autograd.grad(value, values)
        total += gradient.unflatten(0, (len(some), n_images)).sum(dim=0)
    return total / steps


def _sum_over_cells(plan: PatchPlan, products: Tensor) -> Float[Tensor, "cell batch"]:
    """Sums of products over the entries of each cell, in the order of the plan's cells."""
    masks = plan.token_masks.to(products)
    if plan.stream != "post":
        products = products.sum(dim=-1)
    if plan.components is None:
        return torch.einsum("cbt,bt->cb", masks.expand(-1, len(products), -1), products)
    by_component = products.transpose(1, 2) if plan.stream == "pattern" else products
    chosen = by_component[..., plan.components.to(products.device)]
    return torch.einsum("cbt,btn->ncb", masks.expand(-1, len(products), -1), chosen).flatten(0, 1)

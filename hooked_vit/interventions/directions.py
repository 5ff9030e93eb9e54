"""Interventions along directions of an activation: adding, projecting out, and random directions as a control."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooked_vit.hook_names import NamesFilter
from hooked_vit.interventions.replacing import Intervention, edit
from hooked_vit.model import HookedViT


def add_direction(
    model: HookedViT,
    names: NamesFilter,
    direction: Float[Tensor, "*axes width"],
    scale: float | int = 1.0,
    **where: Any,
) -> Intervention:
    """Add `scale * direction` to activations: steering.

    Args:
        model: The model.
        names: The hook points, as for `model.hook_names`.
        direction: Anything that broadcasts against the activation; it is not normalised.
        scale: The factor.
        where: As for `edit`.

    Raises:
        ValueError: As `edit`; (during the run) if the direction has another width.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> dog = model.tokens_to_residual_directions("dog")
    >>> images = torch.zeros(1, 3, 64, 64)
    >>> steered = model.run_with_hooks(images, fwd_hooks=add_direction(model, ("resid_post", -1), dog, 10))
    >>> bool(steered[0, 1] > model(images)[0, 1])
    True
    """

    def added(activation: Tensor, name: str) -> Tensor:
        _check_width(direction, activation, name)
        return activation + scale * direction.to(activation)

    return edit(model, names, added, **where)


def project_out(
    model: HookedViT,
    names: NamesFilter,
    directions: Float[Tensor, "width"] | Float[Tensor, "direction width"],
    **where: Any,
) -> Intervention:
    """Project directions out of activations: `x - x Q Qᵀ`, with Q an orthonormal basis of their span.

    Args:
        model: The model.
        names: The hook points, as for `model.hook_names`.
        directions: One or several; they need not have unit length or be independent.
        where: As for `edit`.

    Raises:
        ValueError: As `edit`; if all directions are zero; (during the run) if they have another width.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> hooks = project_out(model, "resid_post", model.W_U[:, :3].T, tokens="cls")
    >>> model.run_with_hooks(torch.zeros(1, 3, 64, 64), fwd_hooks=hooks).shape
    torch.Size([1, 100])
    """
    rows = directions.detach().reshape(-1, directions.shape[-1]).double().cpu()
    _, sizes, basis = torch.linalg.svd(rows, full_matrices=False)
    spans = sizes > sizes.max() * max(rows.shape) * torch.finfo(torch.float32).eps
    if not sizes.max() > 0:
        raise ValueError("expected a direction to project out, got zeros")
    basis = basis[spans]

    def without(activation: Tensor, name: str) -> Tensor:
        _check_width(basis, activation, name)
        along = basis.to(activation)
        return activation - (activation @ along.T) @ along

    return edit(model, names, without, **where)


def random_directions(
    like: Float[Tensor, "*axes width"], generator: torch.Generator | int = 0
) -> Float[Tensor, "*axes width"]:
    """Random directions with the lengths of given ones: the control for the effect of a direction.

    Args:
        like: Directions, or differences of activations.
        generator: The generator of the draws, or a seed.

    >>> random_directions(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).norm(dim=-1)
    tensor([5., 0.])
    """
    rng = torch.Generator().manual_seed(generator) if isinstance(generator, int) else generator
    drawn = torch.randn(like.shape, generator=rng, dtype=torch.float64, device=rng.device)
    lengths = torch.linalg.vector_norm(like, dim=-1, keepdim=True)
    unit = drawn / torch.linalg.vector_norm(drawn, dim=-1, keepdim=True)
    return unit.to(like) * lengths


def _check_width(directions: Tensor, activation: Tensor, name: str) -> None:
    if directions.shape[-1] != activation.shape[-1]:
        raise ValueError(
            f"expected a direction of width {activation.shape[-1]} for '{name}', got {directions.shape[-1]}"
        )

"""The part of an activation that an intervention acts on: some tokens, heads, neurons, latents and so on, or all."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooked_vit.config import HookedViTConfig
from hooked_vit.hook_axes import hook_axes
from hooked_vit.token_layout import TOKEN_GROUPS, TokenLayout, token_group

__all__ = [
    "TOKEN_GROUPS", "Indices", "Selection", "Tokens", "check_tokens", "select_indices", "select_tokens", "token_group",
]  # fmt: skip

Indices = int | Sequence[int] | slice | Int[Tensor, "_"] | Bool[Tensor, "_"] | np.ndarray
Tokens = Indices | str | Bool[Tensor, "_ _"]
"""Tokens, everywhere: indices, a slice, the name of a group, a bool mask [token], or one per image [batch token]."""

_AXES = {
    "tokens": ("token",), "heads": ("head", "key_value_head"), "neurons": ("neuron",), "queries": ("query",),
    "keys": ("key",), "latents": ("latent",),
}  # fmt: skip


@dataclass(frozen=True)
class Selection:
    """A part of an activation; an axis that is not given is selected whole.

    Attributes:
        tokens: Indices, a slice, the name of a group (`"cls"`, `"dist"`, `"register"`, `"patch"`, `"prefix"`,
            `"any"`), or a bool mask: [token], or [batch token] for one per image.
        heads: Indices, a slice, or a bool mask; of keys and values that several query heads share, the fewer heads.
        neurons: As `heads`, in an MLP.
        queries: As `tokens`, in a pattern or in attention scores.
        keys: As `queries`.
        latents: As `heads`, in a dictionary that is spliced in.
    """

    tokens: Tokens | None = None
    heads: Indices | None = None
    neurons: Indices | None = None
    queries: Tokens | None = None
    keys: Tokens | None = None
    latents: Indices | None = None

    @classmethod
    def from_keywords(cls, where: dict[str, Any]) -> "Selection":
        """From keyword arguments.

        Raises:
            ValueError: If there is no such attribute.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in where if name not in known]
        if unknown:
            raise ValueError(f"expected any of {', '.join(known)}, got {unknown[0]!r}")
        return cls(**where)

    @property
    def is_everything(self) -> bool:
        """Whether the whole activation is selected."""
        return all(getattr(self, field.name) is None for field in fields(self))

    def check(self, name: str, cfg: HookedViTConfig) -> None:
        """Check that a hook point has the given axes, and the given heads and neurons.

        Raises:
            ValueError: If it does not.
        """
        axes = hook_axes(name, cfg)
        for field in fields(self):
            chosen = getattr(self, field.name)
            if chosen is None:
                continue
            axis = _axis(field.name, axes)
            if axis is None:
                of_attention = field.name == "tokens" and "query" in axes
                hint = " (of attention, tokens are queries and keys)" if of_attention else ""
                raise ValueError(f"'{name}' has axes {', '.join(axes)}, and so no {field.name}{hint}")
            if axis == "latent":
                continue  # the model does not know how many there are: checked in the run
            size = {"head": cfg.n_heads, "neuron": cfg.d_mlp}.get(axis)
            if axis == "key_value_head":
                size = cfg.n_key_value_heads_at(int(name.split(".")[1]))
            if size is None:
                check_tokens(chosen, cfg, field.name)
            else:
                select_indices(chosen, size, field.name)

    def mask(self, activation: Tensor, name: str, cfg: HookedViTConfig) -> Bool[Tensor, "*axes"] | None:
        """True where the activation is selected, with axes that broadcast against it; `None` if all of it is.

        Raises:
            ValueError: If there are no such tokens, heads or neurons.
        """
        if self.is_everything:
            return None
        axes = hook_axes(name, cfg)
        mask = torch.ones((1,) * activation.ndim, dtype=torch.bool, device=activation.device)
        for field in fields(self):
            chosen, axis = getattr(self, field.name), _axis(field.name, axes)
            if chosen is None:
                continue
            assert axis is not None, "checked before the run"
            dim = axes.index(axis)
            size = activation.shape[dim]
            if axis in ("token", "query", "key"):
                members = select_tokens(chosen, cfg.token_layout, size, field.name, n_images=len(activation))
            else:
                members = select_indices(chosen, size, field.name)
            shape = [1] * activation.ndim
            shape[dim] = size
            if members.ndim == 2:
                shape[0] = len(members)
            mask = mask & members.to(activation.device).reshape(shape)
        return mask


def _axis(field: str, axes: Sequence[str]) -> str | None:
    """The axis of an activation that a field of `Selection` selects from."""
    return next((axis for axis in _AXES[field] if axis in axes), None)


def check_tokens(chosen: Any, cfg: HookedViTConfig, noun: str = "tokens") -> None:
    """Check that the model has such tokens; indices and masks of a model of any image size are checked in the run.

    Raises:
        ValueError: If it has not.
    """
    if isinstance(chosen, str) or not cfg.dynamic_image_size:
        select_tokens(chosen, cfg.token_layout, cfg.token_layout.n_tokens, noun)


def select_indices(chosen: Any, size: int, noun: str) -> Bool[Tensor, "size"]:
    """Indices of an axis as a mask.

    Args:
        chosen: Indices, a slice, or a mask already (which may be empty).
        size: The length of the axis.
        noun: What lies along the axis, for messages.

    Raises:
        ValueError: If an index is out of range, there is none, or `chosen` is something else.

    >>> select_indices([0, -1], 3, "heads")
    tensor([ True, False,  True])
    """
    if isinstance(chosen, slice):
        chosen = range(size)[chosen]
    values = _as_tensor(chosen, noun)
    if values.dtype == torch.bool:
        if values.shape != (size,):
            raise ValueError(f"expected {noun} as a mask of shape [{size}], got {tuple(values.shape)}")
        return values
    if values.ndim > 1:
        raise ValueError(f"expected {noun} as a list of indices, got indices of shape {tuple(values.shape)}")
    indices = values.flatten().tolist()
    outside = [index for index in indices if not -size <= index < size]
    if outside or not indices:
        raise ValueError(
            f"expected {noun} from 0 to {size - 1} (or negative from the end), got {outside[0] if outside else 'none'}"
        )
    mask = torch.zeros(size, dtype=torch.bool)
    mask[indices] = True
    return mask


def select_tokens(
    chosen: Any, layout: TokenLayout, n_tokens: int, noun: str = "tokens", n_images: int | None = None
) -> Bool[Tensor, "token"] | Bool[Tensor, "batch token"]:
    """Tokens as a mask: by index, by group, or a mask already, which may differ between images.

    Args:
        chosen: As `Selection.tokens`.
        layout: The order of the tokens.
        n_tokens: The number of tokens in the run: fewer than in the layout if some were dropped.
        noun: What to call them in messages.
        n_images: The number of images in the run, if known.

    Raises:
        ValueError: If there are no such tokens, or a mask is for another number of images.

    >>> select_tokens("patch", TokenLayout(n_cls=1, n_dist=0, n_registers=0, grid=(1, 2)), n_tokens=3)
    tensor([False,  True,  True])
    """
    if isinstance(chosen, str):
        return token_group(layout, chosen, n_tokens)
    if isinstance(chosen, slice):
        return select_indices(chosen, n_tokens, noun)
    values = _as_tensor(chosen, noun)
    if values.dtype != torch.bool or values.ndim != 2:
        return select_indices(values, n_tokens, noun)
    if values.shape[1] != n_tokens:
        raise ValueError(
            f"expected {noun} as a mask [batch, {n_tokens}], prefix tokens included, got {tuple(values.shape)}"
        )
    if n_images is not None and len(values) not in (1, n_images):
        raise ValueError(f"{noun} is a mask for {len(values)} images, the run has {n_images}")
    return values


def _as_tensor(chosen: Any, noun: str) -> Tensor:
    """Indices or a mask as a tensor, of integers or of bools."""
    expected = f"expected {noun} as indices, a slice or a bool mask"
    try:
        values = torch.as_tensor(chosen if isinstance(chosen, Tensor | np.ndarray | int) else list(chosen))
    except (TypeError, ValueError, RuntimeError) as error:
        got = repr(chosen) if isinstance(chosen, str) else type(chosen).__name__
        raise ValueError(f"{expected}, got {got}") from error
    if values.dtype == torch.bool or not values.numel():
        return values
    if values.dtype == torch.uint8 or values.is_floating_point() or values.is_complex():
        raise ValueError(f"{expected}, got {values.dtype} of shape {tuple(values.shape)}: for a mask, pass mask.bool()")
    return values

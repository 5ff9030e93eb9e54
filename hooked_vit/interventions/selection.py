"""The part of an activation that an intervention acts on: some tokens, heads, neurons, queries or keys, or all."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from hooked_vit.config import HookedViTConfig
from hooked_vit.hook_axes import hook_axes
from hooked_vit.token_layout import TokenLayout

Indices = int | Sequence[int] | slice | Bool[Tensor, "_"]
Tokens = Indices | str | Bool[Tensor, "batch token"]

TOKEN_GROUPS = ("cls", "dist", "register", "patch", "prefix", "any")

_AXES = {"tokens": "token", "heads": "head", "neurons": "neuron", "queries": "query", "keys": "key"}


@dataclass(frozen=True)
class Selection:
    """A part of an activation; an axis that is not given is selected whole.

    Attributes:
        tokens: Indices, a slice, a group (`"cls"`, `"dist"`, `"register"`, `"patch"`, `"prefix"`, `"any"`), or a bool
            mask: [token], or [batch token] for one per image.
        heads: Indices, a slice, or a bool mask.
        neurons: As `heads`, in an MLP.
        queries: As `tokens`, in a pattern or in attention scores.
        keys: As `queries`.
    """

    tokens: Tokens | None = None
    heads: Indices | None = None
    neurons: Indices | None = None
    queries: Tokens | None = None
    keys: Tokens | None = None

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
            chosen, axis = getattr(self, field.name), _AXES[field.name]
            if chosen is None:
                continue
            if axis not in axes:
                hint = " (of attention, tokens are queries and keys)" if axis == "token" and "query" in axes else ""
                raise ValueError(f"'{name}' has axes {', '.join(axes)}, and so no {field.name}{hint}")
            size = {"head": cfg.n_heads, "neuron": cfg.d_mlp}.get(axis)
            if size is not None:
                select_indices(chosen, size, field.name)
            elif isinstance(chosen, str) or not cfg.dynamic_image_size:
                select_tokens(chosen, cfg.token_layout, cfg.token_layout.n_tokens, field.name)

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
            chosen, axis = getattr(self, field.name), _AXES[field.name]
            if chosen is None:
                continue
            dim = axes.index(axis)
            size = activation.shape[dim]
            if axis in ("token", "query", "key"):
                members = select_tokens(chosen, cfg.token_layout, size, field.name)
            else:
                members = select_indices(chosen, size, field.name)
            shape = [1] * activation.ndim
            shape[dim] = size
            if members.ndim == 2:
                if len(members) not in (1, len(activation)):
                    raise ValueError(f"{field.name} is a mask for {len(members)} images, the run has {len(activation)}")
                shape[0] = len(members)
            mask = mask & members.to(activation.device).reshape(shape)
        return mask


def select_indices(chosen: Any, size: int, noun: str) -> Bool[Tensor, "size"]:
    """Indices of an axis as a mask.

    Args:
        chosen: Indices, a slice, or a mask already.
        size: The length of the axis.
        noun: What lies along the axis, for messages.

    Raises:
        ValueError: If an index is out of range, or nothing is chosen.

    >>> select_indices([0, -1], 3, "heads")
    tensor([ True, False,  True])
    """
    if isinstance(chosen, Tensor) and chosen.dtype == torch.bool:
        if chosen.shape != (size,):
            raise ValueError(f"expected {noun} as a mask of shape [{size}], got {tuple(chosen.shape)}")
        return chosen
    if isinstance(chosen, slice):
        chosen = range(size)[chosen]
    indices = [int(index) for index in ([chosen] if isinstance(chosen, int) else chosen)]
    outside = [index for index in indices if not -size <= index < size]
    if outside or not indices:
        raise ValueError(
            f"expected {noun} from 0 to {size - 1} (or negative from the end), got {outside[0] if outside else 'none'}"
        )
    mask = torch.zeros(size, dtype=torch.bool)
    mask[indices] = True
    return mask


def select_tokens(
    chosen: Any, layout: TokenLayout, n_tokens: int, noun: str = "tokens"
) -> Bool[Tensor, "token"] | Bool[Tensor, "batch token"]:
    """Tokens as a mask: by index, by group, or a mask already, which may differ between images.

    Args:
        chosen: As `Selection.tokens`.
        layout: The order of the tokens.
        n_tokens: The number of tokens in the run: fewer than in the layout if some were dropped.
        noun: What to call them in messages.

    Raises:
        ValueError: If there are no such tokens.

    >>> select_tokens("patch", TokenLayout(n_cls=1, n_dist=0, n_registers=0, grid=(1, 2)), n_tokens=3)
    tensor([False,  True,  True])
    """
    if isinstance(chosen, str):
        return token_group(layout, chosen, n_tokens)
    if isinstance(chosen, Tensor) and chosen.dtype == torch.bool and chosen.ndim == 2:
        if chosen.shape[1] != n_tokens:
            raise ValueError(
                f"expected {noun} as a mask [batch, {n_tokens}], prefix tokens included, got {tuple(chosen.shape)}"
            )
        return chosen
    return select_indices(chosen, n_tokens, noun)


def token_group(layout: TokenLayout, group: str, n_tokens: int | None = None) -> Bool[Tensor, "token"]:
    """True at the tokens of a group: `cls`, `dist`, `register`, `patch`, `prefix` (the first three) or `any`.

    Raises:
        ValueError: If there is no such group, or the model has no such token.

    >>> token_group(TokenLayout(n_cls=1, n_dist=0, n_registers=2, grid=(1, 2)), "register")
    tensor([False,  True,  True, False, False])
    """
    if group not in TOKEN_GROUPS:
        raise ValueError(f"expected a group of tokens, one of {', '.join(map(repr, TOKEN_GROUPS))}, got {group!r}")
    types = {"prefix": ("cls", "dist", "register"), "any": ("cls", "dist", "register", "patch")}.get(group, (group,))
    members = torch.tensor([token_type in types for token_type in layout.token_types])
    if not members.any():
        raise ValueError(f"the model has no {group} token; it has {', '.join(dict.fromkeys(layout.token_types))}")
    if n_tokens is None or n_tokens == layout.n_tokens:
        return members
    # there may be fewer patches after a token_mask, or more in a larger image
    return torch.cat([members[: layout.n_prefix], members[-1:].expand(max(n_tokens - layout.n_prefix, 0))])

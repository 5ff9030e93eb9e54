"""Where in an activation an intervention acts: at some tokens, heads, neurons, queries or keys, or everywhere."""

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
class Place:
    """A part of an activation; what is not named is taken whole.

    Attributes:
        tokens: Indices, a slice, a group (`"cls"`, `"dist"`, `"register"`, `"patch"`, `"prefix"`, `"any"`), or a bool
            mask [token], or one an image [batch token].
        heads: Indices, a slice, or a bool mask.
        neurons: The same, of an MLP.
        queries: As `tokens`, of a pattern or of attention scores.
        keys: The same.
    """

    tokens: Tokens | None = None
    heads: Indices | None = None
    neurons: Indices | None = None
    queries: Tokens | None = None
    keys: Tokens | None = None

    @classmethod
    def of(cls, where: dict[str, Any]) -> "Place":
        """From keyword arguments.

        Raises:
            ValueError: If one is none of the attributes.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in where if name not in known]
        if unknown:
            raise ValueError(f"expected a place by any of {', '.join(known)}, got {unknown[0]!r}")
        return cls(**where)

    @property
    def is_everywhere(self) -> bool:
        """Whether nothing is left out."""
        return all(getattr(self, field.name) is None for field in fields(self))

    def check(self, name: str, cfg: HookedViTConfig) -> None:
        """See that a hook point has the axes that are named, and as many heads and neurons.

        Raises:
            ValueError: If not.
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
                chosen_mask(chosen, size, field.name)
            elif isinstance(chosen, str) or not cfg.dynamic_image_size:
                token_choice(chosen, cfg.token_layout, cfg.token_layout.n_tokens, field.name)

    def mask(self, activation: Tensor, name: str, cfg: HookedViTConfig) -> Bool[Tensor, "*axes"] | None:
        """True at the place, with axes that broadcast against the activation; `None` if that is everywhere.

        Raises:
            ValueError: If there are no such tokens, heads or neurons.
        """
        if self.is_everywhere:
            return None
        axes = hook_axes(name, cfg)
        mask = torch.ones((1,) * activation.ndim, dtype=torch.bool, device=activation.device)
        for field in fields(self):
            chosen, axis = getattr(self, field.name), _AXES[field.name]
            if chosen is None:
                continue
            at, size = axes.index(axis), activation.shape[axes.index(axis)]
            if axis in ("token", "query", "key"):
                members = token_choice(chosen, cfg.token_layout, size, field.name)
            else:
                members = chosen_mask(chosen, size, field.name)
            shape = [1] * activation.ndim
            shape[at] = size
            if members.ndim == 2:
                if len(members) not in (1, len(activation)):
                    raise ValueError(f"{field.name} is a mask for {len(members)} images, the run has {len(activation)}")
                shape[0] = len(members)
            mask = mask & members.to(activation.device).reshape(shape)
        return mask


def chosen_mask(chosen: Any, size: int, what: str) -> Bool[Tensor, "size"]:
    """A choice of indices of an axis as a mask.

    Raises:
        ValueError: If an index is out of range, or nothing is chosen.

    >>> chosen_mask([0, -1], 3, "heads")
    tensor([ True, False,  True])
    """
    if isinstance(chosen, Tensor) and chosen.dtype == torch.bool:
        if chosen.shape != (size,):
            raise ValueError(f"expected {what} as a mask of shape [{size}], got {tuple(chosen.shape)}")
        return chosen
    if isinstance(chosen, slice):
        chosen = range(size)[chosen]
    indices = [int(one) for one in ([chosen] if isinstance(chosen, int) else chosen)]
    outside = [one for one in indices if not -size <= one < size]
    if outside or not indices:
        raise ValueError(
            f"expected {what} from 0 to {size - 1} (or negative from the end), got {outside[0] if outside else 'none'}"
        )
    mask = torch.zeros(size, dtype=torch.bool)
    mask[indices] = True
    return mask


def token_choice(
    chosen: Any, layout: TokenLayout, n_tokens: int, what: str = "tokens"
) -> Bool[Tensor, "token"] | Bool[Tensor, "batch token"]:
    """A choice of tokens as a mask: by index, by group, or a mask already, which may differ from image to image.

    Args:
        chosen: As `Place.tokens`.
        layout: Which tokens are what.
        n_tokens: How many there are in the run: fewer than in the layout where some were dropped.
        what: What to call them in an error.

    Raises:
        ValueError: If there are no such tokens.

    >>> token_choice("patch", TokenLayout(n_cls=1, n_dist=0, n_registers=0, grid=(1, 2)), n_tokens=3)
    tensor([False,  True,  True])
    """
    if isinstance(chosen, str):
        return token_group(layout, chosen, n_tokens)
    if isinstance(chosen, Tensor) and chosen.dtype == torch.bool and chosen.ndim == 2:
        if chosen.shape[1] != n_tokens:
            raise ValueError(
                f"expected {what} as a mask [batch, {n_tokens}], prefix tokens included, got {tuple(chosen.shape)}"
            )
        return chosen
    return chosen_mask(chosen, n_tokens, what)


def token_group(layout: TokenLayout, group: str, n_tokens: int | None = None) -> Bool[Tensor, "token"]:
    """True at the tokens of a group: `cls`, `dist`, `register`, `patch`, `prefix` (the first three) or `any`.

    Raises:
        ValueError: If there is no such group, or the model has no such token.

    >>> token_group(TokenLayout(n_cls=1, n_dist=0, n_registers=2, grid=(1, 2)), "register")
    tensor([False,  True,  True, False, False])
    """
    if group not in TOKEN_GROUPS:
        raise ValueError(f"expected a group of tokens out of {', '.join(map(repr, TOKEN_GROUPS))}, got {group!r}")
    of_type = {"prefix": ("cls", "dist", "register"), "any": ("cls", "dist", "register", "patch")}.get(group, (group,))
    members = torch.tensor([one in of_type for one in layout.token_types])
    if not members.any():
        raise ValueError(f"the model has no {group} token; it has {', '.join(dict.fromkeys(layout.token_types))}")
    if n_tokens is None or n_tokens == layout.n_tokens:
        return members
    # patches may be fewer where a token_mask drops some, or more in a larger image
    types = members[: layout.n_prefix], members[-1:].expand(max(n_tokens - layout.n_prefix, 0))
    return torch.cat(types)

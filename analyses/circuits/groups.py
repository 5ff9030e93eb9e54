"""Groups of tokens that split every part of a graph: each token is in exactly one."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from analyses.data.patch_labels import token_labels
from hooked_vit import TokenLayout
from hooked_vit.interventions.selection import select_tokens

__all__ = ["Groups", "group_members", "object_groups", "single_tokens"]

Groups = Mapping[str, Any]
"""Names and tokens: indices, a slice, `"cls"`, `"patch"` and the like, or a mask, also one per image [batch token]."""


def group_members(
    groups: Groups, layout: TokenLayout, n_tokens: int, n_images: int
) -> Bool[Tensor, "#batch group token"]:
    """Which tokens are in which group; one row if they are the same in all images.

    Raises:
        ValueError: If a token is in no group or in two, or there is no such token.

    >>> group_members({"cls": "cls", "patches": "patch"}, TokenLayout(1, 0, 0, (1, 2)), 3, 1).int()
    tensor([[[1, 0, 0],
             [0, 1, 1]]], dtype=torch.int32)
    """
    masks = []
    for name, members in groups.items():
        mask = select_tokens(members, layout, n_tokens, f"group '{name}'", n_images)
        masks.append((mask if mask.ndim == 2 else mask[None]).cpu())
    n_rows = max((len(mask) for mask in masks), default=1)
    found = torch.stack([mask.expand(n_rows, -1) for mask in masks], dim=1) if masks else torch.ones(1, 1, n_tokens) > 0
    times = found.sum(dim=1)
    if (times != 1).any():
        image, token = (times != 1).nonzero()[0].tolist()
        names = [name for name, mask in zip(groups, found[image, :, token].tolist(), strict=True) if mask]
        raise ValueError(
            f"expected each token in one group, but token {token} is in {' and '.join(map(repr, names)) or 'none'}: "
            "let groups divide the tokens, with masks that are False at each other's tokens"
        )
    return found


def object_groups(layout: TokenLayout, object_mask: Bool[Tensor, "batch height width"]) -> Groups:
    """Prefix tokens by type, patches on the object, and patches of context, by `token_labels` of the masks.

    >>> groups = object_groups(TokenLayout(1, 0, 0, (2, 2)), torch.eye(2)[None] > 0)
    >>> {name: mask[0].int().tolist() for name, mask in groups.items()}
    {'cls': [1, 0, 0, 0, 0], 'object': [0, 1, 0, 0, 1], 'context': [0, 0, 1, 1, 0]}
    """
    labels = token_labels(object_mask.cpu(), layout.grid)
    prefix = torch.zeros(len(labels), layout.n_prefix, dtype=torch.bool)
    types = torch.tensor([[kind == name for kind in layout.token_types] for name in ("cls", "dist", "register")])
    groups: dict[str, Tensor] = {
        name: members.expand(len(labels), -1)
        for name, members in zip(("cls", "dist", "register"), types, strict=True)
        if members.any()
    }
    return {**groups, "object": torch.cat([prefix, labels], 1), "context": torch.cat([prefix, ~labels], 1)}


def single_tokens(layout: TokenLayout) -> Groups:
    """Each token by itself, named by its type and, for patches, its row and column; for small models.

    >>> list(single_tokens(TokenLayout(1, 0, 0, (1, 2))))
    ['cls', 'patch 0,0', 'patch 0,1']
    """
    counts: dict[str, int] = {}
    names = []
    for token, kind in enumerate(layout.token_types):
        if kind == "patch":
            row, column = divmod(token - layout.n_prefix, layout.grid[1])
            names.append(f"patch {row},{column}")
        else:
            counts[kind] = counts.get(kind, 0) + 1
            names.append(kind if layout.token_types.count(kind) == 1 else f"{kind} {counts[kind] - 1}")
    return {name: [token] for token, name in enumerate(names)}

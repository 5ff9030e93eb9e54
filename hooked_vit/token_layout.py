"""The order of the tokens (CLS, distillation, registers, patches) and the positions of the patches on the grid."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

TOKEN_GROUPS = ("cls", "dist", "register", "patch", "prefix", "any")
"""Groups of tokens by name; `"prefix"` is the first three."""


@dataclass(frozen=True)
class TokenLayout:
    """The order of tokens: CLS, distillation, registers, then patches row by row.

    >>> layout = TokenLayout(n_cls=1, n_dist=0, n_registers=2, grid=(2, 3))
    >>> layout.n_tokens, layout.n_prefix, layout.n_patches
    (9, 3, 6)
    >>> layout.token_types
    ('cls', 'register', 'register', 'patch', 'patch', 'patch', 'patch', 'patch', 'patch')
    >>> layout.patch_token(row=1, column=2)
    8
    """

    n_cls: int
    n_dist: int
    n_registers: int
    grid: tuple[int, int]

    @property
    def n_prefix(self) -> int:
        """Number of tokens before the patches."""
        return self.n_cls + self.n_dist + self.n_registers

    @property
    def n_patches(self) -> int:
        """Number of patches: grid height times grid width."""
        return self.grid[0] * self.grid[1]

    @property
    def n_tokens(self) -> int:
        """Number of tokens, prefix tokens included."""
        return self.n_prefix + self.n_patches

    @property
    def token_types(self) -> tuple[str, ...]:
        """`"cls"`, `"dist"`, `"register"` or `"patch"` for each token."""
        return (
            ("cls",) * self.n_cls
            + ("dist",) * self.n_dist
            + ("register",) * self.n_registers
            + ("patch",) * self.n_patches
        )

    @property
    def cls(self) -> int | None:
        """Index of the CLS token, or `None` if the model has none."""
        return 0 if self.n_cls else None

    @property
    def dist(self) -> int | None:
        """Index of the distillation token, or `None` if the model has none."""
        return self.n_cls if self.n_dist else None

    @property
    def prefix(self) -> slice:
        """The prefix tokens, as a slice of the token axis."""
        return slice(0, self.n_prefix)

    @property
    def registers(self) -> slice:
        """The register tokens, as a slice of the token axis."""
        return slice(self.n_cls + self.n_dist, self.n_prefix)

    @property
    def patches(self) -> slice:
        """The patch tokens, as a slice of the token axis: `residual[:, layout.patches]`."""
        return slice(self.n_prefix, self.n_tokens)

    @property
    def is_patch(self) -> Bool[Tensor, "token"]:
        """True where a token is a patch."""
        return torch.arange(self.n_tokens) >= self.n_prefix

    @property
    def positions(self) -> Int[Tensor, "patch row_column"]:
        """Row and column of each patch on the grid."""
        height, width = self.grid
        return torch.cartesian_prod(torch.arange(height), torch.arange(width))

    def patch_token(self, row: int, column: int) -> int:
        """Index of the token of the patch at `row`, `column`, counted from the top left.

        Raises:
            IndexError: If the grid has no such patch.
        """
        height, width = self.grid
        if not (0 <= row < height and 0 <= column < width):
            raise IndexError(f"no patch at row {row}, column {column}: the grid is {height} rows × {width} columns")
        return self.n_prefix + row * width + column

    def to_grid(self, per_patch: Shaped[Tensor, "*axes patch"]) -> Shaped[Tensor, "*axes height width"]:
        """Arrange the values of the patches (last axis) on the patch grid.

        Raises:
            ValueError: If the last axis is not the patches, for example because it includes prefix tokens.

        >>> TokenLayout(1, 0, 0, (2, 3)).to_grid(torch.arange(6)).tolist()
        [[0, 1, 2], [3, 4, 5]]
        """
        if per_patch.shape[-1] != self.n_patches:
            hint = "; take `[..., layout.patches]` first" if per_patch.shape[-1] == self.n_tokens else ""
            raise ValueError(
                f"expected {self.n_patches} patches in the last axis ({self.grid[0]} × {self.grid[1]}), "
                f"got shape {tuple(per_patch.shape)}{hint}"
            )
        return rearrange(per_patch, "... (height width) -> ... height width", height=self.grid[0])


@dataclass(frozen=True)
class KeptTokens:
    """The tokens that a `token_mask` keeps in each image, in their order, without gaps.

    Images that keep fewer tokens than others are padded; `valid` is False at the padding, which is neither attended
    to nor pooled. `is_patch` is True at the patches among the kept tokens.

    >>> mask = torch.tensor([[True, False, True, True], [True, False, False, True]])
    >>> kept = KeptTokens.from_mask(mask, TokenLayout(1, 0, 0, (1, 3)))
    >>> kept.index.tolist(), kept.valid.tolist()
    ([[0, 2, 3], [0, 3, 1]], [[True, True, True], [True, True, False]])
    """

    index: Int[Tensor, "batch kept"]
    valid: Bool[Tensor, "batch kept"]
    is_patch: Bool[Tensor, "batch kept"]

    @classmethod
    def from_mask(cls, token_mask: Bool[Tensor, "batch token"], layout: TokenLayout) -> "KeptTokens":
        """From the mask of a run: the True tokens of each image."""
        n_kept = int(token_mask.sum(dim=1).max())
        index = token_mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[:, :n_kept]
        valid = token_mask.gather(1, index)
        return cls(index, valid, valid & (index >= layout.n_prefix))

    @classmethod
    def padded(cls, patch_valid: Bool[Tensor, "batch patch"], n_prefix: int) -> "KeptTokens":
        """Of sequences of patches that are padded to one length: every token in its place, valid or not.

        >>> KeptTokens.padded(torch.tensor([[True, True], [True, False]]), n_prefix=1).valid.tolist()
        [[True, True, True], [True, True, False]]
        """
        prefix = patch_valid.new_ones(len(patch_valid), n_prefix)
        valid = torch.cat([prefix, patch_valid], dim=1)
        index = torch.arange(valid.shape[1], device=valid.device)
        return cls(index.expand(valid.shape), valid, valid & (index >= n_prefix))

    def take(self, per_token: Shaped[Tensor, "batch token *axes"]) -> Shaped[Tensor, "batch kept *axes"]:
        """Values of the kept tokens, in the order of the cache of a masked run."""
        index = self.index.reshape(*self.index.shape, *(1,) * (per_token.ndim - 2))
        return per_token.gather(1, index.expand(*self.index.shape, *per_token.shape[2:]))


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

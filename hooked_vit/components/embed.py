"""From pixels to the start of the residual stream: patches, prefix tokens, positions."""

from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hooked_vit.components.norm import Norm
from hooked_vit.components.stem import Stem
from hooked_vit.config import HookedViTConfig, Resampling
from hooked_vit.hook_point import HookPoint, is_watched
from hooked_vit.token_layout import TokenLayout


def resample_positions(
    positions: Float[Tensor, "token d_model"],
    grid: tuple[int, int],
    old_grid: tuple[int, int],
    n_prefix: int,
    resampling: Resampling = "bicubic_antialias",
) -> Float[Tensor, "new_token d_model"]:
    """Positions learnt on one grid of patches, resampled to another; those of prefix tokens are kept.

    `"bicubic_antialias"` is what timm does. `"bicubic"`, without antialiasing, and `"bilinear_antialias"` are what
    models of Hugging Face transformers do.

    >>> resample_positions(torch.zeros(7, 4), (3, 5), (2, 3), n_prefix=1).shape
    torch.Size([16, 4])
    """
    if resampling == "bicubic_antialias":
        # timm's own function: its steps in another order give other bits
        from timm.layers import resample_abs_pos_embed

        return resample_abs_pos_embed(
            positions[None], new_size=list(grid), old_size=list(old_grid), num_prefix_tokens=n_prefix
        )[0]
    on_grid = positions[n_prefix:].unflatten(0, old_grid)[None].permute(0, 3, 1, 2)
    mode, _, antialias = resampling.partition("_")
    on_grid = F.interpolate(on_grid.float(), grid, mode=mode, align_corners=False, antialias=bool(antialias))
    resampled = on_grid.to(positions.dtype).permute(0, 2, 3, 1).flatten(0, 2)
    return torch.cat([positions[:n_prefix], resampled])


class Embed(nn.Module):
    """Project the patches, prepend the prefix tokens, add the positions.

    Behind a stem, the patches are those of its feature map: `patch` projects them, or is `None` if each vector of the
    map is a token. Its hook points belong to the model (`hook_stem`, `hook_patch_embed`, `hook_embed`,
    `hook_pos_embed`), which passes them in.
    """

    def __init__(self, cfg: HookedViTConfig):
        super().__init__()
        self.cfg = cfg
        self.stem = Stem(cfg.stem) if cfg.stem is not None else None
        n_channels, self.patch_size = cfg.n_channels, cfg.patch_size
        if cfg.stem is not None:
            n_channels, self.patch_size = cfg.stem.n_channels, cfg.stem.patch_size
        projected = cfg.stem is None or cfg.stem.projected
        convolution = (n_channels, cfg.d_model, self.patch_size, self.patch_size)
        self.patch = nn.Conv2d(*convolution, bias=cfg.patch_bias) if projected else None
        self.patch_ln = Norm(cfg.d_model, cfg.patch_norm) if cfg.patch_norm else None
        layout = cfg.token_layout
        self.cls = nn.Parameter(torch.zeros(layout.n_cls, cfg.d_model)) if cfg.has_cls else None
        self.dist = nn.Parameter(torch.zeros(layout.n_dist, cfg.d_model)) if cfg.has_dist else None
        self.registers = nn.Parameter(torch.zeros(cfg.n_registers, cfg.d_model)) if cfg.n_registers else None
        n_patch_positions = prod(cfg.position_grid)
        n_positions = {"tokens": cfg.n_trained_prefix + n_patch_positions, "patches": n_patch_positions}.get(
            cfg.positions, 0
        )
        self.pos = nn.Parameter(torch.zeros(n_positions, cfg.d_model)) if n_positions else None

    @property
    def weight(self) -> Tensor:
        """A weight that every image passes, which has the dtype and device that images must have."""
        first = self.patch if self.stem is None else self.stem
        assert first is not None
        return next(first.parameters())

    def patches(
        self, images: Float[Tensor, "batch channel height width"], hook_stem: HookPoint | None = None
    ) -> Float[Tensor, "batch patch d_model"]:
        """The projected patches, without prefix tokens or positions.

        Raises:
            ValueError: If the stem's feature map does not have the size that the patch grid needs.
        """
        pixels = images if self.stem is None else self._features(images, hook_stem)
        if self.cfg.pad_to_patches:
            (height, width), (patch_height, patch_width) = pixels.shape[-2:], self.patch_size
            pixels = F.pad(pixels, (0, -width % patch_width, 0, -height % patch_height))
        projected = pixels if self.patch is None else self.patch(pixels)
        patches = projected.flatten(2).transpose(1, 2)
        return patches if self.patch_ln is None else self.patch_ln(patches)

    def _features(self, images: Tensor, hook_stem: HookPoint | None) -> Tensor:
        assert self.stem is not None
        features = self.stem(images)
        (height, width), (patch_height, patch_width) = features.shape[-2:], self.patch_size
        found = height // patch_height, width // patch_width
        if self.cfg.pad_to_patches:
            found = -(-height // patch_height), -(-width // patch_width)
        expected = self.cfg.token_layout_at(*images.shape[-2:]).grid
        if found != expected:
            rows, columns = self.cfg.patch_size
            raise ValueError(
                f"the stem turns images of {images.shape[-2]} × {images.shape[-1]} pixels into {found[0]} × {found[1]} "
                f"patches, not {expected[0]} × {expected[1]}: use a height that is a multiple of {rows} pixels and a "
                f"width that is a multiple of {columns}"
            )
        return features if hook_stem is None else hook_stem(features)

    def tokens(self, patches: Float[Tensor, "batch patch d_model"]) -> Float[Tensor, "batch token d_model"]:
        """The prefix tokens, then the patches."""
        batch, n_added = patches.shape[0], self.cfg.n_added_registers
        prefix = [p.expand(batch, -1, -1) for p in (self.cls, self.dist, self.registers) if p is not None]
        if n_added:
            prefix.append(patches.new_zeros(batch, n_added, patches.shape[2]))
        return torch.cat([*prefix, patches], dim=1) if prefix else patches

    def positions(self, layout: TokenLayout) -> Float[Tensor, "token d_model"] | None:
        """The position embedding of each token: zero rows where it has none, `None` if no token has one."""
        if self.pos is None:
            return None
        positions = self.pos
        n_prefix = self.cfg.n_trained_prefix if self.cfg.positions == "tokens" else 0
        if layout.grid != self.cfg.position_grid:
            positions = resample_positions(
                positions, layout.grid, self.cfg.position_grid, n_prefix, self.cfg.position_resampling
            )
        n_without = layout.n_prefix - n_prefix
        if not n_without:
            return positions
        without = positions.new_zeros(n_without, positions.shape[1])
        return torch.cat([positions[:n_prefix], without, positions[n_prefix:]])

    def forward(
        self,
        images: Float[Tensor, "batch channel height width"],
        layout: TokenLayout,
        hook_patch_embed: HookPoint,
        hook_embed: HookPoint,
        hook_pos_embed: HookPoint,
        hook_stem: HookPoint | None = None,
    ) -> Float[Tensor, "batch token d_model"]:
        """Tokens with their positions added."""
        tokens = hook_embed(self.tokens(hook_patch_embed(self.patches(images, hook_stem))))
        return add_positions(tokens, self.positions(layout), hook_pos_embed)


def add_positions(
    tokens: Float[Tensor, "batch token d_model"],
    positions: Float[Tensor, "*batch token d_model"] | None,
    hook_pos_embed: HookPoint,
) -> Float[Tensor, "batch token d_model"]:
    """Tokens with positions added, of every image alike or of each image; the hook sees what is added to each."""
    if not is_watched(hook_pos_embed):
        return tokens if positions is None else tokens + positions
    if positions is None:
        # zeros that gradients pass, for hooks of the backward pass
        return tokens + hook_pos_embed(torch.where(torch.zeros((), dtype=torch.bool, device=tokens.device), tokens, 0))
    # a copy: an edit in place must not reach the parameter
    return tokens + hook_pos_embed(positions.expand_as(tokens).clone())

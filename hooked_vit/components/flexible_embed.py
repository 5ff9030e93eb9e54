"""The embedding of models that take any grid: patches by a matrix, positions brought to each image's grid."""

from math import prod
from types import SimpleNamespace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hooked_vit.components.embed import Embed
from hooked_vit.config import HookedViTConfig
from hooked_vit.patch_sequences import PatchSequences
from hooked_vit.token_layout import TokenLayout

# timm's own functions that add positions: resampling in another order of steps gives other bits
_TIMM_ON_GRID = {"grid": "_apply_learned_pos_embed", "axes": "_apply_factorized_pos_embed"}
_TIMM_ON_SEQUENCES = {"grid": "_apply_learned_naflex_pos_embed", "axes": "_apply_factorized_naflex_pos_embed"}


class FlexibleEmbed(Embed):
    """Project the patches of images or of sequences, prepend the prefix tokens, add the positions.

    Factorised positions are stored as `pos_rows` [row d_model] and `pos_columns` [column d_model].
    """

    def __init__(self, cfg: HookedViTConfig):
        super().__init__(cfg)
        if cfg.linear_patches is not None:
            self.patch = nn.Linear(cfg.n_channels * prod(cfg.patch_size), cfg.d_model, bias=cfg.patch_bias)
        self.pos_rows = self.pos_columns = None
        if cfg.positions == "axes":
            n_rows, n_columns = cfg.position_grid
            self.pos_rows = nn.Parameter(torch.zeros(n_rows, cfg.d_model))
            self.pos_columns = nn.Parameter(torch.zeros(n_columns, cfg.d_model))

    def patches(
        self, input: Float[Tensor, "batch channel height width"] | PatchSequences
    ) -> Float[Tensor, "batch patch d_model"]:
        """The projected patches, without prefix tokens or positions."""
        linear = self.cfg.linear_patches
        if linear is None:
            assert isinstance(input, Tensor)
            return super().patches(input)
        pixels = self._pixels(input) if isinstance(input, Tensor) else self._in_order(input.patches)
        patches = self.patch(2 * (pixels - 0.5) if linear.centred else pixels)
        return patches if self.patch_ln is None else self.patch_ln(patches)

    def _pixels(self, images: Tensor) -> Float[Tensor, "batch patch pixel"]:
        (height, width), (rows, columns) = images.shape[-2:], self.cfg.patch_size
        if self.cfg.pad_to_patches:
            images = F.pad(images, (0, -width % columns, 0, -height % rows))
        order = "h w channel" if self.cfg.linear_patches.channels_last else "channel h w"
        pattern = f"batch channel (row h) (column w) -> batch (row column) ({order})"
        return rearrange(images, pattern, h=rows, w=columns)

    def _in_order(self, patches: Tensor) -> Float[Tensor, "batch patch pixel"]:
        linear, (rows, columns) = self.cfg.linear_patches, self.cfg.patch_size
        if linear.channels_last == linear.given_channels_last:
            return patches
        to_last, to_first = "(channel h w) -> ... (h w channel)", "(h w channel) -> ... (channel h w)"
        return rearrange(patches, f"... {to_last if linear.channels_last else to_first}", h=rows, w=columns)

    def positions(
        self, layout: TokenLayout | PatchSequences
    ) -> Float[Tensor, "token d_model"] | Float[Tensor, "batch token d_model"] | None:
        """The position embedding of each token: zero rows at prefix tokens, `None` if there are no positions.

        Of sequences, those of each image on its own grid; padding holds whatever the model adds there.
        """
        positions = self.cfg.grid_positions
        if isinstance(layout, TokenLayout):
            return super().positions(layout) if positions is None else self._on_grid(layout)
        if positions is None:
            return None
        if positions.kind == "lookup":
            return self._looked_up(layout.coordinates, layout.valid)
        added = self.patch.weight.new_zeros(*layout.valid.shape, self.cfg.d_model)
        name = _TIMM_ON_SEQUENCES[positions.kind] + ("_grid_sample" if positions.sampled else "")
        self._timm(name, added, patch_coord=layout.coordinates)
        return self._after_prefix(added)

    def _on_grid(self, layout: TokenLayout) -> Float[Tensor, "token d_model"]:
        kind = self.cfg.grid_positions.kind
        if kind == "lookup":
            return self._looked_up(layout.positions.to(self.patch.weight.device))
        added = self.patch.weight.new_zeros(1, layout.n_patches, self.cfg.d_model)
        self._timm(_TIMM_ON_GRID[kind], added, grid_size=list(layout.grid))
        return self._after_prefix(added)[0]

    def _timm(self, name: str, into: Tensor, **arguments: object) -> None:
        from timm.models.naflexvit import NaFlexEmbeds

        positions = self.cfg.grid_positions
        height, width = positions.grid
        tables = SimpleNamespace(
            pos_embed=None if self.pos is None else self.pos.view(1, height, width, -1),
            pos_embed_y=None if self.pos_rows is None else self.pos_rows[None],
            pos_embed_x=None if self.pos_columns is None else self.pos_columns[None],
            pos_embed_interp_mode=positions.mode,
            pos_embed_ar_preserving=positions.keep_aspect,
            pos_embed_antialias=positions.antialias,
            pos_embed_align_corners=positions.align_corners,
        )
        getattr(NaFlexEmbeds, name)(tables, into, **arguments)

    def _looked_up(self, places: Tensor, valid: Tensor | None = None) -> Float[Tensor, "*axes token d_model"]:
        rows, columns = places.clamp(min=0).unbind(-1)
        positions = self.pos_columns[columns] + self.pos_rows[rows]
        if valid is not None:
            positions = positions.masked_fill(~valid[..., None], 0)
        return self._after_prefix(positions)

    def _after_prefix(self, positions: Tensor) -> Float[Tensor, "*axes token d_model"]:
        n_prefix = self.cfg.token_layout.n_prefix
        if not n_prefix:
            return positions
        return torch.cat([positions.new_zeros(*positions.shape[:-2], n_prefix, positions.shape[-1]), positions], dim=-2)

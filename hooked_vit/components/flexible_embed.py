"""The embedding of models that take any grid: patches by a matrix, positions brought to each image's grid."""

from math import prod
from types import SimpleNamespace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hooked_vit.components.embed import Embed, add_positions
from hooked_vit.config import HookedViTConfig
from hooked_vit.embedding_config import GridPositions, LinearPatches
from hooked_vit.hook_point import HookPoint
from hooked_vit.patch_sequences import PatchSequences
from hooked_vit.token_layout import TokenLayout

# timm's own functions that add positions: resampling in another order of steps gives other bits
_ON_GRID = {"grid": "_apply_learned_pos_embed", "axes": "_apply_factorized_pos_embed"}
_ON_SEQUENCES = {"grid": "_apply_learned_naflex_pos_embed", "axes": "_apply_factorized_naflex_pos_embed"}


class FlexibleEmbed(Embed):
    """Project the patches of images or of sequences, prepend the prefix tokens, add the positions.

    Positions that are the sum of a row's and a column's are stored as `pos_rows` [row d_model] and `pos_columns`
    [column d_model].
    """

    def __init__(self, cfg: HookedViTConfig):
        super().__init__(cfg)
        self.linear, self.grid_positions = cfg.linear_patches, cfg.grid_positions
        if self.linear is not None:
            self.patch = nn.Linear(cfg.n_channels * prod(cfg.patch_size), cfg.d_model, bias=cfg.patch_bias)
        n_rows, n_columns = cfg.position_grid
        has_axes = cfg.positions == "axes"
        self.pos_rows = nn.Parameter(torch.zeros(n_rows, cfg.d_model)) if has_axes else None
        self.pos_columns = nn.Parameter(torch.zeros(n_columns, cfg.d_model)) if has_axes else None

    def forward_sequences(
        self, sequences: PatchSequences, hook_patch_embed: HookPoint, hook_embed: HookPoint, hook_pos_embed: HookPoint
    ) -> Float[Tensor, "batch token d_model"]:
        """As `forward`, of images that come as sequences of patches, each on its own grid."""
        assert self.linear is not None, "PatchSequences.from_dict refuses other models"
        pixels = _in_order(sequences.patches, self.linear, self.cfg.patch_size)
        tokens = hook_embed(self.tokens(hook_patch_embed(self._projected(pixels, self.linear))))
        return add_positions(tokens, self.positions_of(sequences), hook_pos_embed)

    def patches(
        self, images: Float[Tensor, "batch channel height width"], hook_stem: HookPoint | None = None
    ) -> Float[Tensor, "batch patch d_model"]:
        """The projected patches, without prefix tokens or positions."""
        if self.linear is None:
            return super().patches(images, hook_stem)
        (height, width), (rows, columns) = images.shape[-2:], self.cfg.patch_size
        if self.cfg.pad_to_patches:
            images = F.pad(images, (0, -width % columns, 0, -height % rows))
        order = "h w channel" if self.linear.channels_last else "channel h w"
        pattern = f"batch channel (row h) (column w) -> batch (row column) ({order})"
        return self._projected(rearrange(images, pattern, h=rows, w=columns), self.linear)

    def _projected(self, pixels: Tensor, linear: LinearPatches) -> Float[Tensor, "batch patch d_model"]:
        patches = self.patch(2 * (pixels - 0.5) if linear.centred else pixels)
        return patches if self.patch_ln is None else self.patch_ln(patches)

    def positions(self, layout: TokenLayout) -> Float[Tensor, "token d_model"] | None:
        """The position embedding of each token: zero rows at prefix tokens, `None` if there are no positions."""
        positions = self.grid_positions
        if positions is None:
            return super().positions(layout)
        if positions.kind == "lookup":
            return self._looked_up(layout.positions.to(self.patch.weight.device))
        added = self.patch.weight.new_zeros(1, layout.n_patches, self.cfg.d_model)
        self._add_by_timm(_ON_GRID[positions.kind], positions, added, grid_size=list(layout.grid))
        return self._after_prefix(added)[0]

    def positions_of(self, sequences: PatchSequences) -> Float[Tensor, "batch token d_model"] | None:
        """As `positions`, for each image on its own grid. At padding stands whatever the model adds there."""
        positions = self.grid_positions
        if positions is None:
            return None
        if positions.kind == "lookup":
            return self._looked_up(sequences.coordinates, sequences.valid)
        added = self.patch.weight.new_zeros(*sequences.valid.shape, self.cfg.d_model)
        name = _ON_SEQUENCES[positions.kind] + ("_grid_sample" if positions.sampled else "")
        self._add_by_timm(name, positions, added, patch_coord=sequences.coordinates)
        return self._after_prefix(added)

    def _add_by_timm(self, name: str, positions: GridPositions, into: Tensor, **arguments: object) -> None:
        """Run a method of timm's embedding, which adds to `into` in place, on this model's positions."""
        from timm.models.naflexvit import NaFlexEmbeds

        height, width = positions.grid
        embeds = SimpleNamespace(
            pos_embed=None if self.pos is None else self.pos.view(1, height, width, -1),
            pos_embed_y=None if self.pos_rows is None else self.pos_rows[None],
            pos_embed_x=None if self.pos_columns is None else self.pos_columns[None],
            pos_embed_interp_mode=positions.mode,
            pos_embed_ar_preserving=positions.keep_aspect,
            pos_embed_antialias=positions.antialias,
            pos_embed_align_corners=positions.align_corners,
        )
        getattr(NaFlexEmbeds, name)(embeds, into, **arguments)

    def _looked_up(self, places: Tensor, valid: Tensor | None = None) -> Float[Tensor, "*axes token d_model"]:
        assert self.pos_rows is not None
        assert self.pos_columns is not None
        rows, columns = places.clamp(min=0).unbind(-1)
        positions = self.pos_columns[columns] + self.pos_rows[rows]
        return self._after_prefix(positions if valid is None else positions.masked_fill(~valid[..., None], 0))

    def _after_prefix(self, positions: Tensor) -> Float[Tensor, "*axes token d_model"]:
        n_prefix = self.cfg.token_layout.n_prefix
        if not n_prefix:
            return positions
        return torch.cat([positions.new_zeros(*positions.shape[:-2], n_prefix, positions.shape[-1]), positions], dim=-2)


def _in_order(patches: Tensor, linear: LinearPatches, patch_size: tuple[int, int]) -> Float[Tensor, "..."]:
    """Given patches with their pixels in the order of the stored matrix."""
    if linear.channels_last == linear.given_channels_last:
        return patches
    first, last = "(channel row column)", "(row column channel)"
    pattern = f"... {first} -> ... {last}" if linear.channels_last else f"... {last} -> ... {first}"
    return rearrange(patches, pattern, row=patch_size[0], column=patch_size[1])

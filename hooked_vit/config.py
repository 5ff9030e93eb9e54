"""The architecture of a HookedViT, as read from a module: counts, widths and which parts it has."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooked_vit.embedding_config import GridPositions, LinearPatches
from hooked_vit.token_layout import TokenLayout

NormKind = Literal["layer", "rms"]
MlpKind = Literal["plain", "glu_packed", "glu_split"]
Pool = Literal["cls", "avg", "max", "avgmax", "attention", "cls_and_dist", "cls_and_mean"]
Resampling = Literal["bicubic_antialias", "bicubic", "bilinear_antialias"]


@dataclass(frozen=True)
class NormConfig:
    """One kind of norm: LayerNorm or RMSNorm, its epsilon and what it learns.

    `in_float32` norms compute in float32 whatever the dtype of their input.

    >>> NormConfig(eps=1e-5)
    NormConfig(kind='layer', eps=1e-05, has_weight=True, has_bias=True, in_float32=False)
    """

    kind: NormKind = "layer"
    eps: float = 1e-6
    has_weight: bool = True
    has_bias: bool = True
    in_float32: bool = False


@dataclass(frozen=True)
class RotaryConfig:
    """Rotary positions: queries and keys are rotated by angles that depend on the patch's row and column.

    Attributes:
        kind: timm's kind: `"cat"` (EVA-02, Perception Encoder), `"dinov3"` (coordinates are normalised by the grid),
            `"mixed"` (the frequencies are learnt, per layer and head), `"mrope"`,
            or `"gemma"` (half a head for columns, half for rows).
        temperature: The base of the frequencies.
        rotate_half: Whether a number is rotated together with the one half a head away, not with its neighbour.
        grid_offset: Added to the coordinates.
        grid_indexing: The order of the coordinates, `"ij"` (row, column) or `"xy"`.
        reference_grid: The grid that coordinates are scaled to (`"cat"`); `None` for indices as they are.
        normalize_coords: What coordinates are divided by (`"dinov3"`): each side, the shorter or the longer.
        min_period: The smallest period, if periods are given instead of the temperature (`"dinov3"`).
        max_period: The largest period.
        mrope_section: How many frequencies are for time, rows and columns (`"mrope"`).
    """

    kind: Literal["cat", "dinov3", "mixed", "mrope", "gemma"]
    temperature: float
    rotate_half: bool = False
    grid_offset: float = 0.0
    grid_indexing: Literal["ij", "xy"] = "ij"
    reference_grid: tuple[int, int] | None = None
    normalize_coords: Literal["separate", "min", "max"] = "separate"
    min_period: float | None = None
    max_period: float | None = None
    mrope_section: tuple[int, int, int] = (8, 12, 12)


@dataclass(frozen=True)
class RelativeBiasConfig:
    """A bias of the attention scores for each distance between two patches.

    Attributes:
        kind: `"table"` (a number per distance) or `"mlp"` (an MLP of the distance; prefix tokens have no bias).
        shared: Whether all blocks share one bias.
        d_hidden: The width of the MLP.
        mode: timm's scale of the distances that the MLP reads.
        pretrained_grid: The grid by which the distances are divided; (0, 0) for the model's own.
    """

    kind: Literal["table", "mlp"]
    shared: bool = False
    d_hidden: int = 0
    mode: Literal["cr", "swin"] = "cr"
    pretrained_grid: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class StemConfig:
    """A convolutional network between the pixels and the patch projection: timm's own module, used as it is.

    Attributes:
        template: The module without weights, on the meta device. Each model holds a copy of it.
        description: The module as PyTorch prints it; stems with the same description have the same architecture.
        n_channels: Channels of its feature map.
        patch_size: Height and width of a patch on its feature map.
        projected: Whether the patches are projected; otherwise each vector of the feature map is a token.
    """

    template: nn.Module = field(compare=False, repr=False)
    description: str = field(repr=False)
    n_channels: int
    patch_size: tuple[int, int] = (1, 1)
    projected: bool = True


@dataclass(frozen=True)
class DifferentialConfig:
    """Differential attention: a head subtracts a second pattern, times λ, from its first.

    Attributes:
        lambda_init: The constant in λ, per layer.
        dual: Whether λ is learnt as two numbers; otherwise as four vectors.
    """

    lambda_init: tuple[float, ...]
    dual: bool = False


@dataclass(frozen=True)
class HookedViTConfig:
    """Everything about a model's architecture that its forward pass depends on, and nothing else.

    Names of widths and counts are TransformerLens's, so its tools work with `model.cfg`.
    An image size is (height, width) in pixels, and so is a patch size: behind a stem, it is what one token's place on
    the grid covers. A part that is `None` does not exist in the model.

    >>> cfg = HookedViTConfig(n_layers=2, d_model=12, n_heads=3, d_mlp=20, n_classes=7, image_size=(16, 24),
    ...                       patch_size=(8, 8))
    >>> cfg.d_head, cfg.token_layout.grid, cfg.n_ctx
    (4, (2, 3), 7)
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_mlp: int
    n_classes: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    d_head: int = 0
    n_channels: int = 3
    dynamic_image_size: bool = False
    pad_to_patches: bool = False
    stem: StemConfig | None = None

    has_cls: bool = True
    has_dist: bool = False
    n_registers: int = 0
    n_added_registers: int = 0  # after the trained ones: zeros, without a parameter or a position
    positions: Literal["tokens", "patches", "axes", "none"] = "tokens"
    position_resampling: Resampling = "bicubic_antialias"
    grid_positions: GridPositions | None = None
    linear_patches: LinearPatches | None = None
    rotary: RotaryConfig | None = None
    relative_bias: RelativeBiasConfig | None = None

    patch_bias: bool = True
    qkv_bias: bool = True
    k_bias: bool = True
    attn_out_bias: bool = True
    mlp_bias: tuple[bool, bool] = (True, True)
    head_bias: bool = True

    act_fn: str = "gelu"
    mlp_kind: MlpKind = "plain"
    gate_last: bool = False
    layer_scale: bool | Literal["attn"] = False
    post_norm: bool = False
    sandwich_norm: bool = False  # a norm before each sub-layer and another one after it
    v_norm: NormConfig | None = None
    attn_scale: float | None = None  # of the scores; 1 / sqrt(d_head) by default
    # Attention and MLP of a block both read its input. `fused_out`: the original has one output projection for both.
    parallel_attn_mlp: bool = False
    fused_out: bool = False
    differential: DifferentialConfig | None = None
    n_parallel: int = 1  # attentions, and MLPs, per block, whose sum is added; `n_heads` and `d_mlp` are those of one

    # None: as many as queries. Per layer if they differ.
    n_key_value_heads: int | tuple[int, ...] | None = None
    gated_attn: bool = False
    # How the original computes queries, keys and values, which decides the last bit: by three products instead of one,
    # and with the bias added after the product.
    separate_qkv: bool = False
    scale_scores: bool = False
    qkv_bias_separate: bool = False

    block_norm: NormConfig = field(default_factory=NormConfig)
    patch_norm: NormConfig | None = None
    pre_norm: NormConfig | None = None
    qk_norm: NormConfig | None = None
    attn_inner_norm: NormConfig | None = None
    mlp_input_norm: NormConfig | None = None
    mlp_inner_norm: NormConfig | None = None
    final_norm: NormConfig | None = field(default_factory=NormConfig)
    norm_after_pool: bool = False
    pooled_norm: NormConfig | None = None  # a second norm, after the pool, of models with one before it, too

    pool: Pool = "cls"
    pool_includes_prefix: bool = False
    pool_n_heads: int = 0
    pool_d_mlp: int = 0
    pool_act_fn: str = "gelu"
    pool_qkv_bias: bool = True
    pool_norm: NormConfig | None = None
    pool_qk_norm: NormConfig | None = None

    # Device and dtype of the weights, which TransformerLens's tools read here; not part of the architecture.
    device: torch.device = field(default=torch.device("cpu"), compare=False)
    dtype: torch.dtype = field(default=torch.float32, compare=False)

    def __post_init__(self) -> None:
        if not self.d_head:
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)
        grouped = self.n_key_value_heads
        if isinstance(grouped, tuple) and len(set(grouped)) == 1 and len(grouped) == self.n_layers:
            object.__setattr__(self, "n_key_value_heads", grouped[0])
        if self.n_key_value_heads == self.n_heads:
            object.__setattr__(self, "n_key_value_heads", None)
        self._check_key_value_heads()

    def _check_key_value_heads(self) -> None:
        grouped = self.n_key_value_heads
        counts = grouped if isinstance(grouped, tuple) else (grouped or self.n_heads,)
        if isinstance(grouped, tuple) and len(grouped) != self.n_layers:
            raise ValueError(
                f"expected n_key_value_heads for each of the {self.n_layers} layers, got {len(grouped)} numbers"
            )
        if any(count < 1 or self.n_heads % count for count in counts):
            raise ValueError(f"expected n_key_value_heads that divide {self.n_heads} heads, got {grouped}")
        if self.rotary is not None and self.rotary.kind == "mixed" and grouped is not None:
            raise ValueError("rotary positions of kind 'mixed' rotate each head by itself, so keys cannot be grouped")

    @property
    def write_norms(self) -> tuple[str, str] | None:
        """The norms of a block whose outputs attention and MLP add to the stream, by name; `None` if it has none.

        >>> HookedViTConfig(2, 12, 3, 20, 7, (16, 24), (8, 8), sandwich_norm=True).write_norms
        ('ln1_post', 'ln2_post')
        """
        if self.post_norm:
            return "ln1", "ln2"
        return ("ln1_post", "ln2_post") if self.sandwich_norm else None

    def n_key_value_heads_at(self, layer: int) -> int:
        """The number of key and value heads in a layer; `n_heads` unless several query heads share them.

        >>> cfg = HookedViTConfig(2, 16, 4, 20, 7, (16, 24), (8, 8), n_key_value_heads=(4, 2))
        >>> [cfg.n_key_value_heads_at(layer) for layer in range(2)]
        [4, 2]
        """
        counts = self.n_key_value_heads
        return (counts[layer] if isinstance(counts, tuple) else counts) or self.n_heads

    @property
    def per_layer_num_key_value_heads(self) -> list[int]:
        """The number of key and value heads in each layer, under TransformerLens's name."""
        return [self.n_key_value_heads_at(layer) for layer in range(self.n_layers)]

    @property
    def token_layout(self) -> TokenLayout:
        """Which tokens are CLS, distillation, registers and patches, at the model's own image size."""
        return self.token_layout_at(*self.image_size)

    def token_layout_at(self, height: int, width: int) -> TokenLayout:
        """The token layout of an image of `height` × `width` pixels."""
        patch_height, patch_width = self.patch_size
        if self.pad_to_patches:
            grid = -(-height // patch_height), -(-width // patch_width)
        else:
            grid = height // patch_height, width // patch_width
        return self.token_layout_of(grid)

    def token_layout_of(self, grid: tuple[int, int]) -> TokenLayout:
        """The token layout of an image of `grid` patches, (from top to bottom, from left to right)."""
        n_registers = self.n_registers + self.n_added_registers
        return TokenLayout(int(self.has_cls), int(self.has_dist), n_registers, grid)

    @property
    def n_trained_prefix(self) -> int:
        """Number of prefix tokens that the model was trained with: all but the added registers.

        >>> HookedViTConfig(2, 12, 3, 20, 7, (16, 24), (8, 8), n_added_registers=2).n_trained_prefix
        1
        """
        return int(self.has_cls) + int(self.has_dist) + self.n_registers

    @property
    def read_tokens(self) -> slice:
        """The tokens that the head reads, as a slice of the token axis: CLS, CLS and distillation, or what is pooled.

        A head on CLS and the mean of the patches reads all tokens but registers; the slice includes them, and
        `read_weights` is zero there.

        >>> HookedViT.from_pretrained("emoji-vit").cfg.read_tokens
        slice(0, 1, None)
        """
        if self.pool in ("cls", "cls_and_dist"):
            return slice(0, 1 if self.pool == "cls" else 2)
        if self.pool == "cls_and_mean":
            return slice(0, None)
        return slice(0 if self.pool_includes_prefix else self.token_layout.n_prefix, None)

    def read_weights(self, n_tokens: int) -> Float[Tensor, "token"]:
        """The share of each of `n_tokens` tokens in what the head reads: equal shares, that sum to 1.

        A head on CLS and the mean of the patches reads half CLS, half patches.

        >>> cfg = HookedViTConfig(2, 12, 3, 20, 7, (16, 16), (8, 8), pool="cls_and_mean", n_registers=1)
        >>> cfg.read_weights(6)
        tensor([0.5000, 0.0000, 0.1250, 0.1250, 0.1250, 0.1250])
        """
        weights = torch.zeros(n_tokens, dtype=self.dtype, device=self.device)
        if self.pool == "cls_and_mean":
            n_prefix = self.token_layout.n_prefix
            weights[0], weights[n_prefix:] = 0.5, 0.5 / (n_tokens - n_prefix)
            return weights
        weights[self.read_tokens] = 1
        return weights / weights.sum()

    @property
    def n_read(self) -> int:
        """How many vectors the head reads side by side: CLS and the mean of the patches, or one."""
        return 2 if self.pool == "cls_and_mean" else 1

    @property
    def position_grid(self) -> tuple[int, int]:
        """Height and width of the grid that positions were learnt on: whole patches only, even if images are padded."""
        if self.grid_positions is not None:
            return self.grid_positions.grid
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def n_ctx(self) -> int:
        """Number of tokens at the model's own image size, prefix tokens included."""
        return self.token_layout.n_tokens

    # What else TransformerLens's tools read from a config.
    @property
    def normalization_type(self) -> str:
        """`"LN"` or `"RMS"`: the norm of the blocks, in TransformerLens's terms."""
        return "LN" if self.block_norm.kind == "layer" else "RMS"

    @property
    def final_rms(self) -> bool:
        """Whether the norm before the head is an RMSNorm."""
        return self.final_norm is not None and self.final_norm.kind == "rms"

    @property
    def gated_mlp(self) -> bool:
        """Whether the MLP multiplies its activations by a second, linear projection."""
        return self.mlp_kind != "plain"

    @property
    def d_vocab(self) -> int:
        """Another name for `n_classes`: a class is to a ViT what a token is to a language model."""
        return self.n_classes

    attn_only = False
    use_attn_result = True
    use_split_qkv_input = True
    use_attn_in = False
    use_hook_mlp_in = True

"""HookedViT: its parts, its forward pass, and how to load one."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hooked_vit.class_names import ClassNames, numbered_class_names, ordered_class_names
from hooked_vit.components.attention import AttentionCore
from hooked_vit.components.attention_terms import AttentionTerms, additive_mask, bias_at, rotation_at
from hooked_vit.components.embed import Embed
from hooked_vit.components.flexible_embed import FlexibleEmbed
from hooked_vit.components.norm import Norm
from hooked_vit.components.parallel_block import made_block
from hooked_vit.components.pool import AttentionPool, pool_tokens
from hooked_vit.components.relative_bias import RelativeBias
from hooked_vit.components.rotary import Rotary
from hooked_vit.config import HookedViTConfig
from hooked_vit.derived_models import DerivedModels
from hooked_vit.hook_point import HookPoint
from hooked_vit.input_checks import (
    check_images,
    check_known_grid,
    check_number,
    check_residual,
    check_return,
    check_size,
    check_token_mask,
)
from hooked_vit.parameters import Parameters
from hooked_vit.patch_sequences import PatchSequences, n_images
from hooked_vit.pictures import Pictures
from hooked_vit.running import Running
from hooked_vit.token_layout import KeptTokens, TokenLayout

if TYPE_CHECKING:
    from hooked_vit.porting.ported import Ported
    from hooked_vit.porting.verify import Verification

ReturnType = Literal["logits", "loss", "both"]


class HookedViT(Parameters, DerivedModels, Pictures, Running):
    """A Vision Transformer in which every activation and every parameter matrix has a TransformerLens-style name.

    Load one with `from_pretrained` or `from_timm`; built from a config alone, its weights are placeholders.
    It has no dropout: it computes what the timm model computes in evaluation mode.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> logits, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64))
    >>> cache["pattern", 3].shape, cache["resid_post", -1].shape
    (torch.Size([1, 4, 65, 65]), torch.Size([1, 65, 128]))
    """

    def __init__(self, cfg: HookedViTConfig, class_names: ClassNames | None = None):
        super().__init__()
        self.cfg = cfg
        self.class_names = _checked_class_names(class_names, cfg.n_classes)
        self.data_config: dict[str, Any] | None = None
        if cfg.stem is not None:
            self.hook_stem = HookPoint()
        self.hook_patch_embed = HookPoint()
        self.hook_embed = HookPoint()
        self.hook_pos_embed = HookPoint()
        self.embed = (FlexibleEmbed if cfg.linear_patches or cfg.grid_positions else Embed)(cfg)
        self.ln_pre = Norm(cfg.d_model, cfg.pre_norm) if cfg.pre_norm else None
        self.hook_tokens = HookPoint()
        self.rotary = Rotary(cfg) if cfg.rotary else None
        self.relative_bias = RelativeBias(cfg) if cfg.relative_bias and cfg.relative_bias.shared else None
        self.blocks = nn.ModuleList(made_block(cfg, layer) for layer in range(cfg.n_layers))
        on_stream = not cfg.norm_after_pool
        self.ln_final = Norm(cfg.d_model, cfg.final_norm, input_is_cached=on_stream) if cfg.final_norm else None
        self.ln_pooled = Norm(cfg.d_model, cfg.pooled_norm) if cfg.pooled_norm else None
        self.attn_pool = AttentionPool(cfg) if cfg.pool == "attention" else None
        self.hook_pooled = HookPoint()
        has_head, has_dist = cfg.n_classes > 0, cfg.pool == "cls_and_dist"
        self.head = nn.Linear(cfg.n_read * cfg.d_model, cfg.n_classes, bias=cfg.head_bias) if has_head else None
        self.head_dist = nn.Linear(cfg.d_model, cfg.n_classes) if has_head and has_dist else None
        if has_dist:
            self.hook_pooled_dist = HookPoint()
            self.hook_logits_cls = HookPoint()
            self.hook_logits_dist = HookPoint()
        self.hook_logits = HookPoint()
        self.setup()

    # ------------------------------------------------------------------ loading

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        weights: str | Path | None = None,
        ignore_keys: Sequence[str] = (),
        prefix: str | None = None,
        weights_key: str | None = None,
        class_names: ClassNames | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **timm_kwargs: Any,
    ) -> "HookedViT":
        """Load a model by name, or from a folder.

        The name is `"emoji-vit"`, a timm name with its tag, `"hf-hub:owner/model"` for timm on the Hugging Face hub,
        `"hf:owner/model"` for transformers, or `"open_clip:architecture/weights"`.

        Args:
            name: The embedded model, anything `timm.create_model` knows, a name of transformers after `hf:`, such as
                `"hf:facebook/dinov2-small"`, a name of open_clip, such as `"open_clip:ViT-B-32/laion2b_s34b_b79k"`,
                or a folder with `config.json` and `model.safetensors` of timm, transformers or open_clip. Models of
                transformers come with their preprocessing and `id2label`; where their pictures have another size
                than their positions, as in DINOv2, the positions are resampled.
            weights: A `.safetensors`, `.pt`, `.pth`, `.bin`, `.ckpt` or `.pth.tar` file for the architecture
                `name`, instead of the published weights. It is read without unpickling code. With an `img_size` that
                is not the file's, its positions are resampled as timm does.
            ignore_keys: Keys of that file to leave out (`*` matches).
            prefix: What the model's keys in that file begin with, such as `"backbone."`; other keys are left out.
                The prefixes of common wrappers are found without it.
            weights_key: Which state dict of that file, if it holds several, such as `"teacher"`.
            class_names: One name per class, as a list or a dict by class index; known for ImageNet heads and the
                embedded models.
            device: The device of the weights.
            dtype: The dtype of the weights.
            timm_kwargs: Passed to `timm.create_model`, such as `img_size`, `num_classes`. Models of other libraries
                take `img_size` only.

        Raises:
            ValueError: If the name is unknown (similar names are suggested), its architecture has a part that is
                not covered, or the file does not fit.
            FileNotFoundError: If there is no such weights file or folder, or the folder lacks a file.
            OSError: If the weights are not in the cache and cannot be downloaded.

        >>> HookedViT.from_pretrained("emoji-vit").class_names[:3]
        ('monkey', 'dog', 'cat')
        """
        from hooked_vit.loading import load_pretrained

        class_names, name = None if class_names is None else ordered_class_names(class_names), str(name)
        with torch.inference_mode(False):  # weights made in inference mode could never be differentiated
            ported = load_pretrained(name, weights, tuple(ignore_keys), class_names, prefix, weights_key, **timm_kwargs)
            return cls._from_ported(ported).to(device=device, dtype=dtype)

    @classmethod
    def from_module(cls, module: nn.Module, class_names: ClassNames | None = None) -> "HookedViT":
        """Port a module of timm, Hugging Face transformers, open_clip or OpenAI's clip; its weights are copied.

        Hugging Face: ViT, DeiT, I-JEPA, DINOv2 with and without registers, CLIP, SigLIP and SigLIP 2: the encoder, its
        image classifier, CLIP with its projection, or the encoder inside a larger model, such as a vision-language
        model, of which only the encoder is read. Without a head, the features are the normed CLS token, the attention
        pool's output, or the mean of the normed patches if the encoder has neither.

        A Hugging Face module does not know its preprocessing: `from_pretrained` with `"hf:..."` or a folder does.

        Args:
            module: The module, in any mode; its evaluation mode is what the port computes.
            class_names: One name per class, as a list or a dict by class index; by default those that the module
                knows (`pretrained_cfg`, `id2label`).

        Raises:
            ValueError: If the module comes from another library or has a part that is not covered; the message names
                it.

        >>> from transformers import Dinov2Config, Dinov2Model
        >>> sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
        >>> module = Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=7)).eval()
        >>> model = HookedViT.from_module(module)
        >>> model.verify(module, torch.randn(2, 3, 28, 28)).relative < 1e-6
        True
        """
        from hooked_vit.loading import port

        class_names = None if class_names is None else ordered_class_names(class_names)
        with torch.inference_mode(False):
            return cls._from_ported(port(module, class_names, copy=True))

    @classmethod
    def from_timm(cls, module: nn.Module, class_names: ClassNames | None = None) -> "HookedViT":
        """`from_module`, for a timm module, however it was made; its weights are copied.

        Raises:
            ValueError: If the module has a part that is not covered; the message names it.

        >>> import timm
        >>> module = timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=(32, 48), depth=2).eval()
        >>> model = HookedViT.from_timm(module)
        >>> images = torch.randn(2, 3, 32, 48)
        >>> model.verify(module, images).relative < 1e-6
        True
        """
        return cls.from_module(module, class_names)

    @classmethod
    def _from_ported(cls, ported: "Ported") -> "HookedViT":
        model = cls._on_storage_of(ported.weights, ported.cfg, ported.class_names)
        model.data_config, model.fused_attention = ported.data_config, ported.fused_attention
        return model.eval()

    def with_weights(
        self,
        weights: Mapping[str, Tensor],
        cfg: HookedViTConfig | None = None,
        class_names: ClassNames | None = None,
    ) -> "HookedViT":
        """A model with this one's preprocessing and the given weights; this model is left unchanged.

        The new model uses the storage of the tensors, so an in-place edit of a weight reaches every model that shares
        it. Its parameters are objects of its own: moving or freezing the model does not affect the others.

        Args:
            weights: One tensor per parameter, by name (see `named_parameters`). A parameter requires gradients if its
                tensor does. The statistics of a stem's batch norms are this model's, unless they are among the weights.
            cfg: Its architecture; this model's by default.
            class_names: One name per class, as a list or a dict by class index; this model's by default if the number
                of classes is the same.

        Raises:
            ValueError: If a parameter is missing, or a tensor belongs to no parameter.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> half = model.with_weights({name: 0.5 * weight for name, weight in model.named_parameters()})
        >>> torch.equal(half.W_U, 0.5 * model.W_U)
        True
        """
        cfg = self.cfg if cfg is None else cfg
        if class_names is None and cfg.n_classes == self.cfg.n_classes:
            class_names = self.class_names
        weights = {**self._statistics(), **weights}
        model = self._on_storage_of(weights, cfg, class_names)
        model.data_config, model.fused_attention = self.data_config, self.fused_attention
        return model.train(self.training)

    @classmethod
    def _on_storage_of(
        cls, weights: Mapping[str, Tensor], cfg: HookedViTConfig, class_names: ClassNames | None
    ) -> "HookedViT":
        with torch.device("meta"):
            model = cls(cfg, class_names)
        missing = sorted(model.state_dict().keys() - weights.keys())
        surplus = sorted(weights.keys() - model.state_dict().keys())
        if missing or surplus:
            raise ValueError(f"the weights do not fit the model: missing {missing}, surplus {surplus}")
        with torch.inference_mode(False):
            # a tensor made in inference mode can never be differentiated; its copy can
            usable = {name: tensor.clone() if tensor.is_inference() else tensor for name, tensor in weights.items()}
            like = next(tensor for name, tensor in usable.items() if name.startswith("blocks.0.attn"))
            for part in model.modules():
                if isinstance(part, Rotary | RelativeBias):
                    # these are made with their buffers, which are not among the weights
                    part.to(device=like.device, dtype=like.dtype)
            model.load_state_dict({name: tensor.detach() for name, tensor in usable.items()}, assign=True)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(weights[name].requires_grad)
        return model

    # ------------------------------------------------------------------ forward pass

    def forward(
        self,
        input: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch kept d_model"] | Mapping[str, Any],
        return_type: ReturnType | None = "logits",
        labels: Int[Tensor, "batch"] | None = None,
        *,
        token_mask: Bool[Tensor, "batch token"] | None = None,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        image_size: tuple[int, int] | None = None,
        sequences: Mapping[str, Any] | None = None,
    ) -> Any:
        """The logits [batch n_classes] of images, their loss, or both.

        Args:
            input: Preprocessed images; with `start_at_layer`, a residual stream. A model of the NaFlex kind also takes
                a dict of sequences of patches, as `preprocess_naflex` makes it: its token axis holds every sequence,
                and padding is neither attended to nor pooled.
            return_type: `"logits"`, `"loss"` (mean cross-entropy with `labels`), `"both"` (a pair), or `None` if only
                hooks or a cache are needed.
            labels: Class indices.
            token_mask: True at the tokens to keep; the others are dropped after the position embedding, and the
                token axis of every activation holds the kept tokens (see `KeptTokens`).
            start_at_layer: Take `input` as the residual stream that enters this layer (`n_layers`: the head). The
                stream of a run with a `token_mask` needs the same mask.
            stop_at_layer: Return the residual stream that enters this layer; nothing after it is computed.
            image_size: With `start_at_layer`, the height and width of the images that the stream comes from; the
                model's own by default. Only models with rotary positions need it, and only at other sizes.
            sequences: With `start_at_layer`, the dict of patches that the stream comes from, if it comes from one.

        Raises:
            ValueError: If the input does not fit the model; the message says what was expected.
        """
        if sequences is not None and start_at_layer is None:
            raise ValueError("sequences= goes with start_at_layer: pass the dict itself as the input")
        first = 0 if start_at_layer is None else self._layer(start_at_layer)
        last = self.cfg.n_layers if stop_at_layer is None else self._layer(stop_at_layer)
        if last < first:
            raise ValueError(f"stop_at_layer={stop_at_layer} comes before start_at_layer={start_at_layer}")
        batch = 0
        if isinstance(input, Tensor | Mapping):  # not len() of a tensor, which fixes an exported batch axis
            batch = input.shape[0] if isinstance(input, Tensor) else n_images(input)
        check_return(return_type, labels, batch, self.cfg.n_classes, stop_at_layer)
        if start_at_layer is None:
            layout = self._layout_of_input(input, image_size)
            residual, kept = self._start_of_stream(input, layout, token_mask)
        else:
            layout = self._layout_of_stream(input, image_size, token_mask, sequences, attends=first < last)
            residual, kept = self._resume_stream(input, layout, token_mask)
        terms = self._attention_terms(layout, kept, residual.dtype)
        of_outer_run, self._tokens.kept = self._tokens.kept, kept  # a hook may run the model again
        try:
            for layer in range(first, last):
                residual = self.blocks[layer](residual, terms.at(layer))
        finally:
            self._tokens.kept = of_outer_run
        if stop_at_layer is not None:
            return residual
        logits = self.head_logits(residual, kept)
        if return_type in ("logits", None):
            return logits if return_type == "logits" else None
        assert labels is not None
        loss = F.cross_entropy(logits, labels)
        return loss if return_type == "loss" else (logits, loss)

    def _layer(self, layer: int) -> int:
        n_layers = self.cfg.n_layers
        if not -n_layers <= layer <= n_layers:
            raise ValueError(f"layer {layer} is out of range: 0 to {n_layers}, or negative from the end")
        return layer + n_layers if layer < 0 else layer

    def _layout_of_input(
        self, input: Tensor | Mapping[str, Any], image_size: tuple[int, int] | None
    ) -> TokenLayout | PatchSequences:
        if isinstance(input, Mapping):
            sequences = PatchSequences.from_dict(input, self.cfg)
            check_number(sequences.patches, self.embed.weight)
            return sequences
        check_images(input, self.cfg, self.embed.weight)
        size = (input.shape[-2], input.shape[-1])
        if image_size is not None and tuple(image_size) != size:
            raise ValueError(f"image_size={image_size} goes with start_at_layer; the images have {size[0]} × {size[1]}")
        return self.cfg.token_layout_at(*size)

    def _layout_of_stream(
        self,
        residual: Tensor | Mapping[str, Any],
        image_size: tuple[int, int] | None,
        token_mask: Tensor | None,
        sequences: Mapping[str, Any] | None,
        attends: bool,
    ) -> TokenLayout | PatchSequences:
        """The layout of the images that a resumed stream comes from."""
        if isinstance(residual, Mapping):
            raise TypeError(
                f"with start_at_layer the input is a residual stream [batch, token, {self.cfg.d_model}], got a dict: a "
                "dict of patches that a stream comes from is passed as sequences="
            )
        if sequences is not None:
            return PatchSequences.from_dict(sequences, self.cfg)
        if image_size is not None:
            check_size(image_size, self.cfg)
        layout = self.cfg.token_layout_at(*(image_size or self.cfg.image_size))
        has_all = residual if token_mask is None else token_mask.T[None]
        if attends and image_size is None and self.rotary is not None and has_all.ndim == 3:
            check_known_grid(has_all.shape[1], layout)
        return layout

    def _start_of_stream(
        self, input: Any, layout: TokenLayout | PatchSequences, token_mask: Tensor | None
    ) -> tuple[Tensor, KeptTokens | None]:
        points = self.hook_patch_embed, self.hook_embed, self.hook_pos_embed
        if isinstance(layout, PatchSequences):
            assert isinstance(self.embed, FlexibleEmbed)
            tokens = self.embed.forward_sequences(layout, *points)
        else:
            tokens = self.embed(input, layout, *points, None if self.cfg.stem is None else self.hook_stem)
        kept = padded = self._padded(layout)
        if token_mask is not None:
            keep = self._checked_mask(token_mask, padded, tokens, tokens.shape[1])
            if not keep.all():
                kept = KeptTokens.from_mask(keep, self.token_layout)
                tokens = kept.take(tokens)
        if self.ln_pre is not None:
            tokens = self.ln_pre(tokens)
        return self.hook_tokens(tokens), kept

    def _resume_stream(
        self, residual: Any, layout: TokenLayout | PatchSequences, token_mask: Tensor | None
    ) -> tuple[Tensor, KeptTokens | None]:
        kept = self._padded(layout)
        if token_mask is not None:
            n_tokens = None if kept is None else kept.index.shape[1]
            keep = self._checked_mask(token_mask, kept, residual, n_tokens)
            kept = KeptTokens.from_mask(keep, self.token_layout)
        check_residual(residual, self.embed.weight, self.cfg, None if kept is None else kept.index.shape[1])
        return residual, kept

    def _padded(self, layout: TokenLayout | PatchSequences) -> KeptTokens | None:
        """The tokens of sequences, of which padding is not valid; `None` for images, which have none."""
        if isinstance(layout, TokenLayout):
            return None
        return KeptTokens.padded(layout.valid, self.token_layout.n_prefix)

    def _checked_mask(
        self, token_mask: Tensor, padded: KeptTokens | None, tokens: Tensor, n_tokens: int | None
    ) -> Tensor:
        """A mask of the tokens to keep, without padding."""
        check_token_mask(token_mask, tokens.shape[0], tokens.device, self.cfg, n_tokens)
        if padded is None:
            return token_mask
        token_mask = token_mask & padded.valid
        check_token_mask(token_mask, tokens.shape[0], tokens.device, self.cfg, n_tokens)
        return token_mask

    def attention_terms(self, image_size: tuple[int, int] | None = None) -> AttentionTerms:
        """What attention takes besides the stream, of all layers: rotations by position, and a bias that layers share.

        `terms.at(layer)` are those of one layer, for `model.blocks[layer].resume`.

        Args:
            image_size: Height and width of the images; the model's own by default.

        Raises:
            ValueError: If the model does not take images of this size.

        >>> HookedViT.from_pretrained("emoji-vit").attention_terms()
        AttentionTerms(mask=None, rotation=None, bias=None, kept=None)
        """
        if image_size is not None:
            check_size(image_size, self.cfg)
        layout = self.cfg.token_layout_at(*(image_size or self.cfg.image_size))
        return self._attention_terms(layout, None, self.embed.weight.dtype)

    def _attention_terms(
        self, layout: TokenLayout | PatchSequences, kept: KeptTokens | None, dtype: torch.dtype
    ) -> AttentionTerms:
        rotation = None if self.rotary is None else self.rotary(layout)
        bias = None if self.relative_bias is None else self.relative_bias()
        if kept is None:
            return AttentionTerms(rotation=rotation, bias=bias)
        # if all images keep the same number of tokens, there is no padding to mask
        mask = None if kept.valid.all() else additive_mask(kept.valid, dtype)
        rotation = None if rotation is None else rotation_at(rotation, kept.index)
        return AttentionTerms(mask, rotation, None if bias is None else bias_at(bias, kept.index), kept.index)

    def head_logits(
        self, residual: Float[Tensor, "batch kept d_model"], kept: KeptTokens | None = None
    ) -> Float[Tensor, "batch n_classes"] | Float[Tensor, "batch read"]:
        """The last step of `forward`: from the last residual stream to the logits, or to features without a head.

        Args:
            residual: The last residual stream. If the head does not pool, the first tokens, `cfg.read_tokens`, are
                enough.
            kept: Which tokens it holds, in a run with a `token_mask`.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> logits, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64), names_filter=("resid_post", -1))
        >>> torch.allclose(model.head_logits(cache["resid_post", -1][:, :1]), logits, atol=1e-5)
        True
        """
        tokens = self.ln_final(residual) if self.ln_final is not None and not self.cfg.norm_after_pool else residual
        if self.cfg.pool == "cls_and_dist":
            return self._distilled_logits(tokens)
        pooled = self._pool(tokens, kept)
        if self.ln_final is not None and self.cfg.norm_after_pool:
            # with a token axis of length one, so that its scale is shaped like that of any other norm
            pooled = self.ln_final(pooled[:, None])[:, 0]
        if self.ln_pooled is not None:
            pooled = self.ln_pooled(pooled[:, None])[:, 0]
        pooled = self.hook_pooled(pooled)
        return self.hook_logits(pooled if self.head is None else self.head(pooled))

    def _pool(self, tokens: Tensor, kept: KeptTokens | None) -> Tensor:
        if self.cfg.pool == "cls":
            return tokens[:, 0]
        if self.cfg.pool == "cls_and_mean":
            patches = tokens[:, self.cfg.token_layout.n_prefix :] if kept is None else tokens
            mean = pool_tokens(patches, "avg", None if kept is None else kept.is_patch)
            return torch.cat([tokens[:, 0], mean], dim=-1)
        if kept is None:
            mask, tokens = None, tokens[:, self.cfg.read_tokens]
        else:
            mask = kept.valid if self.cfg.pool_includes_prefix else kept.is_patch
            first = self.cfg.read_tokens.start
            if not mask[:, :first].any():  # as in a run without a mask: zeros in a sum can change its last bit
                mask, tokens = mask[:, first:], tokens[:, first:]
        if self.attn_pool is None:
            return pool_tokens(tokens, self.cfg.pool, mask)
        return self.attn_pool(tokens, None if mask is None else additive_mask(mask, tokens.dtype))

    def _distilled_logits(self, tokens: Tensor) -> Tensor:
        cls, dist = self.hook_pooled(tokens[:, 0]), self.hook_pooled_dist(tokens[:, 1])
        if self.head is not None and self.head_dist is not None:
            cls, dist = self.head(cls), self.head_dist(dist)
        return self.hook_logits((self.hook_logits_cls(cls) + self.hook_logits_dist(dist)) / 2)

    # ------------------------------------------------------------------ the rest

    @property
    def token_layout(self) -> TokenLayout:
        """Which tokens are CLS, distillation, registers and patches, at the model's own image size."""
        return self.cfg.token_layout

    def token_layouts(
        self, images: Float[Tensor, "batch channel height width"] | Mapping[str, Any]
    ) -> list[TokenLayout]:
        """The token layout of each image of a batch; in a dict of patches, every image has a grid of its own.

        Padding follows the tokens of the layout, so `cache["resid_post", 3][i, layouts[i].patches]` are the patches of
        image `i`.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> [layout.grid for layout in model.token_layouts(torch.zeros(2, 3, 64, 64))]
        [(8, 8), (8, 8)]
        """
        if isinstance(images, Mapping):
            return PatchSequences.from_dict(images, self.cfg).layouts(self.cfg)
        check_images(images, self.cfg, self.embed.weight)
        return [self.cfg.token_layout_at(*images.shape[-2:])] * len(images)

    @property
    def fused_attention(self) -> bool:
        """Whether attention is fused unless a hook is attached to it. Set it to switch all layers."""
        return all(module.fused for module in self.modules() if isinstance(module, AttentionCore))

    @fused_attention.setter
    def fused_attention(self, fused: bool) -> None:
        for module in self.modules():
            if isinstance(module, AttentionCore):
                module.fused = fused

    def verify(
        self, module: nn.Module, images: Float[Tensor, "batch channel height width"] | Mapping[str, Any]
    ) -> "Verification":
        """Compare this port with the module it was made from: the largest difference, and where it arises.

        See `hooked_vit.porting.verify`.

        Raises:
            ValueError: If the images do not fit the model, or the two return logits of different shapes.
        """
        from hooked_vit.porting.verify import verify

        return verify(self, module, images)

    def _apply(self, *args: Any, **kwargs: Any) -> "HookedViT":
        super()._apply(*args, **kwargs)
        weight = self.embed.weight
        self.cfg = dataclasses.replace(self.cfg, device=weight.device, dtype=weight.dtype)
        return self


def _checked_class_names(class_names: ClassNames | None, n_classes: int) -> tuple[str, ...]:
    names = numbered_class_names(n_classes) if class_names is None else ordered_class_names(class_names)
    if len(names) != n_classes:
        raise ValueError(f"expected {n_classes} class names, one for each class, got {len(names)}")
    return names

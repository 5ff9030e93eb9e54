"""What run_with_cache returns: TransformerLens's ActivationCache, adapted to Vision Transformers."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.utilities import Slice, SliceInput

from hooked_vit.absent_points import refuse_absent, why_absent
from hooked_vit.activations import Activations, Computed
from hooked_vit.config import HookedViTConfig, NormConfig
from hooked_vit.hook_axes import hook_axes
from hooked_vit.hook_names import HookName, require_names


def token_axis(name: str, cfg: HookedViTConfig) -> int | None:
    """The axis of a hook point's activation that is the tokens (in a pattern, the queries); `None` if it has none.

    >>> cfg = HookedViTConfig(2, 12, 3, 20, 7, (16, 24), (8, 8))
    >>> token_axis("blocks.0.attn.hook_pattern", cfg), token_axis("hook_pooled", cfg)
    (2, None)
    """
    axes = hook_axes(name, cfg)
    return next((index for index, axis in enumerate(axes) if axis in ("token", "query")), None)


def at_tokens(
    activation: Shaped[Tensor, "*axes"], name: str, tokens: Slice, cfg: HookedViTConfig
) -> Shaped[Tensor, "*sliced"]:
    """A hook point's batched activation at some of the tokens; all of it if it has no token axis.

    Raises:
        ValueError: If there is no such token.
    """
    axis = token_axis(name, cfg)
    if axis is not None:
        if tokens.mode == "identity":
            return activation
        try:
            return tokens.apply(activation, dim=axis)
        except IndexError as error:
            n_tokens = activation.shape[axis]
            raise ValueError(f"pos_slice={tokens.slice} is out of range: '{name}' has {n_tokens} tokens") from error
    if tokens.mode == "int" and name.startswith(("ln_final.", "ln_pooled.")):
        return activation[:, 0]  # a norm after pooling has a token axis of length one, which an index drops
    return activation


class ViTActivationCache(ActivationCache):
    """TransformerLens's cache with methods that handle LayerScale, post-norms, a norm before the first block, and
    heads that norm the pooled tokens.

    Head results and neuron results are what is added to the stream. In a post-norm block they are computed with the
    norm's own scale, which must be in the cache, and the biases become a vector for each token. With a norm before the
    first block, the parts `embed` and `pos_embed` do not sum to the stream; `tokens` replaces both.
    """

    model: Any
    cache_dict: Any

    def __getitem__(self, key: HookName) -> Tensor:
        """An activation by full name, short name with its layer, or short name.

        Raises:
            KeyError: If it is not in the cache; the nearest names in it are suggested.
        """
        try:
            return super().__getitem__(key)
        except KeyError as error:
            name = error.args[0]
            block, _, point = str(name).rpartition(".")
            if block.startswith("blocks.") and f"{block}.attn.{point}" in self.cache_dict:
                return self.cache_dict[f"{block}.attn.{point}"]  # a point that TransformerLens does not place
            reason = why_absent(str(name), self.model.cfg)
            if reason is not None:
                raise KeyError(reason) from None
            near = get_close_matches(str(name), self.cache_dict, n=3, cutoff=0.5)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise KeyError(f"'{name}' is not among the {len(self.cache_dict)} names of the cache{hint}") from None

    def require(self, names: Iterable[str], how: str, reader: str | None = None) -> None:
        """Check that activations are in the cache.

        Args:
            names: Full names of hook points.
            how: The expression to pass as `names_filter` to get them, for the message.
            reader: What reads them, for the message.

        Raises:
            ValueError: If one is not in the cache; the message names the first and the run that caches them.

        >>> model, images = HookedViT.from_pretrained("emoji-vit"), torch.zeros(1, 3, 64, 64)
        >>> _, cache = model.run_with_cache(images, names_filter="z")
        >>> cache.require(model.hook_names("v"), how="'v'")
        Traceback (most recent call last):
        ValueError: the cache lacks 'blocks.0.attn.hook_v' and 7 more: run `model.run_with_cache(images, ...
        """
        which = "" if reader is None else f", which {reader} reads"
        names = list(names)
        refuse_absent(names, self.model.cfg)
        remedy = f"{which}: run `model.run_with_cache(images, names_filter={how})`"
        require_names(names, self.cache_dict, "the cache", remedy)

    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: Slice | SliceInput | None = None,
        mlp_input: bool = False,
        return_labels: bool = False,
    ) -> Any:
        """As TransformerLens's: the stream before each block. `incl_mid` needs blocks with a `resid_mid`."""
        if incl_mid:
            refuse_absent(["blocks.0.hook_resid_mid"], self.model.cfg)
        self._check_mlp_input(mlp_input)
        return super().accumulated_resid(layer, incl_mid, apply_ln, pos_slice, mlp_input, return_labels)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the cache keeps alive, shared memory counted once.

        In a lean cache these include the images of the run, and what was computed last.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> _, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64), names_filter=("resid_post", 0))
        >>> cache.nbytes == 4 * 65 * 128
        True
        """
        held = self.cache_dict.held() if isinstance(self.cache_dict, Activations) else self.cache_dict.values()
        storages = [tensor.untyped_storage() for tensor in held]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def drop_computed(self) -> None:
        """Forget what was computed when it was read; it is computed again when it is read again."""
        if isinstance(self.cache_dict, Activations):
            self.cache_dict.drop_computed()

    def hold_everything(self) -> "ViTActivationCache":
        """Compute every activation that would be computed when it is read, and hold all of them; returns itself.

        From then on the cache is a plain one: it takes the memory of all activations, and does not depend on the
        weights.
        """
        self.cache_dict = dict(self.cache_dict)
        return self

    def to(self, device: torch.device | str) -> "ViTActivationCache":
        """As TransformerLens's: move the cache. On another device it holds everything."""
        if isinstance(self.cache_dict, Activations) and torch.device(device) == self.model.cfg.device:
            return self
        super().to(device)
        return self

    def remove_batch_dim(self, batch_size: int | None = None) -> "ViTActivationCache":
        """As TransformerLens's: drop the batch axis of a cache of one image."""
        n_images = self._batch_size() if batch_size is None else batch_size
        if not isinstance(self.cache_dict, Activations) or not self.has_batch_dim or n_images != 1:
            super().remove_batch_dim(batch_size)  # which says what is wrong
            return self
        self.cache_dict, self.has_batch_dim = self.cache_dict.mapped(itemgetter(0)), False
        return self

    def _batch_size(self) -> int:
        if isinstance(self.cache_dict, Activations):  # all of them are batched
            return len(next(iter(self.cache_dict.held())))
        return super()._batch_size()

    def decompose_resid(self, layer: int | None = None, mlp_input: bool = False, *args: Any, **kwargs: Any) -> Any:
        """As TransformerLens's: the stream before a layer as embedding, attention and MLP outputs."""
        self._check_mlp_input(mlp_input)
        return self._on_linear("decompose_resid", layer, mlp_input, *args, **kwargs)

    def _check_mlp_input(self, mlp_input: bool) -> None:
        """Raise ValueError if the MLP of a parallel block is asked for another input than its attention's."""
        if mlp_input and self.model.cfg.parallel_attn_mlp:
            raise ValueError(
                "in this model attention and MLP of a block both read its input: leave out mlp_input, which means the "
                "stream after attention"
            )

    def get_neuron_results(self, *args: Any, **kwargs: Any) -> Any:
        """As TransformerLens's: what each neuron of a layer adds to the stream."""
        return self._on_linear("get_neuron_results", *args, **kwargs)

    def stack_neuron_results(self, *args: Any, **kwargs: Any) -> Any:
        """As TransformerLens's: what each neuron of all layers before one adds to the stream."""
        return self._on_linear("stack_neuron_results", *args, **kwargs)

    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: Slice | SliceInput | None = None,
        **kwargs: Any,
    ) -> Any:
        """As TransformerLens's: the stream as embedding, heads, neurons or MLPs, and biases, which sum to it."""
        self._check_mlp_input(mlp_input)
        args = (layer, mlp_input, expand_neurons, apply_ln, pos_slice)
        return self._on_linear("get_full_resid_decomposition", *args, bias_at=pos_slice, **kwargs)

    def apply_slice_to_batch_dim(self, batch_slice: Slice | SliceInput) -> "ViTActivationCache":
        """As TransformerLens's: the cache of some of the images."""
        if isinstance(self.cache_dict, Activations) and self.has_batch_dim:
            images = batch_slice if isinstance(batch_slice, Slice) else Slice(batch_slice)
            part: Any = self.cache_dict.mapped(lambda activation: images.apply(activation, dim=0))
            return ViTActivationCache(part, self.model, has_batch_dim=images.mode != "int")
        sliced = super().apply_slice_to_batch_dim(batch_slice)
        return ViTActivationCache(sliced.cache_dict, self.model, sliced.has_batch_dim)

    def apply_ln_to_stack(
        self,
        residual_stack: Float[Tensor, "component *batch_token d_model"],
        layer: int | None = None,
        mlp_input: bool = False,
        pos_slice: Slice | SliceInput | None = None,
        batch_slice: Slice | SliceInput | None = None,
        has_batch_dim: bool = True,
        recompute_ln: bool = False,
    ) -> Float[Tensor, "component *batch_token_out d_model"]:
        """As TransformerLens's: centre, and divide by the cached scale. The head's norm is the final norm.

        Raises:
            ValueError: If there is no such norm between the stream and its reader.
        """
        recompute_ln = recompute_ln and self._norm_before(layer) is not None
        return super().apply_ln_to_stack(
            residual_stack, layer, mlp_input, pos_slice, batch_slice, has_batch_dim, recompute_ln
        )

    def _norm_before(self, layer: int | None) -> NormConfig | None:
        """The norm between the stream and what reads it in block `layer`, or in the head."""
        cfg: HookedViTConfig = self.model.cfg
        if layer in (None, -1, cfg.n_layers):
            if cfg.pool == "attention" and cfg.norm_after_pool:
                raise ValueError("the final norm comes after the attention pool: it cannot be applied to the stream")
            return cfg.final_norm
        if cfg.post_norm:
            raise ValueError(
                f"block {layer} reads the stream without a norm (it norms what it writes): "
                "use apply_ln=False, or apply the final norm"
            )
        return cfg.block_norm

    def _uses_ln_centering(self, layer: int | None) -> bool:
        norm = self._norm_before(layer)
        return norm is not None and norm.kind == "layer"

    def _get_cached_ln_scale(
        self, layer: int | None, mlp_input: bool, pos_slice: Slice, batch_slice: Slice | None = None
    ) -> Tensor:
        cfg: HookedViTConfig = self.model.cfg
        if self._norm_before(layer) is None:
            return torch.ones(())
        if layer in (None, -1, cfg.n_layers) and cfg.norm_after_pool:
            # the norm after pooling has one scale for all tokens
            pos_slice = Slice(0) if pos_slice.mode == "int" else Slice(None)
        if cfg.parallel_attn_mlp:
            mlp_input = False  # both read through `ln1`
        return super()._get_cached_ln_scale(layer, mlp_input, pos_slice, batch_slice)

    def logit_attrs(
        self,
        residual_stack: Float[Tensor, "component *batch_token d_model"],
        tokens: str | int | Int[Tensor, "*batch"],
        *args: Any,
        **kwargs: Any,
    ) -> Float[Tensor, "component *batch_token_out"]:
        """As TransformerLens's, with a class (index, name, or one index per image) instead of a token.

        Under a CLS readout the attributions at the CLS token sum to the class logit except for the constant
        `ln_final.bias @ W_U + b_U`; under average pooling, their mean over the pooled tokens does. A distilled
        model reads two tokens with one head each: the direction here is the mean of both heads, as in `class_logits`,
        and the attributions at neither token sum to its logit.
        """
        return super().logit_attrs(residual_stack, tokens, *args, **kwargs)

    def _ensure_head_results(self) -> bool:
        if isinstance(self.cache_dict, Activations) and self.cache_dict.offers("blocks.0.attn.hook_result"):
            return True  # a lean cache computes those of the block that is read
        refuse_absent(["blocks.0.attn.hook_result"], self.model.cfg)
        all_cached = True
        for layer, block in enumerate(self.model.blocks):
            name = f"blocks.{layer}.attn.hook_result"
            if name not in self.cache_dict:
                all_cached = False
                z = self[f"blocks.{layer}.attn.hook_z"]
                self.cache_dict[name] = block.head_results(z, self._post_scale(layer, 1))
        return all_cached

    def _post_scale(self, layer: int, norm: int) -> Tensor | None:
        norms = self.model.cfg.write_norms
        return None if norms is None else self[f"blocks.{layer}.{norms[norm - 1]}.hook_scale"]

    def _on_linear(self, method: str, *args: Any, bias_at: Any = None, **kwargs: Any) -> Any:
        """Run a method of TransformerLens's on the cache of an equivalent model whose sub-layers write linearly."""
        if isinstance(self.model, _LinearWrites):
            return getattr(super(), method)(*args, **kwargs)
        linear = self._linear(bias_at)
        result = getattr(linear, method)(*args, **kwargs)
        if self._starts_after_embed() and isinstance(result, tuple):
            stack, labels = result
            return stack, ["tokens" if label == "embed" else label for label in labels]
        return result

    def _starts_after_embed(self) -> bool:
        """Whether the stream does not start at `embed + pos_embed`: after a norm, or with tokens dropped."""
        embed, tokens = self.cache_dict.get("hook_embed"), self.cache_dict.get("hook_tokens")
        dropped = embed is not None and tokens is not None and embed.shape != tokens.shape
        return dropped or self.model.cfg.pre_norm is not None

    def _linear(self, bias_at: Any) -> "ViTActivationCache":
        cfg: HookedViTConfig = self.model.cfg
        activations = self.cache_dict.copy()
        if self._starts_after_embed():
            activations.pop("hook_pos_embed", None)
            activations.pop("hook_embed", None)
            if "hook_tokens" in activations:
                activations["hook_embed"] = activations["hook_tokens"]
        if cfg.write_norms is not None:
            for layer in range(cfg.n_layers):
                post = f"blocks.{layer}.mlp.hook_post"
                if post in activations:
                    activations[post] = self._divided(post, f"blocks.{layer}.{cfg.write_norms[1]}.hook_scale")
        bias_at = bias_at if isinstance(bias_at, Slice) else Slice(bias_at)
        return ViTActivationCache(activations, _LinearWrites(self, bias_at), self.has_batch_dim)

    def _divided(self, name: str, scale: str) -> Any:
        """One activation over another: now, or when it is read if it is computed then."""
        if isinstance(self.cache_dict, Activations):
            return Computed(lambda: self[name] / self[scale])
        return self[name] / self[scale]


class _LinearBlocks:
    """Blocks whose W_O and W_out include LayerScale, or the linear part of a post-norm."""

    def __init__(self, blocks: list[Any]):
        self._blocks = blocks

    def __iter__(self) -> Iterator[Any]:
        return iter(self._blocks)

    def __getitem__(self, layer: int) -> SimpleNamespace:
        block = self._blocks[layer]
        W_O, W_out = block.attn.W_O, block.mlp.W_out
        norm1, norm2 = block.write_norms
        if norm1 is not None and norm2 is not None:
            unit = W_out.new_ones(1)
            W_O, W_out = norm1.divide(W_O, unit, bias=False), norm2.divide(W_out, unit, bias=False)
        else:
            W_O, W_out = block.scaled_W_O, block.scaled_W_out
        return SimpleNamespace(attn=SimpleNamespace(W_O=W_O), mlp=SimpleNamespace(W_out=W_out))


class _LinearWrites:
    """A model in which everything between `z` or `post` and the stream is folded into the weights."""

    def __init__(self, cache: ViTActivationCache, bias_at: Slice):
        self._cache, self._bias_at, model = cache, bias_at, cache.model
        self.cfg, self.ln_final = model.cfg, model.ln_final
        self.blocks = _LinearBlocks(list(model.blocks))

    def accumulated_bias(self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True) -> Tensor:
        """Sum of what biases add before `layer`: a vector, or with post-norms one vector per token of a slice."""
        model = self._cache.model
        norms = self.cfg.write_norms
        if norms is None:
            return model.accumulated_bias(layer, mlp_input, include_mlp_biases)
        total = model.embed.weight.new_zeros(self.cfg.d_model)
        for index, block in enumerate(model.blocks):
            if index < layer or (mlp_input and index == layer):
                total = total + block.attn_out_bias(self._scale(f"blocks.{index}.{norms[0]}"))
            if index < layer and include_mlp_biases:
                total = total + block.mlp_out_bias(self._scale(f"blocks.{index}.{norms[1]}"))
        return total

    def _scale(self, norm: str) -> Tensor:
        return self._bias_at.apply(self._cache[f"{norm}.hook_scale"], dim=-2)

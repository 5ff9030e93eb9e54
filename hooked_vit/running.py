"""Running a model with hooks, caching its activations, and taking their gradients."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.utilities import Slice, SliceInput

from hooked_vit.absent_points import why_absent
from hooked_vit.activations import Activations
from hooked_vit.cache import ViTActivationCache
from hooked_vit.caching import caching_hooks, hook_that_may_write
from hooked_vit.config import HookedViTConfig
from hooked_vit.hook_names import ON_DEMAND, NamesFilter, resolve_names
from hooked_vit.hook_point import RunningTokens
from hooked_vit.lean import refuse_with_lean, run_lean
from hooked_vit.patch_sequences import n_images
from hooked_vit.splicing import ErrorTerm, Splice, attached, checked_splices
from hooked_vit.thread_guard import ThreadGuard

Hooks = Sequence[tuple[NamesFilter, Callable[..., Any]]]
"""Pairs of hook points (see `Running.hook_names`) and a function `fn(activation, hook)`."""


class Running(HookedRootModule):
    """TransformerLens's methods for running a model, with checked names and gradients of any metric."""

    cfg: HookedViTConfig
    _left_out: frozenset[str] = frozenset(ON_DEMAND)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._threads = ThreadGuard()
        self._splices: list[Splice] = []
        self._tokens = RunningTokens()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model, unless another thread has hooks on it."""
        if torch.compiler.is_compiling():
            return super().__call__(*args, **kwargs)
        with self._threads.running():
            try:
                return super().__call__(*args, **kwargs)
            finally:
                for splice in self._splices:
                    splice.forget()

    def setup(self) -> None:
        """As TransformerLens's: names the hook points, which also learn the tokens of each run."""
        super().setup()
        for point in self.hook_points():
            setattr(point, "tokens", self._tokens)  # noqa: B010  (no tensor or module, as pyright expects)

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether a cache of everything holds `hook_result`. As in TransformerLens, but hooks on it always work."""
        self._leave_out({"hook_result"}, not use_attn_result)

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Whether a cache of everything holds `hook_q_input`, `hook_k_input`, `hook_v_input`; hooks always work."""
        self._leave_out({"hook_q_input", "hook_k_input", "hook_v_input"}, not use_split_qkv_input)

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Whether a cache of everything holds `hook_mlp_in`; hooks on it always work."""
        self._leave_out({"hook_mlp_in"}, not use_hook_mlp_in)

    def _leave_out(self, names: set[str], left_out: bool) -> None:
        self._left_out = self._left_out | names if left_out else self._left_out - names

    def set_live_hook_points(self, names: NamesFilter = lambda name: True, live: bool = True) -> None:
        """Keep hook points running whether or not a hook is attached to them.

        Points such as `hook_pattern`, `hook_scale` and `hook_result` exist only while a hook is attached. Tools that
        wrap modules instead of attaching hooks, such as nnsight, do not see them unless they are live. A live point
        is followed: attention is not fused, norms are written out, and the model is slower.

        Args:
            names: Which points (see `hook_names`); all by default.
            live: False returns them to existing on demand.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> model.set_live_hook_points("pattern")
        >>> model.blocks[0].attn.hook_pattern.live, model.blocks[0].attn.hook_result.live
        (True, False)
        """
        for name in self.hook_names(names):
            setattr(self.hook_dict[name], "live", live)  # noqa: B010  (no tensor or module, as pyright expects)

    def hook_names(self, names: NamesFilter = lambda name: True) -> list[str]:
        """The hook points that `names` selects (all by default); see `resolve_names` for what it may be.

        >>> HookedViT.from_pretrained("emoji-vit").hook_names(("pattern", 0))
        ['blocks.0.attn.hook_pattern']
        """
        if isinstance(names, str) and names in self.hook_dict:
            return [names]  # fast: a cache of everything resolves each name
        why = partial(why_absent, cfg=self.cfg)
        return resolve_names(names, self.hook_dict, self.cfg.n_layers, self._left_out, why)

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Hooks = (),
        bwd_hooks: Hooks = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator["Running"]:
        """Attach hooks within a `with` block; they are removed also after an exception.

        Names may be anything that `hook_names` takes. A hook is `fn(activation, hook)`; if it returns a tensor, that
        replaces the activation.

        Raises:
            ValueError: If a name is unknown or matches nothing; then no hook is attached.
        """
        named: list[list[Any]] = [
            [(n, hook) for names, hook in hooks for n in self.hook_names(names)] for hooks in (fwd_hooks, bwd_hooks)
        ]
        if not (named[0] or named[1]):
            yield self  # such a block leaves the model as it is
            return
        with self._threads.hooking(), super().hooks(named[0], named[1], reset_hooks_end, clear_contexts):
            yield self

    @contextmanager
    def spliced(self, dictionaries: Mapping[Any, Any], error: ErrorTerm = "keep") -> Iterator["Running"]:
        """Send activations through sparse dictionaries within a `with` block.

        An activation x becomes `decode(latents) + error` with `latents = encode(x)` and `error = x - decode(latents)`.
        Both are hook points that exist within the block: `"<point>.dictionary.hook_latents"` [batch token d_dict] and
        `"<point>.dictionary.hook_error"` (shaped like x). They can be cached, patched, ablated and differentiated
        like any other. What no hook looks at is not computed.

        With the error kept and nothing edited, the logits and the gradients of all other activations are those of the
        plain run, bit for bit: what is added to x is the change of the reconstruction and of the error,

            x + (decode(latents') - decode(latents)) + (error' - error),

        with primes after the hooks. A gradient at `hook_latents` is the activation's gradient times the decoder; that
        at `hook_error` is the activation's own.

        Args:
            dictionaries: By hook point (a full name, or anything that `hook_names` resolves to one), what encodes and
                decodes its activations: any object with `encode` [vector width] -> [vector d_dict] and `decode` back.
                Where a point has heads, they are flattened. If `encode` returns a tuple, its last entry counts. For a
                transcoder the key is a pair of names: the point that it reads, and the point that it replaces, after
                which its hook points are named. An attribute `tokens` of the object, a group such as `"patch"`, limits
                it to these tokens: the others have zero latents and error, and stay as they are.
            error: `"keep"`, or `"drop"`: the activation becomes `decode(latents')`, and there is no `hook_error`.

        Raises:
            ValueError: If a point is unknown, has no vector per token, has a dictionary already, or has another width
                than the dictionary; or if a transcoder reads what comes after what it writes.

        >>> class Halves:  # the positive and the negative part of each number
        ...     def encode(self, x):
        ...         return torch.cat([x.relu(), (-x).relu()], dim=-1)
        ...     def decode(self, latents):
        ...         positive, negative = latents.chunk(2, dim=-1)
        ...         return positive - negative
        >>> model, images = HookedViT.from_pretrained("emoji-vit"), torch.zeros(1, 3, 64, 64)
        >>> with model.spliced({("resid_post", 5): Halves()}):
        ...     logits, cache = model.run_with_cache(images, names_filter="latents")
        >>> cache["blocks.5.hook_resid_post.dictionary.hook_latents"].shape, torch.equal(logits, model(images))
        (torch.Size([1, 65, 256]), True)
        """
        splices = checked_splices(self, dictionaries, error)
        with self._threads.hooking(), attached(self, splices):
            yield self

    def add_hook(self, name: NamesFilter, hook: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """As TransformerLens's; the name may be anything that `hook_names` takes."""
        for full_name in self.hook_names(name):
            super().add_hook(full_name, hook, *args, **kwargs)

    def remove_all_hook_fns(
        self,
        direction: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """As TransformerLens's, but skips hook points without hooks: it is called after every run."""
        for point in self.hook_points():
            if point.fwd_hooks or point.bwd_hooks:
                point.remove_hooks(direction, including_permanent, level)

    def run_with_cache(
        self,
        *model_args: Any,
        names_filter: NamesFilter = None,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        incl_bwd: bool = False,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        pos_slice: Slice | SliceInput | None = None,
        return_cache_object: bool = True,
        lean: bool = False,
        **model_kwargs: Any,
    ) -> tuple[Any, Any]:
        """Run the model and keep activations: `(output, cache)`.

        A cache of everything computes some activations when they are read, from others that it holds, bit for bit as
        they were: `attn_scores` and `pattern` (from `q` and `k`), `normalized`, and the neurons `post`. This halves
        its memory. It holds all of them if the run is edited, and whatever `names_filter` asks for is held. A new
        tensor is returned then: to change the cache, assign to `cache.cache_dict[name]`.

        Args:
            model_args: As for `forward`.
            names_filter: The activations (see `hook_names`); by default all except those computed on demand,
                `hook_result`, `hook_mlp_in` and the split inputs (`set_use_attn_result` and the like include them).
            device: The device to keep them on.
            remove_batch_dim: Drop the batch axis; for a single image.
            incl_bwd: Call backward on the output, and keep gradients too, under names that end in `_grad`. The
                output must be a scalar, as with `return_type="loss"`; for other metrics use `run_with_gradients`.
            reset_hooks_end: Whether to remove the caching hooks at the end.
            clear_contexts: Whether to clear the hooks' contexts then.
            pos_slice: The tokens to keep (of a pattern, the queries).
            return_cache_object: False for a plain dict.
            lean: Hold the images and the residual streams only, and compute any other activation when it is read, by
                running its block again: bit for bit as in the run, at the price of that block's forward pass. The
                activations of the block that was read last are kept. Also what exists on demand can be read. An
                activation cannot be read after the weights of its block have changed. See `hooked_vit.lean`.
            model_kwargs: As for `forward`.

        Raises:
            ValueError: If a name is unknown, matches nothing, comes after `stop_at_layer`, or has no such token; if
                `remove_batch_dim` is used with several images, or `incl_bwd` with an output other than the loss; with
                `lean`, if the model has a hook that may write, or for an option that keeps less or elsewhere.

        >>> model, images = HookedViT.from_pretrained("emoji-vit"), torch.zeros(2, 3, 64, 64)
        >>> _, full = model.run_with_cache(images)
        >>> _, lean = model.run_with_cache(images, lean=True)
        >>> torch.equal(lean["pattern", 3], full["pattern", 3]), full.nbytes > 4 * lean.nbytes
        (True, True)
        """
        if incl_bwd and model_kwargs.get("return_type", (*model_args, "logits", "logits")[1]) != "loss":
            raise ValueError(
                'incl_bwd calls backward on the output, which must be a scalar: pass return_type="loss" and labels, or '
                "use `run_with_gradients` with any metric"
            )
        if remove_batch_dim:
            batch = n_images(model_args[0] if model_args else model_kwargs["input"])
            if batch != 1:
                raise ValueError(f"remove_batch_dim is for a single image, got a batch of {batch}")
        activations: Any
        if lean:
            refuse_with_lean(device=device, incl_bwd=incl_bwd or None, pos_slice=pos_slice)
            output, activations = run_lean(self, names_filter, model_args, model_kwargs)
            activations = activations.mapped(itemgetter(0)) if remove_batch_dim else activations
            if not return_cache_object:
                return output, dict(activations)
            return output, ViTActivationCache(activations, self, has_batch_dim=not remove_batch_dim)
        tokens = Slice.unwrap(pos_slice)
        whole = names_filter is None and device is None and tokens.mode == "identity" and return_cache_object
        recipes = whole and hook_that_may_write(self) is None
        names = self.hook_names(names_filter)
        store, fwd_hooks, bwd_hooks = caching_hooks(
            self.cfg, names, incl_bwd, device, remove_batch_dim, tokens, recipes
        )
        with self.hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
            output = self(*model_args, **model_kwargs)
            if incl_bwd:
                output.backward()
        if not store:
            raise ValueError(
                f"none of the {len(names)} requested hook points, such as '{names[0]}', was reached: "
                "change names_filter, start_at_layer or stop_at_layer"
            )
        if not return_cache_object:
            return output, store
        activations = Activations(store) if recipes else store
        return output, ViTActivationCache(activations, self, has_batch_dim=not remove_batch_dim)

    def get_caching_hooks(
        self,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
        pos_slice: Slice | SliceInput | None = None,
    ) -> tuple[dict[str, Tensor], list[Any], list[Any]]:
        """As TransformerLens's: hooks that fill a dict with activations; `pos_slice` uses the token axis of each."""
        names = self.hook_names(names_filter)
        return caching_hooks(self.cfg, names, incl_bwd, device, remove_batch_dim, Slice.unwrap(pos_slice), store=cache)

    def add_caching_hooks(
        self,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """As TransformerLens's: caching hooks that stay until `reset_hooks`; returns the dict that they fill."""
        cache, fwd_hooks, bwd_hooks = self.get_caching_hooks(names_filter, incl_bwd, device, remove_batch_dim, cache)
        for name, hook in fwd_hooks:
            self.add_hook(name, hook)
        for name, hook in bwd_hooks:
            self.add_hook(name, hook, dir="bwd")
        return cache

    def run_with_gradients(
        self,
        input: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch kept d_model"] | Mapping[str, Any],
        metric: Callable[[Float[Tensor, "batch n_classes"]], Tensor],
        names_filter: NamesFilter = None,
        fwd_hooks: Hooks = (),
        **forward_kwargs: Any,
    ) -> tuple[Tensor, ViTActivationCache, ViTActivationCache]:
        """Run the model; return a metric of its logits, the activations, and the metric's gradients at them.

        Args:
            input: As for `forward`.
            metric: From logits to a scalar or to one number per image; images do not interact, so the gradients of
                the latter are those of each image.
            names_filter: The hook points (see `hook_names`).
            fwd_hooks: Other hooks for this run, called before those that record.
            forward_kwargs: As for `forward`.

        Returns:
            `(value, cache, gradients)`, all detached; the parameters' `grad` is left unchanged. The gradient is zero at
            tokens that do not reach the readout, such as patches of the last block under a CLS readout.

        Raises:
            ValueError: If the metric returns something else, or does not depend on the logits.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> images = torch.zeros(2, 3, 64, 64)
        >>> value, cache, gradients = model.run_with_gradients(images, lambda logits: logits[:, 3], "resid_post")
        >>> value.shape, gradients["resid_post", 0].shape
        (torch.Size([2]), torch.Size([2, 65, 128]))
        """
        recorded: dict[str, Tensor] = {}

        def record(activation: Tensor, hook: Any) -> Tensor:
            # a new tensor for each hook point: the same one may pass several
            tensor = activation.view_as(activation) if activation.requires_grad else activation.detach()
            recorded[hook.name] = tensor.requires_grad_()
            return recorded[hook.name]

        record.leaves_storage = True  # pyright: ignore[reportFunctionMemberAccess]  (see HookPoint)
        names = self.hook_names(names_filter)
        with torch.inference_mode(False), torch.enable_grad():
            input = _usable(input)
            with self.hooks(fwd_hooks=[*fwd_hooks, *((name, record) for name in names)]):
                logits = self(input, **forward_kwargs)
                value = metric(logits)
            batch = n_images(input)
            if not isinstance(value, Tensor) or value.shape not in ((), (batch,)):
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"metric must return a scalar or one number per image ([{batch}]), got {got}")
            if not value.requires_grad:
                raise ValueError("metric returned a constant: it must be computed from the logits")
            gradients = torch.autograd.grad(value.sum(), list(recorded.values()), materialize_grads=True)
        cache = {name: tensor.detach() for name, tensor in recorded.items()}
        return (
            value.detach(),
            ViTActivationCache(cache, self),
            ViTActivationCache(dict(zip(recorded, gradients, strict=True)), self),
        )


def _usable(input: Any) -> Any:
    """An input that was made in inference mode, copied so that autograd can use it."""
    if isinstance(input, Mapping):
        return {key: _usable(value) for key, value in input.items()}
    return input.clone() if isinstance(input, Tensor) and input.is_inference() else input

"""Splices: an activation goes through a sparse dictionary, whose latents and error are hook points."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from hooked_vit.config import HookedViTConfig
from hooked_vit.hook_axes import hook_axes, vector_axes
from hooked_vit.hook_point import HookPoint, is_only_read, is_watched
from hooked_vit.token_layout import TOKEN_GROUPS, token_group

__all__ = ["ErrorTerm", "Splice", "activation_width", "attached", "checked_splices"]

ErrorTerm = Literal["keep", "drop"]


def activation_width(name: str, model: Any) -> int:
    """The width of a hook point's activation per token, heads flattened, as a dictionary reads it.

    Raises:
        ValueError: If it is not one vector per token or image.

    >>> activation_width("blocks.0.mlp.hook_post", HookedViT.from_pretrained("emoji-vit"))
    512
    """
    cfg: HookedViTConfig = model.cfg
    axes = hook_axes(name, cfg)
    sizes = {"d_model": cfg.d_model, "neuron": cfg.d_mlp, "head": cfg.n_heads, "d_head": cfg.d_head}
    if "key_value_head" in axes:
        sizes["key_value_head"] = cfg.n_key_value_heads_at(int(name.split(".")[1]))
    _, inner = vector_axes(axes)
    if not inner or any(axis not in sizes for axis in inner):
        raise ValueError(f"a dictionary needs one vector per token or image; '{name}' has axes {', '.join(axes)}")
    return math.prod(sizes[axis] for axis in inner)


class Splice:
    """A dictionary in a model, between the hook point that it reads and the one that it writes.

    Args:
        dictionary: Has `encode`, `decode` and maybe `tokens`.
        reads: Full name of the point that it reads.
        writes: Full name of the point whose activation it replaces; the same, unless it is a transcoder.
        keeps_error: Whether the error is added.
        cfg: The model's.
    """

    def __init__(self, dictionary: Any, reads: str, writes: str, keeps_error: bool, cfg: HookedViTConfig):
        self.dictionary, self.reads, self.writes, self.keeps_error = dictionary, reads, writes, keeps_error
        self._cfg, self._tokens = cfg, str(getattr(dictionary, "tokens", "any"))
        self._n_leading = len(vector_axes(hook_axes(reads, cfg))[0])
        self.hook_latents, self.hook_error = HookPoint(), HookPoint()
        points = {"hook_latents": self.hook_latents} | ({"hook_error": self.hook_error} if keeps_error else {})
        self.points = {f"{writes}.dictionary.{name}": point for name, point in points.items()}
        for name, point in self.points.items():
            point.name = name
        self._read: Tensor | None = None

    @property
    def only_reads(self) -> bool:
        """Whether the activation is sure to stay as it is: the error is kept, and all hooks on its points only read."""
        return self.keeps_error and is_only_read(self.hook_latents) and is_only_read(self.hook_error)

    @property
    def hooks(self) -> list[tuple[str, Callable[..., Any]]]:
        """The hooks that carry it out."""
        if self.reads == self.writes:
            return [(self.writes, _SpliceHook(self, lambda x: self._through(x, x)))]
        return [(self.reads, _SpliceHook(self, self._keep)), (self.writes, _SpliceHook(self, self._write))]

    def forget(self) -> None:
        """Forget what a transcoder has read, at the end of a run."""
        self._read = None

    def _keep(self, activation: Tensor) -> None:
        self._read = activation

    def _write(self, activation: Tensor) -> Tensor | None:
        if self._read is None:
            raise ValueError(
                f"the dictionary at '{self.writes}' reads '{self.reads}', which this run did not compute before it: "
                "it comes after it in the model, or start_at_layer leaves it out"
            )
        return self._through(self._read, activation)

    def _through(self, read: Tensor, x: Tensor) -> Tensor | None:
        """What becomes of an activation; `None` if it stays as it is."""
        if self.keeps_error and not (is_watched(self.hook_latents) or is_watched(self.hook_error)):
            return None
        chosen = self._chosen(read)
        latents = self._encode(read, chosen)
        edited = self.hook_latents(latents)
        if not self.keeps_error:
            return self._reconstruction(x, latents, edited, chosen)
        if edited is latents and not is_watched(self.hook_error):
            return None
        decoded, out = self._decode(latents, x), x
        if edited is not latents:  # exact zeros wherever the two are equal, in the gradient too
            out = out + (self._decode(edited, x) - decoded)
        if is_watched(self.hook_error):
            error = x - decoded
            if chosen is not None:
                error = torch.where(self._column(chosen, x), error, torch.zeros_like(error))
            edited_error = self.hook_error(error)
            out = out if edited_error is error else out + (edited_error - error)
        return None if out is x else out

    def _reconstruction(self, x: Tensor, latents: Tensor, edited: Tensor, chosen: Tensor | None) -> Tensor:
        decoded = self._decode(edited, x)
        if chosen is None:
            return decoded
        others = x if edited is latents else x + (decoded - self._decode(latents, x))
        return torch.where(self._column(chosen, x), decoded, others)

    def _chosen(self, read: Tensor) -> Tensor | None:
        """A mask of the tokens that go through; `None` if all do."""
        if self._tokens == "any":
            return None
        return token_group(self._cfg.token_layout, self._tokens, read.shape[1]).to(read.device)

    def _column(self, chosen: Tensor, x: Tensor) -> Tensor:
        return chosen.reshape(-1, *(1,) * (x.ndim - 2))

    def _encode(self, read: Tensor, chosen: Tensor | None) -> Tensor:
        vectors = read.flatten(self._n_leading)
        if chosen is None:
            return encoded(self.dictionary, vectors.flatten(0, -2)).unflatten(0, vectors.shape[:-1])
        vectors = vectors[:, chosen]
        latents = encoded(self.dictionary, vectors.flatten(0, -2)).unflatten(0, vectors.shape[:-1])
        all_tokens = latents.new_zeros(len(read), read.shape[1], latents.shape[-1])
        all_tokens[:, chosen] = latents
        return all_tokens

    def _decode(self, latents: Tensor, x: Tensor) -> Tensor:
        return self.dictionary.decode(latents.flatten(0, -2)).to(x.dtype).reshape(x.shape)


class _SpliceHook:
    """A hook whose promise not to write depends on the hooks on the splice's own points."""

    leaves_storage = True

    def __init__(self, splice: Splice, run: Callable[[Tensor], Tensor | None]):
        self._splice, self._run = splice, run

    @property
    def only_reads(self) -> bool:
        return self._splice.only_reads

    def __call__(self, activation: Tensor, hook: Any) -> Tensor | None:
        return self._run(activation)


def encoded(dictionary: Any, vectors: Tensor) -> Tensor:
    """The latents of vectors; where `encode` returns a tuple, as overcomplete's does, its last entry."""
    latents = dictionary.encode(vectors)
    return latents[-1] if isinstance(latents, tuple | list) else latents


def checked_splices(model: Any, dictionaries: Mapping[Any, Any], error: str) -> list[Splice]:
    """A splice for each dictionary, before anything is attached.

    Raises:
        ValueError: As `Running.spliced`.
    """
    if error not in get_args(ErrorTerm):
        raise ValueError(f"error is 'keep' or 'drop', got {error!r}")
    if not isinstance(dictionaries, Mapping) or not dictionaries:
        got = "none" if isinstance(dictionaries, Mapping) else type(dictionaries).__name__
        raise ValueError(f"expected dictionaries by hook point, such as {{'blocks.5.hook_resid_post': sae}}, got {got}")
    splices: list[Splice] = []
    for key, dictionary in dictionaries.items():
        reads, writes = _points(model, key)
        if f"{writes}.dictionary.hook_latents" in {*model.hook_dict, *(name for s in splices for name in s.points)}:
            raise ValueError(f"'{writes}' has a dictionary already: splice in one per hook point")
        _check_dictionary(dictionary, reads, writes, model)
        splices.append(Splice(dictionary, reads, writes, error == "keep", model.cfg))
    return splices


def _points(model: Any, key: Any) -> tuple[str, str]:
    """The points that a key names."""
    is_pair = isinstance(key, tuple) and len(key) == 2 and not isinstance(key[1], int)
    names = [model.hook_names(part) for part in (key if is_pair else (key, key))]
    for found in names:
        if len(found) != 1:
            raise ValueError(f"expected one hook point for a dictionary, {key!r} means {len(found)}: {found[0]}, ...")
    reads, writes = names[0][0], names[1][0]
    layers = [int(name.split(".")[1]) if name.startswith("blocks.") else None for name in (reads, writes)]
    if layers[0] is not None and layers[1] is not None and layers[0] > layers[1]:
        raise ValueError(f"a transcoder reads before it writes, but '{reads}' comes after '{writes}': swap the two")
    if vector_axes(hook_axes(reads, model.cfg))[0] != vector_axes(hook_axes(writes, model.cfg))[0]:
        raise ValueError(f"'{reads}' and '{writes}' do not have the same tokens")
    return reads, writes


def _check_dictionary(dictionary: Any, reads: str, writes: str, model: Any) -> None:
    missing = [name for name in ("encode", "decode") if not callable(getattr(dictionary, name, None))]
    if missing:
        raise ValueError(
            f"the dictionary at '{writes}' must have methods encode and decode, {type(dictionary).__name__} has no "
            f"{missing[0]}"
        )
    tokens, has_tokens = getattr(dictionary, "tokens", "any"), "token" in hook_axes(reads, model.cfg)
    if tokens not in TOKEN_GROUPS:
        raise ValueError(f"the dictionary's tokens must be one of {', '.join(TOKEN_GROUPS)}, got {tokens!r}")
    if tokens != "any":
        if not has_tokens:
            raise ValueError(f"the dictionary is for {tokens} tokens, '{reads}' has axes without tokens")
        token_group(model.cfg.token_layout, tokens)  # raises if the model has none
    d_in, d_out = activation_width(reads, model), activation_width(writes, model)
    weight = model.embed.weight
    try:
        with torch.no_grad():
            latents = encoded(dictionary, weight.new_zeros(1, d_in))
            found = tuple(dictionary.decode(latents).shape)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"the dictionary at '{writes}' does not take the activation of '{reads}', of width {d_in}: {error}"
        ) from error
    if found != (1, d_out):
        raise ValueError(
            f"the dictionary decodes one token to shape {found}, '{writes}' has width {d_out}: it was made for another "
            "hook point or model"
        )


@contextmanager
def attached(model: Any, splices: Sequence[Splice]) -> Iterator[None]:
    """The splices and their hook points are part of the model within this block.

    The hooks are permanent, so that `reset_hooks` within the block leaves them on.
    """
    handles: list[tuple[HookPoint, Any]] = []
    names = [name for splice in splices for name in splice.points]
    try:
        _add_points(model, splices)
        model._splices.extend(splices)
        for splice in splices:
            for name, hook in splice.hooks:
                point = model.hook_dict[name]
                handles.append((point, point.add_hook(hook, is_permanent=True)))
        yield
    finally:
        for point, handle in handles:
            handle.hook.remove()
            if handle in point.fwd_hooks:
                point.fwd_hooks.remove(handle)
        for splice in splices:
            splice.forget()
        model._splices = [splice for splice in model._splices if splice not in splices]
        for name in names:
            model.hook_dict.pop(name, None)
            model.mod_dict.pop(name, None)


def _add_points(model: Any, splices: Sequence[Splice]) -> None:
    """List each splice's points right after the one that it writes."""
    by_point = {splice.writes: splice.points for splice in splices}
    listed: dict[str, HookPoint] = {}
    for name, point in model.hook_dict.items():
        listed |= {name: point, **by_point.get(name, {})}
    model.hook_dict = listed
    model.mod_dict |= {name: point for splice in splices for name, point in splice.points.items()}

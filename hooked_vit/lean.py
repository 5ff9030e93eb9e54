"""A lean cache: it holds the residual streams, and runs a part of the model again for any other activation."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hooked_vit.activations import Activations, Computed, Versions, as_in_the_run, settings_of_the_run
from hooked_vit.caching import caching_hooks, hook_that_may_write
from hooked_vit.components.attention import AttentionCore
from hooked_vit.input_checks import require_one_grid
from hooked_vit.unhooked import unhooked

__all__ = ["LeanRun", "refuse_with_lean", "run_lean"]

Part = int | str
"""A block by its number, or what comes before or after all blocks."""
_EMBED, _HEAD = "embedding", "head"


def refuse_with_lean(**options: Any) -> None:
    """Raise ValueError for an option that a lean cache has no use for."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(
            f"lean=True keeps residual streams only, and goes without {given[0]}: leave one of the two out"
        )


def run_lean(
    model: Any, names_filter: Any, arguments: tuple[Any, ...], named_arguments: Mapping[str, Any]
) -> tuple[Any, Activations]:
    """Run a HookedViT; its output, and its activations, most of which are computed when they are read.

    Args:
        model: The model.
        names_filter: The activations that are listed, as for `run_with_cache`.
        arguments: As for `forward`.
        named_arguments: Likewise.

    Raises:
        ValueError: If the model has a hook that may write or a dictionary spliced in, no activation is listed, or the
            input is a dict of patches.
    """
    if model._splices:
        raise ValueError(
            "lean=True computes activations again without the dictionaries that are spliced in: leave out lean=True, "
            "and pass the `names_filter` that you need"
        )
    writing = hook_that_may_write(model)
    if writing is not None:
        raise ValueError(
            f"lean=True computes activations again without hooks, and a hook on {writing} may change them: remove it, "
            "or leave out lean=True"
        )
    given = inspect.signature(model.forward).bind(*arguments, **named_arguments).arguments
    for name in ("input", "sequences"):
        require_one_grid(given.get(name))
    of_run = ("input", "token_mask", "start_at_layer", "stop_at_layer", "image_size")
    run = LeanRun(model, names_filter, **{name: given[name] for name in of_run if name in given})
    streams, hooks, _ = caching_hooks(model.cfg, run.stream_names)
    with model.hooks(fwd_hooks=hooks):
        output = model(*arguments, **named_arguments)
    return output, run.activations(streams)


class LeanRun:
    """A run of a model of which only the images and the residual streams between the blocks are kept.

    Everything else is computed when it is read: the part of the model that it belongs to runs again, on what that part
    read in the run. It gives what it gave then, bit for bit, as long as its weights are the same and PyTorch computes
    with as many threads.

    Args:
        model: A HookedViT, without hooks that write.
        names_filter: The activations that the cache lists.
        input: As for `forward`, and likewise the others.
    """

    def __init__(
        self,
        model: Any,
        names_filter: Any,
        input: Tensor,
        token_mask: Tensor | None = None,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        image_size: tuple[int, int] | None = None,
    ):
        self._model, self._n_layers = model, model.cfg.n_layers
        self._images = input.detach() if start_at_layer is None else None
        self._first = 0 if start_at_layer is None else model._layer(start_at_layer)
        self._blocks = range(self._first, self._n_layers if stop_at_layer is None else model._layer(stop_at_layer))
        reached: set[Part] = set(self._blocks)
        reached |= ({_EMBED} if start_at_layer is None else set()) | ({_HEAD} if stop_at_layer is None else set())
        self._part_of = {name: part for name, part in _parts(model).items() if part in reached}
        self._lists_everything, asked = names_filter is None, model.hook_names(names_filter)
        self.listed = [name for name in asked if name in self._part_of]
        if not self.listed:
            raise ValueError(
                f"none of the {len(asked)} requested hook points, such as '{asked[0]}', is reached: change "
                "names_filter, start_at_layer or stop_at_layer"
            )
        self._image_size = image_size if self._images is None else (input.shape[-2], input.shape[-1])
        self._mask = _mask_that_drops(model, input, token_mask, self._images is not None)
        self._weights = {part: Versions(_weights(model, part)) for part in reached}
        self._fused = [attention.fused for attention in _attentions(model)]
        self._settings = settings_of_the_run(input.device)
        self._streams: dict[int, Tensor] = {} if self._images is not None else {self._first: input.detach()}
        self._sources: dict[Part, Versions] = {}
        self._computed: dict[Part, Activations] = {}
        self._twin: Any = None

    @property
    def stream_names(self) -> list[str]:
        """The hook points that the run must cache."""
        starts = [f"blocks.{layer}.hook_resid_pre" for layer in self._blocks]
        return [*starts, *(f"blocks.{layer}.hook_resid_post" for layer in self._blocks[-1:])]

    def activations(self, streams: Mapping[str, Tensor]) -> Activations:
        """All activations of the run, given those of `stream_names`."""
        self._streams |= {self._first + index: streams[name] for index, name in enumerate(self.stream_names)}
        self._sources = {part: Versions([self._source(part)]) for part in self._weights}
        streams = self._named_streams()

        def entry(name: str) -> Tensor | Computed:
            return streams[name] if name in streams else Computed(lambda: self._value(name))

        further = self._part_of.keys() - set(self.listed)
        return Activations({n: entry(n) for n in self.listed}, {n: entry(n) for n in further}, self)

    def holds(self) -> list[Tensor]:
        """The tensors that are kept alive."""
        computed = [tensor for activations in self._computed.values() for tensor in activations.held()]
        return [*self._streams.values(), *([] if self._images is None else [self._images]), *computed]

    def drop_computed(self) -> None:
        """Forget what was computed when it was read."""
        self._computed.clear()
        self._twin = None

    def _named_streams(self) -> dict[str, Tensor]:
        """The streams by all hook points that they pass."""
        found: dict[str, Tensor] = {}
        for layer, stream in self._streams.items():
            found[f"blocks.{layer}.hook_resid_pre"] = found[f"blocks.{layer - 1}.hook_resid_post"] = stream
        if self._images is not None and self._streams:
            found["hook_tokens"] = self._streams[0]
        return {name: stream for name, stream in found.items() if name in self._part_of}

    def _source(self, part: Part) -> Tensor:
        """What a part read."""
        if part == _EMBED:
            assert self._images is not None
            return self._images
        return self._streams[self._n_layers if part == _HEAD else int(part)]

    def _value(self, name: str) -> Tensor:
        part, is_listed = self._part_of[name], name in self.listed
        if is_listed and part in self._computed:
            return self._computed[part][name]
        self._check_unchanged(name, part)
        if isinstance(part, int):  # of all blocks, the one that was read last is kept
            for block in [key for key in self._computed if isinstance(key, int)]:
                del self._computed[block]
        names = [other for other in self.listed if self._part_of[other] == part] if is_listed else [name]
        found = as_in_the_run(lambda: self._run(part, names, is_listed and self._lists_everything), self._settings)
        if is_listed:
            self._computed[part] = found
        return found[name]

    def _run(self, part: Part, names: list[str], recipes: bool) -> Activations:
        """These activations of a part, by running it again."""
        if self._twin is None:
            self._twin = unhooked(self._model)
        for attention, fused in zip(_attentions(self._twin), self._fused, strict=True):
            attention.fused = fused
        if isinstance(part, int):
            limits: dict[str, Any] = {"start_at_layer": part, "stop_at_layer": part + 1}
        else:
            limits = {"stop_at_layer": 0} if part == _EMBED else {"start_at_layer": self._n_layers}
        store, hooks, _ = caching_hooks(self._twin.cfg, names, recipes=recipes)
        with self._twin.hooks(fwd_hooks=hooks):
            self._twin(self._source(part), token_mask=self._mask, image_size=self._image_size, **limits)
        return Activations(store)

    def _check_unchanged(self, name: str, part: Part) -> None:
        where = f"block {part}" if isinstance(part, int) else f"the {part}"
        then, now = self._weights[part], _weights(self._model, part)
        replaced = len(now) != len(then.tensors) or any(a is not b for a, b in zip(then.tensors, now, strict=True))
        if replaced or then.edited() is not None:
            which = where if isinstance(part, int) else "the embedding or the head"
            raise ValueError(
                f"a lean cache computes '{name}' by running {where} again, and weights of {which} have changed since "
                "the run: run the model again, or cache it without lean=True, with the `names_filter` that you need"
            )
        if self._sources[part].edited() is not None:
            what = "the images" if part == _EMBED else "a residual stream"
            raise ValueError(
                f"a lean cache computes '{name}' by running {where} again on {what}, which it holds, and which has "
                "been edited in place since the run: edit a copy instead"
            )


def _parts(model: Any) -> dict[str, Part]:
    """The part of the model that each hook point belongs to."""
    names = list(model.hook_dict)
    first = next(index for index, name in enumerate(names) if name.startswith("blocks."))
    return {
        name: int(name.split(".")[1]) if name.startswith("blocks.") else _EMBED if index < first else _HEAD
        for index, name in enumerate(names)
    }


def _weights(model: Any, part: Part) -> list[Tensor]:
    """The parameters and buffers of a block, and of what all blocks use; for the others, of all that is no block."""
    if isinstance(part, int):
        shared = (getattr(model, name, None) for name in ("rotary", "relative_bias"))
        parts = [model.blocks[part], *(module for module in shared if module is not None)]
        return [tensor for module in parts for tensor in (*module.parameters(), *module.buffers())]
    named = [*model.named_parameters(), *model.named_buffers()]
    return [tensor for name, tensor in named if not name.startswith("blocks.")]


def _attentions(model: Any) -> list[AttentionCore]:
    return [module for module in model.modules() if isinstance(module, AttentionCore)]


def _mask_that_drops(model: Any, input: Tensor, mask: Tensor | None, are_images: bool) -> Tensor | None:
    """The mask if it drops a token; a mask that keeps all is as good as none."""
    if mask is None or (are_images and bool(mask.all())):
        return None
    if are_images and model.cfg.token_layout_at(*input.shape[-2:]) != model.token_layout:
        raise ValueError("lean=True takes a token_mask for images of the model's own size only: resize the images")
    return mask.clone()

"""Interventions that replace activations: by zero, a mean, another image's or another run's."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformer_lens import ActivationCache

from hooked_vit.hook_names import NamesFilter, require_names
from hooked_vit.interventions.selection import Selection
from hooked_vit.model import HookedViT

Intervention = list[tuple[str, Callable[..., Any]]]
"""Hooks by full name: interventions add up with `+`."""


@contextmanager
def intervene(model: HookedViT, *interventions: Intervention) -> Iterator[HookedViT]:
    """Apply interventions, in the order given, within a `with` block; they are removed also after an exception.

    Blocks nest, and whatever runs the model within them runs it with the interventions.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> no_head = zero_ablate(model, ("z", 3), heads=1)
    >>> with intervene(model, no_head, zero_ablate(model, ("mlp_out", 5), tokens="patch")):
    ...     logits, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64), names_filter=("z", 3))
    >>> cache["z", 3][:, :, 1].abs().max().item()
    0.0
    """
    with model.hooks(fwd_hooks=[hook for hooks in interventions for hook in hooks]):
        yield model


def edit(
    model: HookedViT, names: NamesFilter, change: Callable[[Tensor, str], Tensor | float], **where: Any
) -> Intervention:
    """Replace activations, or a part of them, by `change(activation, name)`.

    Interventions are lists of `(hook name, function)`: they add up with `+`, and can be passed to `model.hooks`,
    `model.run_with_hooks` and `intervene`.

    Args:
        model: The model.
        names: The hook points, as for `model.hook_names`: `("z", 3)`, `"mlp_out"`, a list.
        change: A function of the activation and the name of its hook point; what it returns is broadcast against the
            activation.
        where: `tokens`, `heads`, `neurons`, `queries`, `keys`, `latents`, as for `Selection`; everything by default.

    Raises:
        ValueError: If there is no such hook point, or it has no such axis, head, neuron or token.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> doubled = edit(model, ("mlp_out", 2), lambda activation, name: 2 * activation, tokens="cls")
    >>> model.run_with_hooks(torch.zeros(1, 3, 64, 64), fwd_hooks=doubled).shape
    torch.Size([1, 100])
    """
    selection, cfg = Selection.from_keywords(where), model.cfg
    full_names = model.hook_names(names)
    for name in full_names:
        selection.check(name, cfg)

    def replaced(activation: Tensor, hook: Any) -> Tensor:
        new = torch.as_tensor(change(activation, hook.name), dtype=activation.dtype, device=activation.device)
        mask = selection.mask(activation, hook.name, cfg)
        return new.expand_as(activation).clone() if mask is None else torch.where(mask, new, activation)

    return [(name, replaced) for name in full_names]


def zero_ablate(model: HookedViT, names: NamesFilter, **where: Any) -> Intervention:
    """Replace activations by zeros.

    A head is ablated at its `z`, `zero_ablate(model, ("z", layer), heads=head)`; a neuron at `("post", layer)`; a
    sub-layer, bias included, at `("attn_out", layer)` or `("mlp_out", layer)`; a stream at `("resid_pre", layer)`.

    Args:
        model: The model.
        names: The hook points, as for `model.hook_names`.
        where: As for `edit`.

    Raises:
        ValueError: As `edit`.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> hooks = zero_ablate(model, "z", heads=[0, 2]) + zero_ablate(model, ("post", -1), neurons=[7], tokens="cls")
    >>> len(hooks), hooks[-1][0]
    (9, 'blocks.7.mlp.hook_post')
    """
    return edit(model, names, lambda activation, name: 0.0, **where)


def mean_ablate(
    model: HookedViT, names: NamesFilter, means: Mapping[str, Tensor] | None = None, **where: Any
) -> Intervention:
    """Replace activations by their mean over images, position by position.

    Args:
        model: The model.
        names: The hook points, as for `model.hook_names`.
        means: What `mean_activations` returns; by default the mean over the images of each run.
        where: As for `edit`.

    Raises:
        ValueError: As `edit`; if `means` lacks a hook point, or (during the run) has another shape.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> images = torch.randn(4, 3, 64, 64)
    >>> hooks = mean_ablate(model, ("attn_out", 0))
    >>> with intervene(model, hooks):
    ...     _, cache = model.run_with_cache(images, names_filter=("attn_out", 0))
    >>> bool((cache["attn_out", 0] == cache["attn_out", 0][:1]).all())
    True
    """
    if means is None:
        return edit(model, names, lambda activation, name: activation.mean(dim=0), **where)
    given = means
    remedy = ": compute it with mean_activations(model, batches, names)"
    require_names(model.hook_names(names), given, "`means`", remedy)

    def mean(activation: Tensor, name: str) -> Tensor:
        if given[name].shape != activation.shape[1:]:
            raise ValueError(
                f"the mean of '{name}' has shape {tuple(given[name].shape)}, the activation of an image "
                f"{tuple(activation.shape[1:])}: compute means of images of this size"
            )
        return given[name]

    return edit(model, names, mean, **where)


def replace_from(
    model: HookedViT, names: NamesFilter, source: Mapping[str, Tensor] | ActivationCache, **where: Any
) -> Intervention:
    """Replace activations by those of another run: activation patching.

    Args:
        model: The model.
        names: The hook points, as for `model.hook_names`.
        source: A cache of the other run, with as many images, or one for all.
        where: As for `edit`.

    Raises:
        ValueError: As `edit`; if the cache lacks a hook point, or (during the run) has another shape.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.ones(1, 3, 64, 64))
    >>> patch = replace_from(model, ("resid_pre", 4), cache, tokens=[0])
    >>> model.run_with_hooks(torch.zeros(1, 3, 64, 64), fwd_hooks=patch).shape
    torch.Size([1, 100])
    """
    _check_source(source, model.hook_names(names))

    def other(activation: Tensor, name: str) -> Tensor:
        value = source[name]
        if value.shape != activation.shape and value.shape != (1, *activation.shape[1:]):
            raise ValueError(
                f"'{name}' has shape {tuple(value.shape)} in the cache and {tuple(activation.shape)} in this run: "
                "use a cache of as many images (or one) with as many tokens"
            )
        return value

    return edit(model, names, other, **where)


def resample_ablate(
    model: HookedViT,
    names: NamesFilter,
    source: Mapping[str, Tensor] | ActivationCache | None = None,
    seed: int = 0,
    **where: Any,
) -> Intervention:
    """Replace each image's activations by those of another image, drawn at random.

    All hook points of an intervention take them from the same image.

    Args:
        model: The model.
        names: The hook points, as for `model.hook_names`.
        source: A cache of the images to draw from; by default the other images of the run, each drawn once.
        seed: Seed of the draw.
        where: As for `edit`.

    Raises:
        ValueError: As `edit`; if the cache lacks a hook point; (during the run) if the run has no other image.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> model.run_with_hooks(torch.randn(3, 3, 64, 64), fwd_hooks=resample_ablate(model, ("z", 2), heads=0)).shape
    torch.Size([3, 100])
    """
    if source is not None:
        _check_source(source, model.hook_names(names))

    def drawn(activation: Tensor, name: str) -> Tensor:
        n_images = len(activation)
        if source is None and n_images < 2:
            raise ValueError("expected at least two images to resample from, got one: pass a cache of other images")
        values = activation if source is None else source[name]
        if values.shape[1:] != activation.shape[1:]:
            raise ValueError(
                f"'{name}' of an image has shape {tuple(values.shape[1:])} in the cache and "
                f"{tuple(activation.shape[1:])} in this run"
            )
        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
        if source is None:
            # a cycle: each image takes from the next, so none takes from itself
            taken = torch.empty_like(order).scatter_(0, order, order.roll(-1))
        else:
            taken = order[torch.arange(n_images) % len(order)]
        return values[taken.to(values.device)]

    return edit(model, names, drawn, **where)


def freeze_norms(model: HookedViT, cache: Mapping[str, Tensor] | ActivationCache, layers: Any = None) -> Intervention:
    """Fix the scales that norms divide by at those of another run, which makes the norms linear.

    Args:
        model: The model; its norms are `ln1` and `ln2` of the blocks (`ln1` of parallel blocks), and `ln_final`.
        cache: A cache of the other run.
        layers: The blocks; by default all, and the final norm too.

    Raises:
        ValueError: If the cache lacks a scale; see `replace_from`.
    """
    chosen = range(model.cfg.n_layers) if layers is None else layers
    norms = ("ln1",) if model.cfg.parallel_attn_mlp else ("ln1", "ln2")
    points: list[Any] = [("scale", layer, norm) for layer in chosen for norm in norms]
    names = model.hook_names(points)
    if layers is None and model.ln_final is not None:
        names.append("ln_final.hook_scale")
    if layers is None and model.ln_pooled is not None:
        names.append("ln_pooled.hook_scale")
    return replace_from(model, names, cache)


def freeze_patterns(
    model: HookedViT, cache: Mapping[str, Tensor] | ActivationCache, layers: Any = None, heads: Any = None
) -> Intervention:
    """Fix attention patterns at those of another run, whatever the queries and keys are.

    Args:
        model: The model.
        cache: A cache of the other run.
        layers: The blocks; all by default.
        heads: The heads in them; all by default.

    Raises:
        ValueError: If the cache lacks a pattern; see `replace_from`.
    """
    chosen = range(model.cfg.n_layers) if layers is None else layers
    points: list[Any] = [("pattern", layer) for layer in chosen]
    return replace_from(model, points, cache, **({} if heads is None else {"heads": heads}))


def _check_source(source: Mapping[str, Tensor] | ActivationCache, names: list[str]) -> None:
    activations = source.cache_dict if isinstance(source, ActivationCache) else source
    require_names(names, activations, "the cache", ": run `model.run_with_cache(images, names_filter=...)`")

"""Interventions that put something else in the place of an activation: zero, a mean, another image's, another run's."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hooked_vit.hook_names import NamesFilter
from hooked_vit.interventions.places import Place
from hooked_vit.model import HookedViT

Hooks = list[tuple[str, Callable[..., Any]]]


@contextmanager
def intervene(model: HookedViT, *interventions: Hooks) -> Iterator[HookedViT]:
    """Interventions that are on within a `with` block, in the order given, and off after it, also after an exception.

    Blocks nest, and everything that runs the model within them runs with the interventions on.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> no_head = zero_ablate(model, ("z", 3), heads=1)
    >>> with intervene(model, no_head, zero_ablate(model, ("mlp_out", 5), tokens="patch")):
    ...     logits, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64), names_filter=("z", 3))
    >>> cache["z", 3][:, :, 1].abs().max().item()
    0.0
    """
    with model.hooks(fwd_hooks=[hook for hooks in interventions for hook in hooks]):
        yield model


def edit(model: HookedViT, names: NamesFilter, change: Callable[[Tensor, str], Tensor | float], **where: Any) -> Hooks:
    """Put `change(activation, name)` in the place of activations, or of a part of them.

    Interventions are lists of `(hook name, function)`: they add up with `+`, and are what `model.hooks`,
    `model.run_with_hooks` and `intervene` take.

    Args:
        model: Whose activations.
        names: Which hook points, as for `model.hook_names`: `("z", 3)`, `"mlp_out"`, a list.
        change: From an activation and the name of its hook point to what replaces it: anything that broadcasts
            against it.
        where: `tokens`, `heads`, `neurons`, `queries`, `keys`, as for `Place`; everywhere by default.

    Raises:
        ValueError: If there is no such hook point, or it has no such axis, head, neuron or token.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> doubled = edit(model, ("mlp_out", 2), lambda activation, name: 2 * activation, tokens="cls")
    >>> model.run_with_hooks(torch.zeros(1, 3, 64, 64), fwd_hooks=doubled).shape
    torch.Size([1, 100])
    """
    place, cfg = Place.of(where), model.cfg
    full_names = model.hook_names(names)
    for name in full_names:
        place.check(name, cfg)

    def replaced(activation: Tensor, hook: Any) -> Tensor:
        new = torch.as_tensor(change(activation, hook.name), dtype=activation.dtype, device=activation.device)
        mask = place.mask(activation, hook.name, cfg)
        return new.expand_as(activation).clone() if mask is None else torch.where(mask, new, activation)

    return [(name, replaced) for name in full_names]


def zero_ablate(model: HookedViT, names: NamesFilter, **where: Any) -> Hooks:
    """Zeros in the place of activations.

    A head is ablated at its `z`, `zero_ablate(model, ("z", layer), heads=head)`; a neuron at `("post", layer)`; a
    sub-layer at `("attn_out", layer)` or `("mlp_out", layer)`, its bias with it; a stream at `("resid_pre", layer)`.

    Args:
        model: Whose activations.
        names: Which hook points, as for `model.hook_names`.
        where: As for `edit`.

    Raises:
        ValueError: As `edit`.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> hooks = zero_ablate(model, "z", heads=[0, 2]) + zero_ablate(model, ("post", -1), neurons=[7], tokens="cls")
    >>> len(hooks), hooks[-1][0]
    (9, 'blocks.7.mlp.hook_post')
    """
    return edit(model, names, lambda activation, name: 0.0, **where)


def mean_ablate(model: HookedViT, names: NamesFilter, means: Mapping[str, Tensor] | None = None, **where: Any) -> Hooks:
    """The mean over images in the place of activations, position by position.

    Args:
        model: Whose activations.
        names: Which hook points, as for `model.hook_names`.
        means: What `mean_activations` returns; by default the mean over the images of each run, whatever they are.
        where: As for `edit`.

    Raises:
        ValueError: As `edit`; if `means` lacks a hook point, or (when it runs) is of another shape.

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
    held = means
    _require(model.hook_names(names), held, "means", "mean_activations(model, batches, names)")

    def mean(activation: Tensor, name: str) -> Tensor:
        if held[name].shape != activation.shape[1:]:
            raise ValueError(
                f"the mean of '{name}' is of shape {tuple(held[name].shape)}, the activation of an image of shape "
                f"{tuple(activation.shape[1:])}: take means of images like these"
            )
        return held[name]

    return edit(model, names, mean, **where)


def replace_from(model: HookedViT, names: NamesFilter, source: Mapping[str, Tensor] | Any, **where: Any) -> Hooks:
    """Activations of another run in the place of this one's: a patch.

    Args:
        model: Whose activations.
        names: Which hook points, as for `model.hook_names`.
        source: A cache of the other run, of as many images, or of one for all.
        where: As for `edit`.

    Raises:
        ValueError: As `edit`; if the cache lacks a hook point, or (when it runs) is of another shape.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.ones(1, 3, 64, 64))
    >>> patch = replace_from(model, ("resid_pre", 4), cache, tokens=[0])
    >>> model.run_with_hooks(torch.zeros(1, 3, 64, 64), fwd_hooks=patch).shape
    torch.Size([1, 100])
    """
    _require(model.hook_names(names), source, "the cache", "run_with_cache(images, names_filter=...)")

    def other(activation: Tensor, name: str) -> Tensor:
        value = source[name]
        if value.shape != activation.shape and value.shape != (1, *activation.shape[1:]):
            raise ValueError(
                f"'{name}' is of shape {tuple(value.shape)} in the cache, and {tuple(activation.shape)} in this run: "
                "take the cache of as many images (or of one) with as many tokens"
            )
        return value

    return edit(model, names, other, **where)


def resample_ablate(
    model: HookedViT, names: NamesFilter, source: Mapping[str, Tensor] | Any = None, seed: int = 0, **where: Any
) -> Hooks:
    """Another image's activations in the place of each image's own; which one's is drawn at random.

    All hook points of one intervention take theirs from the same image.

    Args:
        model: Whose activations.
        names: Which hook points, as for `model.hook_names`.
        source: A cache of the images to take from; by default the others of the same run, each given once.
        seed: Which image goes where.
        where: As for `edit`.

    Raises:
        ValueError: As `edit`; if the cache lacks a hook point; (when it runs) if the run has no other image.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> model.run_with_hooks(torch.randn(3, 3, 64, 64), fwd_hooks=resample_ablate(model, ("z", 2), heads=0)).shape
    torch.Size([3, 100])
    """
    if source is not None:
        _require(model.hook_names(names), source, "the cache", "run_with_cache(images, names_filter=...)")

    def drawn(activation: Tensor, name: str) -> Tensor:
        n_images = len(activation)
        if source is None and n_images < 2:
            raise ValueError("expected a run of at least two images to resample among, got one: pass a cache of others")
        values = activation if source is None else source[name]
        if values.shape[1:] != activation.shape[1:]:
            raise ValueError(
                f"'{name}' of an image is of shape {tuple(values.shape[1:])} in the cache, and "
                f"{tuple(activation.shape[1:])} in this run"
            )
        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
        if source is None:
            # a round: each image takes from the next, so that none takes from itself
            taken = torch.empty_like(order).scatter_(0, order, order.roll(-1))
        else:
            taken = order[torch.arange(n_images) % len(order)]
        return values[taken.to(values.device)]

    return edit(model, names, drawn, **where)


def freeze_norms(model: HookedViT, cache: Mapping[str, Tensor] | Any, layers: Any = None) -> Hooks:
    """The scales that norms divide by stay what they were in another run, so that norms are linear.

    Args:
        model: Whose norms: `ln1` and `ln2` of the blocks, and `ln_final`.
        cache: Of the other run.
        layers: Of which blocks; by default of all, and then of the head too.

    Raises:
        ValueError: If the cache lacks a scale; see `replace_from`.
    """
    chosen = range(model.cfg.n_layers) if layers is None else layers
    points: list[Any] = [("scale", layer, norm) for layer in chosen for norm in ("ln1", "ln2")]
    names = model.hook_names(points)
    if layers is None and model.ln_final is not None:
        names.append("ln_final.hook_scale")
    return replace_from(model, names, cache)


def freeze_patterns(
    model: HookedViT, cache: Mapping[str, Tensor] | Any, layers: Any = None, heads: Any = None
) -> Hooks:
    """Attention patterns stay what they were in another run, whatever queries and keys become.

    Args:
        model: Whose attention.
        cache: Of the other run.
        layers: Of which blocks; of all by default.
        heads: Of which heads of them; of all by default.

    Raises:
        ValueError: If the cache lacks a pattern; see `replace_from`.
    """
    chosen = range(model.cfg.n_layers) if layers is None else layers
    points: list[Any] = [("pattern", layer) for layer in chosen]
    return replace_from(model, points, cache, **({} if heads is None else {"heads": heads}))


def _require(names: list[str], held: Any, what: str, how: str) -> None:
    known = held.cache_dict if hasattr(held, "cache_dict") else held
    missing = [name for name in names if name not in known]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"{what} must hold '{missing[0]}'{more}: make it with {how}")

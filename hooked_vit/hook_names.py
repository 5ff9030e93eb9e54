"""Resolving names of hook points: full names, TransformerLens short names, lists, predicates."""

from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from operator import index
from typing import SupportsIndex

from transformer_lens.utilities import get_act_name

HookName = str | tuple[str, SupportsIndex] | tuple[str, SupportsIndex, str | None]
NamesFilter = HookName | Sequence[HookName] | Callable[[str], bool] | None

# Copies of other activations, or too large for a cache of everything: cached only on request.
ON_DEMAND = ("hook_result", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in")


def resolve_names(
    names: NamesFilter,
    known: Iterable[str],
    n_layers: int,
    on_demand: Collection[str] = ON_DEMAND,
    why_absent: Callable[[str], str | None] = lambda name: None,
) -> list[str]:
    """The known hook points that `names` selects, in the order of `known`.

    `None`: all but those whose last part is in `on_demand`. A string: a full name, a TransformerLens short name
    (`"pattern3"`), or a bare short name, which means every layer (`"resid_post"`). A pair: `("resid_post", 5)` or
    `("scale", -1, "ln1")`. A list of these: their union. A predicate on full names: those that it accepts.
    `why_absent` says of a full name why the model has no such hook point, if other models have.

    Raises:
        ValueError: If a name is unknown (the nearest names are suggested) or nothing matches.

    >>> known = ["hook_embed", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    >>> resolve_names("resid_post", known, n_layers=2)
    ['blocks.0.hook_resid_post', 'blocks.1.hook_resid_post']
    >>> resolve_names([("resid_post", -1), "embed"], known, n_layers=2)
    ['hook_embed', 'blocks.1.hook_resid_post']
    """
    known = list(known)
    if names is None:
        return [name for name in known if name.rsplit(".", 1)[-1] not in on_demand]
    if callable(names):
        chosen = {name for name in known if names(name)}
        if not chosen:
            raise ValueError(f"the names filter accepts none of the {len(known)} hook points, such as '{known[-1]}'")
    elif isinstance(names, str) or _is_name(names):
        chosen = set(_resolve_name(names, known, n_layers, why_absent))
    else:
        chosen = {full for name in names for full in _resolve_name(name, known, n_layers, why_absent)}
        if not chosen:
            raise ValueError("the list of hook names is empty: name at least one, or pass None for everything")
    return [name for name in known if name in chosen]


def _is_name(names: object) -> bool:
    return isinstance(names, tuple) and len(names) in (2, 3) and isinstance(names[1], SupportsIndex)


def _resolve_name(name: object, known: list[str], n_layers: int, why_absent: Callable[[str], str | None]) -> list[str]:
    if _is_name(name):
        short, number, *layer_type = name  # pyright: ignore[reportGeneralTypeIssues]
        layer = index(number)
        if not -n_layers <= layer < n_layers:
            raise ValueError(f"no layer {layer} for '{short}': the model has layers 0 to {n_layers - 1}")
        full = get_act_name(short, layer % n_layers, *layer_type)
        in_attention = f"blocks.{layer % n_layers}.attn.hook_{short}"
        if not layer_type and full not in known and in_attention in known:
            full = in_attention  # a name that TransformerLens does not place, such as `pattern_1`
    elif isinstance(name, str):
        full = name if name in known else get_act_name(name)
    else:
        raise ValueError(f"expected a hook name, a (name, layer) pair, a list or a predicate, got {name!r}")
    if full in known:
        return [full]
    # a short name without a layer, TransformerLens's aliases ("attn", "query") included
    last = (name, f"hook_{name}", full if full.startswith("blocks.") else full.rsplit(".", 1)[-1])
    matching = [point for point in known if point.rsplit(".", 1)[-1] in last]
    if matching:
        # an attention pool has hook points of the same names and other shapes: "pattern" means those of the blocks
        return [point for point in matching if point.startswith("blocks.")] or matching
    reason = why_absent(full)
    if reason is not None:
        raise ValueError(reason)
    shorts = {point.rsplit(".", 1)[-1].removeprefix("hook_") for point in known}
    near = get_close_matches(full, known, n=3, cutoff=0.5) or get_close_matches(str(name), sorted(shorts), n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    raise ValueError(f"unknown hook point {name!r}{hint} `model.hook_names()` lists all {len(known)}.")


def require_names(names: Iterable[str], held: Collection[str], holder: str, remedy: str) -> None:
    """Raise ValueError unless all `names` are among those `held`.

    Args:
        names: Full names of hook points.
        held: The names that exist.
        holder: What holds them, for the message.
        remedy: What to do, for the message.

    >>> require_names(["hook_embed"], ["hook_tokens"], "the cache", ": run the model")
    Traceback (most recent call last):
    ValueError: the cache lacks 'hook_embed': run the model
    """
    missing = [name for name in names if name not in held]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"{holder} lacks '{missing[0]}'{more}{remedy}")

"""Edge attribution: all edges' effects at once, to first order, from gradients at the readers' inputs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.circuits.circuit import checked_groups, corrupt_recording, rows_at_once
from analyses.circuits.graph import CircuitGraph, circuit_graph
from analyses.circuits.groups import Groups
from analyses.circuits.paths import STEP_RULES, StepRule, points_of
from analyses.circuits.recording import Recording, WriteHooks
from analyses.circuits.scores import EdgeScores
from analyses.circuits.through_norm import products_before_norm, projected, summed_products_before_norm
from analyses.patching.metrics import Metric, checked_metric
from hooked_vit import HookedViT, ViTActivationCache
from hooked_vit.components.attention import Attention
from hooked_vit.components.attention_terms import AttentionTerms

__all__ = ["Method", "edge_attribution", "edge_maps"]

Method = Literal["eap", "eap-ig", "eap-gp"]


def edge_attribution(
    model: HookedViT,
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Float[Tensor, "batch channel height width"] | Recording,
    metric: Metric,
    method: Method = "eap",
    *,
    steps: int = 5,
    rule: StepRule = "right",
    groups: Groups | None = None,
    per_image: bool = False,
    memory_limit: float | int | None = None,
) -> EdgeScores:
    """Estimate how far each edge moves a metric when it carries its corrupt value.

    With Δ = (the sender's write in the corrupt run) - (that in the clean run), at the tokens of the edge,

        eap     Δ · (gradient at the reader's input in the clean run)              (Nanda 2023; Syed et al. 2023)
        eap-ig  Δ · (mean gradient at the reader's input, over runs from the corrupt embedding to the clean one)
                                                                                   (Hanna et al. 2024)
        eap-gp  as eap-ig, over a path that leaves the clean embedding in steps of length 1, down the gradient of the
                squared distance between the logits and the corrupt logits         (Zhang et al. 2025, equation 8)

    `eap` costs two forward passes and one backward pass, `eap-ig` one more pass of each kind per step, and `eap-gp`
    two. The reader's input is the stream before the norm, so gradients go through its norm. Memory is chunked by
    images.

    Args:
        model: The model, without hooks.
        clean: Preprocessed images.
        corrupt: One image for each, of the same size, or a recording.
        metric: From logits to one number, with a gradient; with `per_image`, one number per image. If there are more
            images than fit into memory at once, pass one with `per_image`, such as `logit_difference(3,
            per_image=True)`: a mean over images is not known from some of them.
        method: See above.
        steps: Number of gradients along the path.
        rule: Of `eap-ig`: where on the path from corrupt (0) to clean (1) gradients are taken. `"right"`: k / steps
            for k = 1 … steps, as published; `"left"`: from 0, as the released code; `"midpoint"`: halfway, which
            converges fastest. See `EdgeScores.completeness`.
        groups: Groups of tokens that split every part; each token is in exactly one.
        per_image: Keep the scores of each image.
        memory_limit: Bytes that differences and gradients may take at a time.

    Raises:
        ValueError: If the images, model or metric do not fit, a token is in no group or two, or not even one image
            fits into memory.

    >>> from analyses.patching import logit_difference
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> images = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    >>> scores = edge_attribution(model, *images, logit_difference(3, against=14))
    >>> scores.values.shape
    torch.Size([41, 105])
    """
    if method not in get_args(Method):
        raise ValueError(f"expected a method out of {', '.join(map(repr, get_args(Method)))}, got {method!r}")
    if steps < 1 or rule not in STEP_RULES:
        raise ValueError(f"expected steps of at least 1 and a rule out of {STEP_RULES}, got {steps} and {rule!r}")
    graph, kept = circuit_graph(model, tuple(groups or ())), corrupt_recording(model, clean, corrupt)
    members = checked_groups(model, graph, kept, len(clean), groups).to(clean.device)
    n_at_once = rows_at_once(model, graph, kept.writes.shape[1], memory_limit, gradients=True)
    if n_at_once < len(clean) and not per_image:
        # images do not interact, so the scores of a mean over images are the mean of each image's
        return _mean_of_images(
            edge_attribution(
                model, clean, kept, _each_image(metric, len(clean)), method, steps=steps, rule=rule, groups=groups,
                per_image=True, memory_limit=memory_limit,
            )
        )  # fmt: skip
    parts = []
    for start in range(0, len(clean), n_at_once):
        images = slice(start, min(start + n_at_once, len(clean)))
        some = members[images] if len(members) > 1 else members
        of_these = metric if n_at_once >= len(clean) else _on_images(metric, images, len(clean))
        parts.append(
            _scores(model, graph, clean[images], kept.of_images(images), of_these, method, steps, rule, some, per_image)
        )
    if len(parts) == 1:
        return parts[0]
    joined = [torch.cat([getattr(part, name) for part in parts]) for name in ("values", "clean", "corrupt")]
    per_step = None if parts[0].per_step is None else torch.cat([part.per_step for part in parts], dim=1)
    return EdgeScores(graph, method, joined[0], joined[1], joined[2], per_step)


def _scores(
    model: HookedViT, graph: CircuitGraph, clean: Tensor, corrupt: Recording, metric: Metric, method: Method,
    steps: int, rule: StepRule, members: Tensor, per_image: bool,
) -> EdgeScores:  # fmt: skip
    differences, first, points = _along(model, clean, corrupt, metric, method, steps, rule)
    # a metric of the corrupt logits, which may be one row for all images
    ends = first.value, checked_metric(metric, corrupt.logits.expand(len(clean), -1), per_image)
    if first.value.shape != ends[1].shape:
        raise ValueError(
            f"metric must return {'one number per image' if per_image else 'one number (a scalar)'}, got shape "
            f"{tuple(first.value.shape)}"
        )
    total, per_step = torch.zeros(()), []
    for found in points:
        total = total + _edge_scores(model, graph, differences, found, members)
        so_far = total[:, 0].sum(dim=-1) / (len(per_step) + 1)
        per_step.append(so_far if per_image else so_far.sum())
    values = total / len(per_step)
    convergence = None if method == "eap" else torch.stack(per_step)
    return EdgeScores(graph, method, values if per_image else values.sum(dim=0), *ends, convergence)


def _along(
    model: HookedViT, clean: Tensor, corrupt: Recording, metric: Metric, method: Method, steps: int, rule: StepRule
) -> "tuple[Tensor, _Gradients, Iterable[_Gradients]]":
    """The differences of the writes, the gradients in the clean run, and those at each point of the method's path."""
    written = WriteHooks(model, less=corrupt.writes)
    first = _gradients(model, clean, metric, written.hooks, start=None)
    differences = -written.writes
    if method == "eap":
        return differences, first, [first]

    def gradients_at(embedding: Tensor) -> "_Gradients":
        return _gradients(model, clean, metric, [], start=embedding)

    def away_from_corrupt(embedding: Tensor) -> Tensor:
        def distance(logits: Tensor) -> Tensor:
            return (logits - corrupt.logits).square().sum()

        at: list[Any] = [("hook_tokens", lambda activation, hook: embedding)]
        return model.run_with_gradients(clean, distance, ["hook_tokens"], fwd_hooks=at)[2]["hook_tokens"]

    towards = first.tokens + differences[:, :, 0]
    return differences, first, points_of(method, first.tokens, towards, steps, rule, gradients_at, away_from_corrupt)


@dataclass(frozen=True)
class _Gradients:
    """Gradients at what readers make of the stream, and the streams themselves."""

    value: Tensor
    tokens: Tensor
    cache: ViTActivationCache
    gradients: ViTActivationCache
    terms: AttentionTerms


def _gradients(model: HookedViT, clean: Tensor, metric: Metric, hooks: list[Any], start: Tensor | None) -> _Gradients:
    layers = range(model.cfg.n_layers)
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    names = ["hook_tokens", last, *(f"blocks.{layer}.hook_mlp_in" for layer in layers)]
    names += [name for layer in layers for name in _read_points(model, layer).values()]
    names += [f"blocks.{layer}.attn.hook_z" for layer in layers]
    if model.cfg.gated_attn:
        names += [f"blocks.{layer}.attn.hook_gate" for layer in layers]
    streams: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any) -> None:
        streams[hook.name] = activation.detach()

    keep.only_reads = keep.leaves_storage = True  # pyright: ignore[reportFunctionMemberAccess]  (see HookPoint)
    reading: list[Any] = [(f"blocks.{layer}.hook_resid_pre", keep) for layer in layers]
    if start is not None:
        reading.append(("hook_tokens", lambda activation, hook: start))
    value, cache, gradients = model.run_with_gradients(clean, metric, names, fwd_hooks=[*hooks, *reading])
    kept = ViTActivationCache({**dict(cache.items()), **streams}, model)
    terms = model.attention_terms((clean.shape[-2], clean.shape[-1]))
    return _Gradients(value, cache["hook_tokens"], kept, gradients, terms)


def _read_points(model: HookedViT, layer: int) -> dict[str, str]:
    """Where queries, keys and values are what they were projected to, before any norm of their own."""
    v = "hook_v" if model.blocks[layer].attn.v_norm is None else "hook_v_pre"
    return {kind: f"blocks.{layer}.attn.{point}" for kind, point in (("q", "hook_q"), ("k", "hook_k"), ("v", v))}


@torch.no_grad()
def _edge_scores(
    model: HookedViT, graph: CircuitGraph, differences: Tensor, found: _Gradients, members: Tensor
) -> Float[Tensor, "batch sender reader"]:
    values = differences.new_zeros(len(differences), graph.n_senders, graph.n_readers)
    if graph.n_groups == 1:
        return _summed_scores(model, graph, differences, found, values)
    membership = members.to(differences.dtype).expand(len(differences), -1, -1)
    for readers, before, products in _products(model, graph, differences, found, members):
        # products [batch token sender part written_group] -> summed over the tokens of each group read
        by_group = torch.einsum("bgt,btspw->bspgw", membership, products)
        values[:, :before, readers] = by_group.flatten(2)
    return values


def _summed_scores(
    model: HookedViT, graph: CircuitGraph, differences: Tensor, found: _Gradients, values: Tensor
) -> Float[Tensor, "batch sender reader"]:
    """The scores of a graph whose tokens are together: sums over tokens as single products."""
    whole = []
    for layer, block in enumerate(model.blocks):
        stream, norm = found.cache["resid_pre", layer], None if model.cfg.post_norm else block.ln1
        before = graph.n_before("q", layer)
        parts = []
        for kind, name in _read_points(model, layer).items():
            weight, _ = block.attn.reading(kind)
            parts.append(projected(found.gradients[name], weight))
        if block.attn.gate is not None:
            parts[0] = parts[0] + _through_gate(block.attn, layer, found)
        summed = summed_products_before_norm(norm, stream, differences[:, :, :before], torch.cat(parts, dim=2))
        readers = slice(graph.reader_slice("q", layer).start, graph.reader_slice("v", layer).stop)
        values[:, :before, readers] = summed
        whole.append(found.gradients[f"blocks.{layer}.hook_mlp_in"])
    whole.append(found.gradients[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"])
    # all readers without a norm of their own here at once; entries where there is no edge are dropped
    of_whole = summed_products_before_norm(None, whole[0], differences, torch.stack(whole, dim=2))
    at = [graph.reader_slice("mlp", layer).start for layer in range(model.cfg.n_layers)] + [graph.logits_slice.start]
    valid = graph.valid[:, at].to(of_whole.device)
    values[:, :, at] = torch.where(valid, of_whole, 0)
    return values


def _products(
    model: HookedViT, graph: CircuitGraph, differences: Tensor, found: _Gradients, members: Tensor
) -> Iterator[tuple[slice, int, Tensor]]:
    """For each kind of reader in each block: its readers, the senders before, and products at each token.

    Products are [batch token sender head written_group]; the last axis has length one for what reads its own tokens.
    """
    cache, gradients = found.cache, found.gradients
    for layer, block in enumerate(model.blocks):
        stream, norm = cache["resid_pre", layer], None if model.cfg.post_norm else block.ln1
        at_heads = {kind: gradients[name].unsqueeze(3) for kind, name in _read_points(model, layer).items()}
        if graph.n_groups > 1:
            at_heads |= _split_gradients(model, layer, found, members)
        for kind in ("q", "k", "v"):
            before = graph.n_before(kind, layer)
            weight, _ = block.attn.reading(kind)
            gradient = at_heads[kind]  # [batch token head group d_head]
            n_split = gradient.shape[3]
            at_norm = projected(gradient.flatten(2, 3), weight.repeat_interleave(n_split, dim=0))
            if kind == "q" and block.attn.gate is not None:
                at_norm = at_norm + _through_gate(block.attn, layer, found)
            products = products_before_norm(norm, stream, differences[:, :, :before], at_norm)
            yield graph.reader_slice(kind, layer), before, products.unflatten(-1, (-1, n_split))
        before = graph.n_before("mlp", layer)
        gradient = gradients[f"blocks.{layer}.hook_mlp_in"]
        products = differences[:, :, :before] @ gradient.unsqueeze(-1)
        yield graph.reader_slice("mlp", layer), before, products.unsqueeze(-1)
    last = gradients[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"]
    yield graph.logits_slice, graph.n_senders, (differences @ last.unsqueeze(-1)).unsqueeze(-1)


def _through_gate(attn: Attention, layer: int, found: _Gradients) -> Float[Tensor, "batch token head d_model"]:
    """Gradients at the normed stream through a gate, the sigmoid of a projection."""
    assert attn.gate is not None
    name = f"blocks.{layer}.attn.hook_gate"
    gate, gradient = found.cache[name], found.gradients[name]
    weight = attn.gate.weight.unflatten(0, (attn.n_heads, attn.d_head)).transpose(1, 2)
    return projected(gradient * gate * (1 - gate), weight)


def _split_gradients(
    model: HookedViT, layer: int, found: _Gradients, members: Bool[Tensor, "#batch group token"]
) -> dict[str, Tensor]:
    """Gradients at keys and values through the queries of each group: [batch token kv_head group d_head]."""
    attn, cache = model.blocks[layer].attn, found.cache
    q, k, v = (cache[name].detach() for name in _read_points(model, layer).values())
    gradient = found.gradients["z", layer]
    by_group: dict[str, list[Tensor]] = {"k": [], "v": []}
    with torch.enable_grad():
        k, v = k.clone().requires_grad_(), v.clone().requires_grad_()
        normed_v = v if attn.v_norm is None else attn.v_norm.fused(v)
        gate = cache[f"blocks.{layer}.attn.hook_gate"] if attn.gate is not None else None
        z = attn.norm_z(attn.attend_unhooked(q, k, normed_v, attn.fused, found.terms.at(layer)), gate)
        for group in range(members.shape[1]):
            through = gradient * members[:, group, :, None, None]
            for kind, part in zip("kv", torch.autograd.grad(z, (k, v), through, retain_graph=True), strict=True):
                by_group[kind].append(part)
    return {kind: torch.stack(parts, dim=3) for kind, parts in by_group.items()}


def edge_maps(
    model: HookedViT,
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Float[Tensor, "batch channel height width"] | Recording,
    metric: Metric,
    edges: Bool[Tensor, "sender reader"],
    method: Method = "eap",
    *,
    steps: int = 5,
    rule: StepRule = "right",
    per_image: bool = False,
) -> Float[Tensor, "edge batch token"]:
    """The scores of some edges, token by token: where in the picture the sender writes what the reader reads.

    Args:
        model: The model.
        clean: As for `edge_attribution`.
        corrupt: As above.
        metric: As above.
        edges: The edges, as a mask of a graph without groups.
        method: As above.
        steps: As above.
        rule: As above.
        per_image: As above.

    Returns:
        One map per edge, in the order of `mask.nonzero()`. Its sum over images and tokens is the edge's score.

    >>> from analyses.patching import logit_difference
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> images = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    >>> edges = circuit_graph(model).mask([(("embed",), ("v", 0, 1)), (("mlp", 7), ("logits",))])
    >>> edge_maps(model, *images, logit_difference(3), edges).shape
    torch.Size([2, 1, 65])
    """
    graph, kept = circuit_graph(model), corrupt_recording(model, clean, corrupt)
    differences, _, points = _along(model, clean, kept, metric, method, steps, rule)
    checked_metric(metric, kept.logits.expand(len(clean), -1), per_image)
    members = torch.ones(1, 1, kept.writes.shape[1], dtype=torch.bool, device=clean.device)
    maps = clean.new_zeros(int(edges.sum()), len(clean), kept.writes.shape[1])
    position = torch.full(edges.shape, -1, dtype=torch.long)
    position[edges] = torch.arange(len(maps))
    n_points = 0
    for found in points:
        n_points += 1
        with torch.no_grad():
            for readers, before, products in _products(model, graph, differences, found, members):
                at = position[:before, readers]
                sender, reader = (at >= 0).nonzero(as_tuple=True)
                maps[at[sender, reader]] += products.flatten(3)[:, :, sender, reader].movedim(-1, 0)
    return maps / n_points


def _each_image(metric: Metric, n_images: int) -> Callable[[Tensor], Tensor]:
    """A metric per image, from one that is the mean of such a metric."""
    measure = getattr(metric, "measure", None)
    if measure is None:
        raise ValueError(
            f"{n_images} images do not fit into memory at once, and a mean over images is not known from some of them: "
            "pass a metric of one number per image with per_image=True, or one of analyses.patching's metrics"
        )
    return measure


def _on_images(metric: Metric, images: slice, n_images: int) -> Callable[[Tensor], Tensor]:
    """A metric per image, of some of the images: it may hold one class per image."""

    def of_some(logits: Tensor) -> Tensor:
        whole = logits.new_zeros(n_images, logits.shape[-1])
        return metric(torch.cat([whole[: images.start], logits, whole[images.stop :]]))[images]

    return of_some


def _mean_of_images(scores: EdgeScores) -> EdgeScores:
    per_step = None if scores.per_step is None else scores.per_step.mean(dim=-1)
    return EdgeScores(scores.graph, scores.method, scores.mean, scores.clean.mean(), scores.corrupt.mean(), per_step)

"""Circuits run edge by edge and token by token, and edge attribution by its definition, without the package's code."""

import torch
from torch import Tensor

from analyses.circuits import CircuitGraph
from hooked_vit import HookedViT


def writes_of(model: HookedViT, images: Tensor) -> dict[tuple, Tensor]:
    """What each sender writes in a plain run: [batch token d_model]."""
    n_layers = model.cfg.n_layers
    names = ["hook_tokens", "result", "attn_out", "mlp_out"]
    _, cache = model.run_with_cache(images, names_filter=names)
    writes = {("embed",): cache["hook_tokens"]}
    for layer in range(n_layers):
        results = cache["result", layer]
        left = (cache["attn_out", layer] - results.sum(2)) / model.cfg.n_heads
        for head in range(model.cfg.n_heads):
            writes["head", layer, head] = results[:, :, head] + left
        writes["mlp", layer] = cache["mlp_out", layer]
    return writes


@torch.no_grad()
def run_by_hand(
    model: HookedViT, graph: CircuitGraph, mask: Tensor, clean: Tensor, corrupt: Tensor, group_of: list[int]
) -> Tensor:
    """The logits of a circuit: every reader's input is summed edge by edge, every query attends by itself."""
    cfg = model.cfg
    there = writes_of(model, corrupt)
    before_of = {reader: [graph.senders[i] for i in graph.valid[:, j].nonzero()[:, 0].tolist()]
                 for j, reader in enumerate(graph.readers)}  # fmt: skip
    now: dict[tuple, Tensor] = {}
    in_circuit = {(edge[0], edge[1]) for edge in graph.edges(mask)}
    name = (lambda part, group: (*part, graph.groups[group])) if graph.groups else (lambda part, group: part)

    def stream(reader_of_group, token: int) -> Tensor:
        """The input [batch d_model] of a reader at a token: the corrupt stream and the edges of the circuit."""
        group = group_of[token]
        reader = reader_of_group(group)
        before = before_of[reader]
        total = sum(there[part][:, token] for part in before)
        for part in before:
            if (name(part, group), reader) in in_circuit:
                total = total + now[part][:, token] - there[part][:, token]
        return total

    now["embed",] = writes_of(model, clean)["embed",]
    tokens = range(now["embed",].shape[1])
    for layer, block in enumerate(model.blocks):
        attn = block.attn
        terms = model.attention_terms((clean.shape[-2], clean.shape[-1])).at(layer)
        normed = (lambda x: x) if cfg.post_norm else block.ln1.fused

        def project(x: Tensor, kind: str, head: int, attn=attn, normed=normed) -> Tensor:
            return normed(x) @ getattr(attn, f"W_{kind}")[head] + getattr(attn, f"b_{kind}")[head]

        def inputs(kind: str, head: int, reader_of_group, project=project) -> Tensor:
            return torch.stack([project(stream(reader_of_group, token), kind.upper(), head) for token in tokens], 1)

        heads = range(cfg.n_heads)
        q = torch.stack([inputs("q", h, lambda group, h=h, at=layer: name(("q", at, h), group)) for h in heads], 2)
        z = torch.zeros_like(q)
        for written in sorted(set(group_of)):

            def reader_of(kind: str, head: int, written=written, layer=layer):
                def reader(group: int) -> tuple:
                    split = (graph.groups[group], graph.groups[written]) if graph.groups else ()
                    return (kind, layer, head * graph.n_key_value_heads[layer] // graph.n_heads, *split)

                return reader

            k, v = (torch.stack([inputs(kind, h, reader_of(kind, h)) for h in heads], 2) for kind in "kv")
            mixed = attn.attend_unhooked(q, k, v, False, terms)
            for token in tokens:
                if group_of[token] == written:
                    z[:, token] = mixed[:, token]
        z = attn.norm_z(z)
        out = attn.project(z)
        results = block.head_results(z, block.ln1.scale(out) if cfg.post_norm else None)
        attn_out = block.write_attn(z)
        for head in range(cfg.n_heads):
            now["head", layer, head] = results[:, :, head] + (attn_out - results.sum(2)) / cfg.n_heads
        rows = [stream(lambda group, layer=layer: name(("mlp", layer), group), token) for token in tokens]
        mlp_in = torch.stack(rows, 1)
        now["mlp", layer] = block.write_mlp(block.mlp.neurons(mlp_in if cfg.post_norm else block.mlp_ln.fused(mlp_in)))
    final = torch.stack([stream(lambda group: name(("logits",), group), token) for token in tokens], 1)
    return model(final, start_at_layer=cfg.n_layers)


def eap_by_hand(model: HookedViT, graph: CircuitGraph, clean: Tensor, corrupt: Tensor, metric, points=None) -> Tensor:
    """Syed et al.'s score of each edge, one product per edge, from gradients at the split inputs themselves.

    With `points` (embeddings), the gradients' mean over runs from there: Hanna et al.'s.
    """
    here, there = writes_of(model, clean), writes_of(model, corrupt)
    layers = range(model.cfg.n_layers)
    names = [f"blocks.{layer}.hook_{kind}_input" for layer in layers for kind in "qkv"]
    names += [f"blocks.{layer}.hook_mlp_in" for layer in layers] + [f"blocks.{layers[-1]}.hook_resid_post"]
    scores = torch.zeros(graph.n_senders, graph.n_readers)
    points = [here["embed",]] if points is None else points
    for point in points:
        replace = [("hook_tokens", lambda activation, hook, point=point: point)]
        _, _, gradients = model.run_with_gradients(clean, metric, names, fwd_hooks=replace)
        for i, j in graph.valid.nonzero().tolist():
            sender, (kind, *at) = graph.senders[i], graph.readers[j]
            if kind == "logits":
                gradient = gradients[f"blocks.{layers[-1]}.hook_resid_post"]
            elif kind == "mlp":
                gradient = gradients[f"blocks.{at[0]}.hook_mlp_in"]
            else:
                gradient = gradients[f"blocks.{at[0]}.hook_{kind}_input"][:, :, at[1]]
            scores[i, j] += ((there[sender] - here[sender]) * gradient).sum() / len(points)
    return scores

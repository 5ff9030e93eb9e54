"""One forward pass in which every reader sees some writes of this run, and the corrupt run's value of all others."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from analyses.circuits.graph import CircuitGraph
from analyses.circuits.recording import Recording, WriteHooks
from hooked_vit import HookedViT

__all__ = ["CircuitRun"]


class CircuitRun:
    """Hooks for one run of clean images through circuits, one circuit per row of the batch.

    A reader's input is

        corrupt stream + sum over its edges in the circuit of (the sender's write in this run - its corrupt write),

    one product of differences and masks per block. Where all edges of a reader are in the circuit, it reads the run's
    own stream, and where none is, its corrupt value: so the whole graph gives the clean run, and no edge the corrupt
    run, to the last bit.

    Keys and values of split tokens depend on the group of the query: they are mixed once for each group.
    """

    def __init__(
        self,
        model: HookedViT,
        graph: CircuitGraph,
        edges: Bool[Tensor, "#row sender reader"],
        corrupt: Recording,
        members: Bool[Tensor, "#row group token"],
        image_size: tuple[int, int],
    ):
        """Configure the run.

        Args:
            model: The model, without hooks.
            graph: Its graph.
            edges: The edges of each row's circuit.
            corrupt: The values outside the circuit, one row each (or one for all).
            members: The tokens of each group.
            image_size: Height and width of the images.
        """
        device = corrupt.writes.device
        self.model, self.graph, self.corrupt = model, graph, corrupt
        self.edges, self.members = edges.to(device), members.to(device)
        self._written = WriteHooks(model, less=corrupt.writes)
        self._terms = model.attention_terms(image_size)
        self._q: Tensor | None = None
        self._kv: dict[str, Tensor] = {}
        self._streams: dict[str, Tensor] = {}  # of a block's queries, keys and values, after the norm

    @property
    def hooks(self) -> list[Any]:
        """The hooks of the run."""
        hooks = list(self._written.hooks)
        split = self.graph.n_groups > 1
        for layer in range(self.graph.n_layers):
            attn = f"blocks.{layer}.attn"
            hooks.append((f"{attn}.hook_q", self._editing(self._queries, layer)))
            for kind in "kv":
                read = self._split_keys if split else self._keys
                hooks.append((f"{attn}.hook_{kind}", self._editing(read, kind, layer)))
            if split:
                before_norm = self.model.blocks[layer].attn.hook_z_pre is not None
                hooks.append((f"{attn}.hook_z_pre" if before_norm else f"{attn}.hook_z", self._editing(self._z, layer)))
            if self.model.cfg.gated_attn:
                hooks.append((f"{attn}.hook_gate", self._editing(self._gate, layer)))
            hooks.append((f"blocks.{layer}.hook_mlp_in", self._editing(self._mlp, layer)))
        last = f"blocks.{self.graph.n_layers - 1}.hook_resid_post"
        return [*hooks, (last, self._editing(self._logits))]

    def _editing(self, edit: Any, *at: Any) -> Any:
        def hook_function(activation: Tensor, hook: Any) -> Tensor:
            return edit(activation, *at)

        hook_function.leaves_storage = True  # pyright: ignore[reportFunctionMemberAccess]  (see HookPoint)
        return hook_function

    # ------------------------------------------------------------------ what readers see

    def _queries(self, own: Tensor, layer: int) -> Tensor:
        if self.graph.n_groups == 1:
            self._read_streams(layer)
            return self._keys(own, "q", layer)
        project = partial(self._project, layer, "q")
        self._q = self._at_queries(own, layer, self.corrupt.q[layer], project)
        return self._q

    def _read_streams(self, layer: int) -> None:
        """The streams of the queries, keys and values that have a part of their edges, in one product."""
        edges = [self._edges_to(kind, layer)[:, None] for kind in "qkv"]
        partly = [_partly(of_kind)[1] for of_kind in edges]
        joined = torch.cat([of_kind[..., some] for of_kind, some in zip(edges, partly, strict=True)], dim=-1)
        self._streams = {}
        if joined.shape[-1]:
            streams = self._normed(layer, self.corrupt.attn_in[layer].unsqueeze(2) + self._added(joined))
            self._streams = dict(zip("qkv", streams.split([len(some) for some in partly], dim=2), strict=True))

    def _gate(self, own: Tensor, layer: int) -> Tensor:
        return self._at_queries(own, layer, self.corrupt.gate[layer], partial(self._project_gate, layer))

    def _at_queries(self, own: Tensor, layer: int, corrupt: Tensor, project: Any) -> Tensor:
        edges = self._edges_to("q", layer).unflatten(-1, (self.graph.n_heads, self.graph.n_groups))
        return self._read(own, self._at_tokens(edges.movedim(-1, 1)), self.corrupt.attn_in[layer], corrupt, project)

    def _keys(self, own: Tensor, kind: str, layer: int) -> Tensor:
        edges = self._edges_to(kind, layer)[:, None]
        corrupt = getattr(self.corrupt, kind)[layer]
        return self._joined(own, edges, corrupt, lambda readers: self._heads(layer, kind, self._streams[kind], readers))

    def _split_keys(self, own: Tensor, kind: str, layer: int) -> Tensor:
        n_heads, n_groups = self.graph.n_key_value_heads[layer], self.graph.n_groups
        edges = self._edges_to(kind, layer).unflatten(-1, (n_heads, n_groups, n_groups))
        edges = self._at_tokens(edges.movedim(-2, 1).flatten(-2))  # [row token sender (head written_group)]
        corrupt = getattr(self.corrupt, kind)[layer].repeat_interleave(n_groups, dim=2)
        project = partial(self._project, layer, kind)
        found = self._read(own.repeat_interleave(n_groups, dim=2), edges, self.corrupt.attn_in[layer], corrupt, project)
        self._kv[kind] = found.unflatten(2, (n_heads, n_groups))
        return own

    def _z(self, own: Tensor, layer: int) -> Tensor:
        """The mix of values of each group of queries, with the keys and values that this group sees."""
        attn, q = self.model.blocks[layer].attn, self._q
        assert q is not None
        z = torch.zeros_like(own)
        for group in range(self.graph.n_groups):
            k, v = self._kv["k"][:, :, :, group], self._kv["v"][:, :, :, group]
            mixed = attn.attend_unhooked(q, k, v, attn.fused, self._terms.at(layer))
            z = torch.where(self.members[:, group, :, None, None], mixed, z)
        return z

    def _mlp(self, own: Tensor, layer: int) -> Tensor:
        return self._whole(own, self._edges_to("mlp", layer), self.corrupt.mlp_in[layer])

    def _logits(self, own: Tensor) -> Tensor:
        return self._whole(own, self.edges[:, :, self.graph.logits_slice], self.corrupt.final)

    def _whole(self, own: Tensor, edges: Tensor, corrupt: Tensor) -> Tensor:
        edges = self._at_tokens(edges.movedim(-1, 1).unsqueeze(-1))
        found = self._read(
            own.unsqueeze(2), edges, corrupt, corrupt.unsqueeze(2).expand(len(own), -1, -1, -1), lambda x, _: x
        )
        return found.squeeze(2)

    # ------------------------------------------------------------------ the product of differences and masks

    def _edges_to(self, kind: str, layer: int) -> Tensor:
        before = self.graph.n_before(kind, layer)
        return self.edges[:, :before, self.graph.reader_slice(kind, layer)]

    def _at_tokens(self, edges: Tensor) -> Tensor:
        """From [row group sender reader] to [row token sender reader], or a token axis of length one."""
        if self.graph.n_groups == 1:
            return edges
        index = self.members.to(torch.uint8).argmax(dim=1)  # [row token]
        if len(index) == len(edges) == 1:
            return edges[:, index[0]]
        rows = torch.arange(max(len(index), len(edges)), device=edges.device)[:, None]
        edges = edges.expand(len(rows), -1, -1, -1)
        return edges[rows, index.expand(len(rows), -1)]

    def _read(self, own: Tensor, edges: Tensor, stream: Tensor, corrupt: Tensor, project: Any) -> Tensor:
        """What readers see: `own` and `corrupt` [row token reader width], edges [#row #token sender reader].

        `project` turns streams [row token reader d_model] of some of the readers into their inputs.
        """

        def seen(readers: Tensor) -> Tensor:
            return project(stream.unsqueeze(2) + self._added(edges[..., readers]), readers)

        return self._joined(own, edges, corrupt, seen)

    def _joined(self, own: Tensor, edges: Tensor, corrupt: Tensor, seen: Any) -> Tensor:
        """`own` where all edges are in the circuit, `corrupt` where none is, `seen(readers)` at the other readers."""
        settled, partly = _partly(edges)
        out = torch.where((edges.sum(dim=2) == edges.shape[2])[..., None], own, corrupt)
        if len(partly):
            out[:, :, partly] = torch.where(settled[:, :, partly], out[:, :, partly], seen(partly))
        return out

    def _added(self, edges: Tensor) -> Tensor:
        """The sum over edges of the difference between the sender's write and its corrupt one."""
        differences = self._written.writes[:, :, : edges.shape[2]]
        mask = edges.transpose(-1, -2).to(differences.dtype)
        if mask.shape[1] > 1:
            return mask @ differences
        by_sender = differences.transpose(1, 2)  # one product for all tokens
        return (mask[:, 0] @ by_sender.flatten(2)).unflatten(-1, by_sender.shape[2:]).transpose(1, 2)

    def _project(self, layer: int, matrix: Any, streams: Tensor, readers: Tensor) -> Tensor:
        """Queries, keys or values of some readers, each with a stream of its own."""
        return self._heads(layer, matrix, self._normed(layer, streams), readers)

    def _heads(self, layer: int, matrix: Any, normed: Tensor, readers: Tensor) -> Tensor:
        """The same from streams after the norm."""
        attn = self.model.blocks[layer].attn
        heads = readers if matrix == "q" else readers // self.graph.n_groups
        weight, bias = (of_heads[heads] for of_heads in attn.reading(matrix))
        found = torch.einsum("btrd,rde->btre", normed, weight) + bias
        return attn.v_norm.fused(found) if matrix == "v" and attn.v_norm is not None else found

    def _project_gate(self, layer: int, streams: Tensor, readers: Tensor) -> Tensor:
        values = self.model.blocks[layer].attn.gate_values(self._normed(layer, streams))
        return values[:, :, torch.arange(len(readers), device=readers.device), readers]

    def _normed(self, layer: int, streams: Tensor) -> Tensor:
        return streams if self.model.cfg.post_norm else self.model.blocks[layer].ln1.fused(streams)


def _partly(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Where a reader has all of its edges or none, [#row #token reader 1], and the readers of which this is not all."""
    n_in = edges.sum(dim=2)
    settled = (n_in == edges.shape[2]) | (n_in == 0)
    return settled[..., None], (~settled).flatten(0, 1).any(dim=0).nonzero()[:, 0]

"""The graph of a model: what its parts write into the residual stream, and what reads it later."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooked_vit import HookedViT
from hooked_vit.absent_points import refuse_absent

__all__ = ["CircuitGraph", "Edge", "circuit_graph"]

Edge = tuple[tuple[Any, ...], tuple[Any, ...]]
"""A sender and a reader, such as `(("head", 3, 1), ("v", 5, 3))`; in a graph of token groups, these come last."""

READERS = ("q", "k", "v", "mlp", "logits")


@dataclass(frozen=True)
class CircuitGraph:
    """Senders write into the residual stream, readers read it later; an edge is a sender with a later reader.

    Senders: `("embed",)` (the stream's start), `("head", layer, head)`, `("mlp", layer)`. A head writes its
    `hook_result`, after LayerScale; in a post-norm block, its share of what the norm writes, and an equal part of the
    bias. Readers: `("q", layer, head)`, `("k", …)`, `("v", …)`, `("mlp", layer)`, `("logits",)`. Heads that share keys
    and values share these readers; the gate of a gated attention is read with the
    queries. In a parallel block, the MLP does not read the heads of its own block.

    With groups of tokens, every part is split: `("head", 5, 3, "cls")` is head 5.3 at the queries in CLS, and
    `("v", 5, 3, "object", "cls")` is what its values at object patches contribute there. The stream connects equal
    tokens only, so an edge leaves its sender at the tokens that its reader reads.

    An edge is an entry of tensors [sender reader]; `valid` marks those that exist.

    >>> graph = CircuitGraph(n_layers=2, n_heads=3)
    >>> graph.n_senders, graph.n_readers, graph.n_edges
    (9, 21, 75)
    >>> graph.edge(2, graph.readers.index(("q", 1, 0)))
    (('head', 0, 1), ('q', 1, 0))
    """

    n_layers: int
    n_heads: int
    n_key_value_heads: tuple[int, ...] = ()
    parallel: tuple[bool, ...] = ()
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.n_key_value_heads:
            object.__setattr__(self, "n_key_value_heads", (self.n_heads,) * self.n_layers)
        if not self.parallel:
            object.__setattr__(self, "parallel", (False,) * self.n_layers)

    @property
    def n_groups(self) -> int:
        """Number of groups of tokens; 1 if the tokens are not split."""
        return max(1, len(self.groups))

    @property
    def n_senders(self) -> int:
        """Number of senders, each of them in all groups."""
        return 1 + self.n_layers * (self.n_heads + 1)

    @property
    def n_readers(self) -> int:
        """Number of readers."""
        return self.logits_slice.stop

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return int(self.valid.sum())

    @cached_property
    def senders(self) -> tuple[tuple[Any, ...], ...]:
        """The senders, in the order of the sender axis, without groups."""
        found: list[tuple[Any, ...]] = [("embed",)]
        for layer in range(self.n_layers):
            found += [("head", layer, head) for head in range(self.n_heads)]
            found.append(("mlp", layer))
        return tuple(found)

    @cached_property
    def readers(self) -> tuple[tuple[Any, ...], ...]:
        """The readers, in the order of the reader axis."""
        found: list[tuple[Any, ...]] = []
        names = [(name,) for name in self.groups] or [()]
        for layer in range(self.n_layers):
            found += [("q", layer, head, *group) for head in range(self.n_heads) for group in names]
            for kind in ("k", "v"):
                for head in range(self.n_key_value_heads[layer]):
                    found += [(kind, layer, head, *read, *written) for read in names for written in names]
            found += [("mlp", layer, *group) for group in names]
        return (*found, *(("logits", *group) for group in names))

    # ------------------------------------------------------------------ positions on the axes

    def heads_of(self, layer: int) -> slice:
        """The heads of a block, on the sender axis."""
        first = 1 + layer * (self.n_heads + 1)
        return slice(first, first + self.n_heads)

    def mlp_of(self, layer: int) -> int:
        """The MLP of a block, on the sender axis."""
        return self.heads_of(layer).stop

    def reader_slice(self, kind: str, layer: int) -> slice:
        """The readers of a kind in a block: `q` [head group], `k` and `v` [head read_group written_group], `mlp`."""
        groups = self.n_groups
        first = sum(self._n_readers_in(earlier) for earlier in range(layer))
        sizes = {"q": self.n_heads * groups, "k": self.n_key_value_heads[layer] * groups**2}
        sizes["v"], sizes["mlp"] = sizes["k"], groups
        for name, size in sizes.items():
            if name == kind:
                return slice(first, first + size)
            first += size
        raise ValueError(f"expected a kind of reader out of {', '.join(map(repr, sizes))}, got {kind!r}")

    @cached_property
    def logits_slice(self) -> slice:
        """The head of the model, on the reader axis."""
        first = sum(map(self._n_readers_in, range(self.n_layers)))
        return slice(first, first + self.n_groups)

    def _n_readers_in(self, layer: int) -> int:
        return self.n_groups * (self.n_heads + 1) + 2 * self.n_key_value_heads[layer] * self.n_groups**2

    def n_before(self, kind: str, layer: int) -> int:
        """How many senders, the first ones, write before a reader."""
        if kind == "logits":
            return self.n_senders
        before = self.heads_of(layer)
        return before.stop if kind == "mlp" and not self.parallel[layer] else before.start

    # ------------------------------------------------------------------ edges and nodes

    @cached_property
    def valid(self) -> Bool[Tensor, "sender reader"]:
        """True at the edges: where the sender writes before the reader reads."""
        before = torch.tensor([self.n_before(reader[0], reader[1] if len(reader) > 1 else 0) if reader[0] != "logits"
                               else self.n_senders for reader in self.readers])  # fmt: skip
        return torch.arange(self.n_senders)[:, None] < before

    @cached_property
    def read_group(self) -> Int[Tensor, "reader"]:
        """The group at whose tokens each reader reads the stream."""
        return self._group_index(-2)

    @cached_property
    def written_group(self) -> Int[Tensor, "reader"]:
        """The group at whose tokens the reader's part then writes."""
        return self._group_index(-1)

    def _group_index(self, position: int) -> Tensor:
        if not self.groups:
            return torch.zeros(self.n_readers, dtype=torch.long)
        return torch.tensor([
            self.groups.index(reader[position] if reader[0] in ("k", "v") else reader[-1]) for reader in self.readers
        ])  # fmt: skip

    def parts_of(self, reader: int) -> list[int]:
        """The senders that a reader belongs to: a head, an MLP, or heads that share keys; none for the logits."""
        kind, *at = self.readers[reader]
        if kind == "logits":
            return []
        if kind == "mlp":
            return [self.mlp_of(at[0])]
        first, shared = self.heads_of(at[0]).start, 1
        if kind != "q":
            shared = self.n_heads // self.n_key_value_heads[at[0]]
        return [first + at[1] * shared + i for i in range(shared)]

    @cached_property
    def belongs(self) -> Bool[Tensor, "sender reader"]:
        """True where a reader belongs to a sender: it is an input of the same head or MLP."""
        found = torch.zeros(self.n_senders, self.n_readers, dtype=torch.bool)
        for reader in range(self.n_readers):
            found[self.parts_of(reader), reader] = True
        return found

    def sender(self, index: int, group: int) -> tuple[Any, ...]:
        """The name of a sender at a group of tokens."""
        return (*self.senders[index], self.groups[group]) if self.groups else self.senders[index]

    def edge(self, sender: int, reader: int) -> Edge:
        """The names of an edge's ends."""
        return self.sender(sender, int(self.read_group[reader])), self.readers[reader]

    def index(self, edge: Edge) -> tuple[int, int]:
        """The position of an edge in tensors [sender reader].

        Raises:
            ValueError: If there is no such edge.
        """
        sender, reader = edge
        kind = sender[: len(sender) - 1] if self.groups else sender
        if reader not in self._reader_index or kind not in self._sender_index:
            missing = sender if reader in self._reader_index else reader
            raise ValueError(f"no {missing!r} in this graph: it has {self.senders[1]!r}, {self.readers[0]!r}, …")
        at = self._sender_index[kind], self._reader_index[reader]
        if not self.valid[at] or (self.groups and self.sender(at[0], int(self.read_group[at[1]])) != sender):
            raise ValueError(f"no edge from {sender!r} to {reader!r}: the reader must come later, at the same tokens")
        return at

    @cached_property
    def _sender_index(self) -> dict[tuple[Any, ...], int]:
        return {sender: i for i, sender in enumerate(self.senders)}

    @cached_property
    def _reader_index(self) -> dict[tuple[Any, ...], int]:
        return {reader: i for i, reader in enumerate(self.readers)}

    def mask(self, edges: Sequence[Edge]) -> Bool[Tensor, "sender reader"]:
        """True at the given edges.

        Raises:
            ValueError: If one of them does not exist.
        """
        found = torch.zeros_like(self.valid)
        for edge in edges:
            found[self.index(edge)] = True
        return found

    def edges(self, mask: Bool[Tensor, "sender reader"]) -> Iterator[Edge]:
        """The names of the edges in a mask."""
        for sender, reader in mask.nonzero().tolist():
            yield self.edge(sender, reader)


def circuit_graph(model: HookedViT, groups: Sequence[str] = ()) -> CircuitGraph:
    """The graph of a model.

    Args:
        model: The model.
        groups: The names of the groups of tokens that every part is split into; none to keep the tokens together.

    Raises:
        ValueError: If a group has two entries, attention is differential (each head has two patterns), or the blocks
            have several attentions.

    >>> graph = circuit_graph(HookedViT.from_pretrained("emoji-vit"))
    >>> graph.n_senders, graph.n_readers, graph.n_edges
    (41, 105, 1997)
    """
    if len(set(groups)) != len(groups):
        raise ValueError(f"expected groups with different names, got {', '.join(map(repr, groups))}")
    cfg = model.cfg
    if cfg.differential is not None:
        raise ValueError("circuits do not cover differential attention, whose heads have two queries and two keys each")
    refuse_absent(["blocks.0.attn.hook_z"], cfg)
    heads = tuple(cfg.n_key_value_heads_at(layer) for layer in range(cfg.n_layers))
    parallel = (cfg.parallel_attn_mlp,) * cfg.n_layers
    return CircuitGraph(cfg.n_layers, cfg.n_heads, heads, parallel, tuple(groups))

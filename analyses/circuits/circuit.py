"""A circuit: some edges of a graph, and the run in which everything else takes its value in a corrupt run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.circuits.graph import CircuitGraph, Edge, circuit_graph
from analyses.circuits.groups import Groups, group_members
from analyses.circuits.recording import Recording, record
from analyses.circuits.running import CircuitRun
from analyses.patching.runs import check_pair
from hooked_vit import HookedViT

__all__ = ["Circuit", "corrupt_recording", "rows_at_once", "run_circuits"]

_DEFAULT_MEMORY = 2**29


@dataclass(frozen=True)
class Circuit:
    """Some edges of a graph.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> whole = Circuit.whole(circuit_graph(model))
    >>> clean, corrupt = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    >>> torch.equal(whole.run(model, clean, corrupt), model(clean))
    True
    >>> torch.equal(whole.complement().run(model, clean, corrupt), model(corrupt))
    True
    """

    graph: CircuitGraph
    mask: Bool[Tensor, "sender reader"]

    def __post_init__(self) -> None:
        surplus = self.mask & ~self.graph.valid
        if surplus.any():
            sender, reader = surplus.nonzero()[0].tolist()
            raise ValueError(f"no edge from {self.graph.senders[sender]!r} to {self.graph.readers[reader]!r}")

    @classmethod
    def of(cls, graph: CircuitGraph, edges: Sequence[Edge]) -> "Circuit":
        """A circuit of named edges.

        Raises:
            ValueError: If one of them does not exist.

        >>> Circuit.of(CircuitGraph(1, 2), [(("embed",), ("v", 0, 1)), (("head", 0, 1), ("logits",))]).n_edges
        2
        """
        return cls(graph, graph.mask(edges))

    @classmethod
    def whole(cls, graph: CircuitGraph) -> "Circuit":
        """All edges."""
        return cls(graph, graph.valid)

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return int(self.mask.sum())

    @property
    def edges(self) -> list[Edge]:
        """The edges by name."""
        return list(self.graph.edges(self.mask))

    def complement(self) -> "Circuit":
        """All edges that are not in this circuit."""
        return Circuit(self.graph, self.graph.valid & ~self.mask)

    def without(self, *edges: Edge) -> "Circuit":
        """This circuit without some edges.

        Raises:
            ValueError: If one of them does not exist.
        """
        return Circuit(self.graph, self.mask & ~self.graph.mask(edges))

    # ------------------------------------------------------------------ connection

    def connected(self) -> "Circuit":
        """The edges that lie on a path from the embedding to the logits; the logits of a run stay the same.

        >>> loose = Circuit.of(CircuitGraph(1, 2), [(("embed",), ("v", 0, 1)), (("embed",), ("logits",))])
        >>> loose.connected().edges
        [(('embed',), ('logits',))]
        """
        reached, reaching = self.parts
        graph = self.graph
        from_embedding = reached[:, graph.read_group]
        towards_logits = torch.zeros(graph.n_readers, dtype=torch.bool)
        towards_logits[graph.logits_slice] = True
        towards_logits |= (graph.belongs & reaching[:, graph.written_group]).any(dim=0)
        return Circuit(graph, self.mask & from_embedding & towards_logits)

    @property
    def is_connected(self) -> bool:
        """Whether each edge lies on a path from the embedding to the logits."""
        return bool(torch.equal(self.connected().mask, self.mask))

    @cached_property
    def parts(self) -> tuple[Bool[Tensor, "sender group"], Bool[Tensor, "sender group"]]:
        """The senders that a path leads to from the embedding, and those that a path leads from to the logits."""
        graph = self.graph
        n_groups = graph.n_groups
        written = torch.nn.functional.one_hot(graph.written_group, n_groups).bool()  # [reader group]
        read = torch.nn.functional.one_hot(graph.read_group, n_groups).bool()
        reached = torch.zeros(graph.n_senders, n_groups, dtype=torch.bool)
        reached[0] = True
        for sender in range(1, graph.n_senders):
            readers = graph.belongs[sender]
            live = (self.mask & reached[:, graph.read_group])[:, readers].any(dim=0)
            reached[sender] = (live[:, None] & written[readers]).any(dim=0)
        reaching = torch.zeros_like(reached)
        for sender in reversed(range(graph.n_senders)):
            live = (graph.belongs & reaching[:, graph.written_group]).any(dim=0)
            live[graph.logits_slice] = True
            reaching[sender] = ((self.mask[sender] & live)[:, None] & read).any(dim=0)
        return reached, reaching

    # ------------------------------------------------------------------ running

    @torch.no_grad()
    def run(
        self,
        model: HookedViT,
        clean: Float[Tensor, "batch channel height width"],
        corrupt: Float[Tensor, "batch channel height width"] | Recording,
        groups: Groups | None = None,
    ) -> Float[Tensor, "batch n_classes"]:
        """The logits of clean images through this circuit; all other edges carry their value in the corrupt run.

        One run of the corrupt images and one of the clean ones, whatever the number of edges. With all edges, the
        logits are those of the clean run, and with none those of the corrupt run, to the last bit.

        Args:
            model: The model, without hooks.
            clean: Preprocessed images.
            corrupt: One image for each, of the same size; or a recording, to use one again (`record`) or to take the
                mean over a dataset (`mean_recording`).
            groups: The tokens of each group, for a graph of groups.

        Raises:
            ValueError: If the images, the model and the graph do not fit, or the model has hooks.
        """
        graph, kept = self.graph, corrupt_recording(model, clean, corrupt)
        members = checked_groups(model, graph, kept, len(clean), groups)
        run = CircuitRun(model, graph, self.mask[None], kept, members, (clean.shape[-2], clean.shape[-1]))
        return model.run_with_hooks(clean, fwd_hooks=run.hooks)

    def table(self) -> pd.DataFrame:
        """One row per edge: `sender` and `reader` with their `layer`, `head` and groups."""
        return edge_table(self.graph, self.mask)


def edge_table(graph: CircuitGraph, mask: Tensor) -> pd.DataFrame:
    """One row per edge of a mask [sender reader]."""
    rows = []
    for index, (sender, reader) in zip(mask.nonzero().tolist(), graph.edges(mask), strict=True):
        groups = {}
        if graph.groups:
            for name, of in (("read_group", graph.read_group), ("written_group", graph.written_group)):
                groups[name] = graph.groups[int(of[index[1]])]
        at: tuple[Any, ...] = graph.senders[index[0]][1:]
        to: tuple[Any, ...] = () if reader[0] == "logits" else reader[1:]
        rows.append({
            "sender": sender[0], "sender_layer": at[0] if at else None, "sender_head": at[1] if len(at) > 1 else None,
            "reader": reader[0], "reader_layer": to[0] if to else None,
            "reader_head": to[1] if reader[0] in ("q", "k", "v") else None, **groups,
        })  # fmt: skip
    columns = ["sender", "sender_layer", "sender_head", "reader", "reader_layer", "reader_head"]
    columns += ["read_group", "written_group"] if graph.groups else []
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({name: "Int64" for name in columns if name.endswith(("layer", "head"))})


def corrupt_recording(model: HookedViT, clean: Tensor, corrupt: Tensor | Recording) -> Recording:
    """The recording of corrupt images, or a given one.

    Raises:
        ValueError: If they do not fit the clean images or the model.
    """
    if not isinstance(corrupt, Recording):
        check_pair(model, clean, corrupt)
        return record(model, corrupt)
    check_pair(model, clean, clean)
    n_rows, n_tokens, n_senders, width = corrupt.writes.shape
    expected = model.cfg.token_layout_at(*clean.shape[-2:]).n_tokens, circuit_graph(model).n_senders, model.cfg.d_model
    if n_rows not in (1, len(clean)) or (n_tokens, n_senders, width) != expected:
        raise ValueError(
            f"the recording has {n_rows} images, {n_tokens} tokens, {n_senders} senders and width {width}, expected "
            f"{len(clean)} or 1, {expected[0]}, {expected[1]} and {expected[2]}: record it with this model and images"
        )
    return corrupt


def checked_groups(
    model: HookedViT, graph: CircuitGraph, corrupt: Recording, n_images: int, groups: Groups | None
) -> Bool[Tensor, "#batch group token"]:
    """The tokens of the graph's groups.

    Raises:
        ValueError: If the graph is of another model, or has other groups.
    """
    expected = circuit_graph(model, graph.groups)
    if expected != graph:
        raise ValueError(f"the circuit is one of another model: {graph}, and this model has {expected}")
    if tuple(groups or ()) != graph.groups:
        known = ", ".join(graph.groups) or "none"
        raise ValueError(f"expected the graph's groups of tokens, {known}, got {', '.join(groups or ()) or 'none'}")
    return group_members(groups or {}, model.cfg.token_layout, corrupt.writes.shape[1], n_images)


def rows_at_once(
    model: HookedViT, graph: CircuitGraph, n_tokens: int, memory_limit: float | int | None, *, gradients: bool = False
) -> int:
    """How many pairs of an image and a circuit may run at once, so that differences and gradients fit into memory.

    Raises:
        ValueError: If not even one fits.
    """
    cfg, n_groups = model.cfg, graph.n_groups
    # the differences of all senders, and the streams of a block's readers
    per_token = (graph.n_senders + 3 * graph.n_heads * (n_groups + 1)) * cfg.d_model
    if gradients:
        per_token += cfg.n_layers * (12 * cfg.d_model + 3 * cfg.d_mlp) + n_groups * graph.n_senders * graph.n_heads
    needed = n_tokens * per_token * cfg.dtype.itemsize + graph.n_senders * graph.n_readers * (4 if gradients else 1)
    if memory_limit is None:
        return max(1, int(_DEFAULT_MEMORY // needed))
    if memory_limit < needed:
        raise ValueError(
            f"memory_limit={memory_limit:.0f} bytes, but a graph of {graph.n_edges} edges needs about {needed} per "
            "image: raise it, or split the tokens into fewer groups"
        )
    return int(memory_limit // needed)


@torch.no_grad()
def run_circuits(
    model: HookedViT,
    graph: CircuitGraph,
    masks: Bool[Tensor, "circuit sender reader"],
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Recording,
    members: Bool[Tensor, "#batch group token"],
    *,
    memory_limit: float | int | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Iterator[Float[Tensor, "circuit batch n_classes"]]:
    """The logits of many circuits, several at a time: a row of a batch is a circuit and an image.

    Args:
        model: The model.
        graph: Its graph.
        masks: The edges of each circuit.
        clean: The images.
        corrupt: The values outside the circuits.
        members: The tokens of each group.
        memory_limit: Bytes that the rows may take at a time.
        progress: Called with the number of circuits that are done.
    """
    n_images = len(clean)
    n_rows = rows_at_once(model, graph, corrupt.writes.shape[1], memory_limit)
    n_circuits, n_at_once = max(1, n_rows // n_images), min(n_images, n_rows)
    for first in range(0, len(masks), n_circuits):
        some = masks[first : first + n_circuits]
        parts = []
        for start in range(0, n_images, n_at_once):
            images = slice(start, min(start + n_at_once, n_images))
            parts.append(_run_rows(model, graph, some, clean[images], corrupt.of_images(images), members, images))
        if progress is not None:
            progress(len(some))
        yield torch.cat(parts, dim=1)


def _run_rows(
    model: HookedViT, graph: CircuitGraph, masks: Tensor, clean: Tensor, corrupt: Recording, members: Tensor,
    images: slice,
) -> Tensor:  # fmt: skip
    n_circuits, n_images = len(masks), len(clean)
    members = members[images].repeat(n_circuits, 1, 1) if len(members) > 1 else members
    edges = masks.repeat_interleave(n_images, dim=0) if n_circuits > 1 else masks
    run = CircuitRun(model, graph, edges, corrupt.repeated(n_circuits), members, (clean.shape[-2], clean.shape[-1]))
    logits = model.run_with_hooks(clean.repeat(n_circuits, 1, 1, 1), fwd_hooks=run.hooks)
    return logits.unflatten(0, (n_circuits, n_images))

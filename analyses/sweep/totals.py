"""Totals of analyses' states over batches, whose bits do not depend on how the batches were divided among processes.

Whole numbers, minima and maxima are the same in any order. Sums of floating-point numbers are not, so they are taken
along a fixed binary tree over the positions of the batches: node (level, i) is the sum over batches i · 2^level to
(i + 1) · 2^level - 1, always as its left child plus its right child. A process keeps the nodes that are complete
(at most 2 log2 of the number of batches); nodes that two processes hold of one parent meet when they merge.
Rows of `"cat"` states stay in the order of the batches.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat, dim_zero_max, dim_zero_min, dim_zero_sum

__all__ = ["Totals"]

Kind: TypeAlias = Literal["sum", "cat", "max", "min"]
Leaf: TypeAlias = dict[str, Tensor]
Packed: TypeAlias = dict[str, Any]

_KINDS: dict[Any, Kind] = {dim_zero_sum: "sum", dim_zero_cat: "cat", dim_zero_max: "max", dim_zero_min: "min"}


class Totals:
    """The state of one analysis over the batches of one process.

    >>> from torchmetrics import SumMetric
    >>> metric, totals = SumMetric(), Totals()
    >>> for place, value in enumerate([1.0, 2.0, 3.0]):
    ...     metric.update(value)
    ...     totals.take(metric, place)
    >>> totals.put_into(metric)
    >>> metric.compute()
    tensor(6.)
    """

    def __init__(self) -> None:
        self.n_updates = 0
        self._kinds: dict[str, Kind] = {}
        self._whole: Leaf = {}
        self._nodes: dict[tuple[int, int], Leaf] = {}
        self._rows: dict[str, list[Tensor]] = {}

    def take(self, metric: Metric, place: int) -> None:
        """Move what `metric` holds after the batch at `place` over into the totals, and reset it.

        A metric without an update says that the batch had no images.

        Raises:
            ValueError: If a state is reduced in a way that does not add up exactly.
        """
        leaf: Leaf = {}
        if metric.update_called:
            for name, default in metric._defaults.items():
                self._kinds[name] = kind = _kind(metric, name, default)
                value = getattr(metric, name)
                if kind == "cat":
                    rows = value if isinstance(value, list) else [value]
                    self._rows.setdefault(name, []).extend(torch.atleast_1d(row.detach()) for row in rows)
                elif kind == "sum" and value.is_floating_point():
                    leaf[name] = value.detach()
                else:
                    # wide enough not to overflow over a dataset, whatever the state's own type
                    whole = value.detach() if value.is_floating_point() else value.detach().to(torch.int64)
                    self._whole[name] = _reduced(kind, self._whole[name], whole) if name in self._whole else whole
            self.n_updates += 1
            metric.reset()
        self._insert((0, place), leaf)

    def merge(self, other: "Totals") -> None:
        """Take in the totals of the batches that follow this one's."""
        self.n_updates += other.n_updates
        self._kinds.update(other._kinds)
        for name, value in other._whole.items():
            mine = self._whole.get(name)
            self._whole[name] = value if mine is None else _reduced(self._kinds[name], mine, value)
        for name, rows in other._rows.items():
            self._rows.setdefault(name, []).extend(rows)
        for node, value in sorted(other._nodes.items(), key=lambda one: one[0][1] << one[0][0]):
            self._insert(node, value)

    def _insert(self, node: tuple[int, int], value: Leaf) -> None:
        while (sibling := (node[0], node[1] ^ 1)) in self._nodes:
            other = self._nodes.pop(sibling)
            left, right = (value, other) if node[1] < sibling[1] else (other, value)
            value, node = _added(left, right), (node[0] + 1, node[1] // 2)
        self._nodes[node] = value

    def put_into(self, metric: Metric) -> None:
        """Make the totals the state of `metric`, as if it had seen every batch."""
        metric.reset()
        sums: Leaf = {}
        for _, value in sorted(self._nodes.items(), key=lambda one: one[0][1] << one[0][0]):
            sums = _added(sums, value)
        for name, kind in self._kinds.items():
            value: Any = [] if kind == "cat" else {**self._whole, **sums}[name]
            if name not in metric._defaults:
                metric.add_state(name, [] if kind == "cat" else torch.zeros_like(value), dist_reduce_fx=kind)
            rows = self._rows.get(name)
            setattr(metric, name, [torch.cat(rows)] if rows else value)
        metric._update_count = self.n_updates
        # they are the whole dataset's already: to gather them across processes again would count twice
        metric.distributed_available_fn = _never

    def pack(self) -> Packed:
        """What `unpack` reads: numbers, strings and tensors on the CPU, in dicts and lists."""
        for name, rows in self._rows.items():
            self._rows[name] = [torch.cat(rows)] if rows else []
        return {
            "n_updates": self.n_updates,
            "kinds": dict(self._kinds),
            "whole": _on(self._whole, "cpu"),
            "rows": {name: [row.cpu() for row in rows] for name, rows in self._rows.items()},
            "nodes": [[*node, _on(value, "cpu")] for node, value in self._nodes.items()],
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Any], device: torch.device | str = "cpu") -> "Totals":
        """Totals that were packed."""
        totals = cls()
        totals.n_updates = packed["n_updates"]
        totals._kinds = dict(packed["kinds"])
        totals._whole = _on(packed["whole"], device)
        totals._rows = {name: [row.to(device) for row in rows] for name, rows in packed["rows"].items()}
        totals._nodes = {(level, place): _on(value, device) for level, place, value in packed["nodes"]}
        return totals


def _kind(metric: Metric, name: str, default: Any) -> Kind:
    kind = _KINDS.get(metric._reductions[name])
    if kind is None or (kind == "sum" and not (isinstance(default, Tensor) and not default.any())):
        raise ValueError(
            f"state '{name}' of {type(metric).__name__} does not add up over batches: add_state needs "
            'dist_reduce_fx "sum" with a default of zeros, "cat" with [], "max" or "min"'
        )
    return kind


def _reduced(kind: Kind, one: Tensor, other: Tensor) -> Tensor:
    if kind == "sum":
        return one + other
    return torch.maximum(one, other) if kind == "max" else torch.minimum(one, other)


def _added(left: Leaf, right: Leaf) -> Leaf:
    names: Iterable[str] = {**left, **right}
    return {name: left[name] + right[name] if name in left and name in right else {**left, **right}[name]
            for name in names}  # fmt: skip


def _on(tensors: Mapping[str, Tensor], device: torch.device | str) -> Leaf:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _never() -> bool:
    return False

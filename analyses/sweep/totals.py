"""Totals of analyses' states over batches, bit-identical however the batches are divided among processes.

Whole numbers, minima and maxima are the same in any order. Sums of floating-point numbers are not, so they are taken
along a fixed binary tree over the numbers of the batches: node (level, i) is the sum over batches i · 2^level to
(i + 1) · 2^level - 1, always as its left child plus its right child. A process keeps the nodes that are complete
(at most 2 log2 of the number of batches); when two processes hold the two children of a node, merging adds them.
Rows of `"cat"` states stay in the order of the batches.
"""

from collections.abc import Mapping
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
    >>> for batch, value in enumerate([1.0, 2.0, 3.0]):
    ...     metric.update(value)
    ...     totals.add_batch(batch, metric)
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

    def add_batch(self, batch: int, metric: Metric) -> None:
        """Move the state of `metric` after the batch of this number into the totals, and reset the metric.

        If the metric has had no update, the batch had no images.

        Raises:
            ValueError: If a state has a reduction that does not add up exactly.
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
        self._insert((0, batch), leaf)

    def merge(self, other: "Totals") -> None:
        """Add the totals of the batches that follow."""
        self.n_updates += other.n_updates
        self._kinds.update(other._kinds)
        for name, value in other._whole.items():
            own = self._whole.get(name)
            self._whole[name] = value if own is None else _reduced(self._kinds[name], own, value)
        for name, rows in other._rows.items():
            self._rows.setdefault(name, []).extend(rows)
        for node, value in other._nodes_in_order():
            self._insert(node, value)

    def _nodes_in_order(self) -> list[tuple[tuple[int, int], Leaf]]:
        """The nodes in the order of their first batches."""
        return sorted(self._nodes.items(), key=lambda item: item[0][1] << item[0][0])

    def _insert(self, node: tuple[int, int], value: Leaf) -> None:
        while (sibling := (node[0], node[1] ^ 1)) in self._nodes:
            other = self._nodes.pop(sibling)
            left, right = (value, other) if node[1] < sibling[1] else (other, value)
            value, node = _added(left, right), (node[0] + 1, node[1] // 2)
        self._nodes[node] = value

    def put_into(self, metric: Metric) -> None:
        """Set the state of `metric` to the totals, as if it had been updated with every batch."""
        metric.reset()
        sums: Leaf = {}
        for _, value in self._nodes_in_order():
            sums = _added(sums, value)
        for name, kind in self._kinds.items():
            value: Any = [] if kind == "cat" else {**self._whole, **sums}[name]
            if name not in metric._defaults:
                metric.add_state(name, [] if kind == "cat" else torch.zeros_like(value), dist_reduce_fx=kind)
            rows = self._rows.get(name)
            setattr(metric, name, [torch.cat(rows)] if rows else value)
        metric._update_count = self.n_updates
        # the totals cover the whole dataset: gathering them across processes again would count every batch twice
        metric.distributed_available_fn = _never

    def pack(self) -> Packed:
        """The totals as numbers, strings and tensors on the CPU, in dicts and lists, for `unpack`."""
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
        """The totals that `pack` was called on."""
        totals = cls()
        totals.n_updates = packed["n_updates"]
        totals._kinds = dict(packed["kinds"])
        totals._whole = _on(packed["whole"], device)
        totals._rows = {name: [row.to(device) for row in rows] for name, rows in packed["rows"].items()}
        totals._nodes = {(level, i): _on(value, device) for level, i, value in packed["nodes"]}
        return totals


def _kind(metric: Metric, name: str, default: Any) -> Kind:
    kind = _KINDS.get(metric._reductions[name])
    if kind is None or (kind == "sum" and not (isinstance(default, Tensor) and not default.any())):
        raise ValueError(
            f"state '{name}' of {type(metric).__name__} does not add up over batches: add_state needs "
            'dist_reduce_fx "sum" with a default of zeros, "cat" with [], "max" or "min"'
        )
    return kind


def _reduced(kind: Kind, a: Tensor, b: Tensor) -> Tensor:
    if kind == "sum":
        return a + b
    return torch.maximum(a, b) if kind == "max" else torch.minimum(a, b)


def _added(left: Leaf, right: Leaf) -> Leaf:
    both = left.keys() & right.keys()
    return {name: left[name] + right[name] if name in both else value for name, value in {**left, **right}.items()}


def _on(tensors: Mapping[str, Tensor], device: torch.device | str) -> Leaf:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _never() -> bool:
    return False

"""A process's share of a sweep: how far it has come, written down now and then, found again after a kill."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch

from analyses.analysis.base import Analysis
from analyses.sweep.processes import Processes
from analyses.sweep.record import check_continues, check_same
from analyses.sweep.store import Store
from analyses.sweep.totals import Totals

__all__ = ["Checkpoints", "Share", "what_is_there"]


@dataclass
class Share:
    """What a process has found so far. It grows by whole batches, so it always is what some batches amount to.

    Attributes:
        next_batch: The batch to go on with, `None` before the first.
        totals: By analysis.
        skipped: Place and reason of images that could not be read.
    """

    next_batch: int | None = None
    totals: dict[str, Totals] = field(default_factory=dict)
    skipped: list[tuple[int, str]] = field(default_factory=list)

    def take(self, named: Mapping[str, Analysis], place: int, failures: Iterable[tuple[int, str]]) -> None:
        """Batch `place` is done: take over what the analyses hold of it (nothing, if none of it could be read)."""
        for name, analysis in named.items():
            self.totals.setdefault(name, Totals()).take(analysis, place)
        self.skipped += failures
        self.next_batch = place + 1

    def skipped_table(self) -> pd.DataFrame:
        """Columns `index` and `reason`, a row an image."""
        index = pd.Series([index for index, _ in self.skipped], dtype="int64")
        return pd.DataFrame({"index": index, "reason": pd.Series([reason for _, reason in self.skipped], dtype="str")})

    def pack(self) -> dict[str, Any]:
        """What `unpack` reads: numbers, strings and tensors on the CPU."""
        totals = {name: one.pack() for name, one in self.totals.items()}
        return {"next_batch": self.next_batch, "totals": totals, "skipped": [list(one) for one in self.skipped]}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any], device: torch.device) -> "Share":
        """A share that was packed."""
        totals = {name: Totals.unpack(one, device) for name, one in packed["totals"].items()}
        return cls(packed["next_batch"], totals, [(index, reason) for index, reason in packed["skipped"]])

    @classmethod
    def merged(cls, shares: Iterable["Share"]) -> "Share":
        """All of the dataset, from the shares of all processes in order."""
        whole = cls()
        for share in shares:
            for name, totals in share.totals.items():
                whole.totals.setdefault(name, Totals()).merge(totals)
            whole.skipped += share.skipped
        return whole


class Checkpoints:
    """Writes down a share every so many seconds (0: after each batch)."""

    def __init__(self, store: Store | None, record: Mapping[str, Any], processes: Processes, every: float | int):
        self._store, self._processes, self._every = store, processes, every
        self._record = json.dumps(record)
        self._last = time.monotonic()

    def after_batch(self, share: Share) -> None:
        """Write, if it is time."""
        if time.monotonic() - self._last >= self._every:
            self.write(share)

    def write(self, share: Share) -> None:
        """Write now. The record goes along: on a machine of its own, a process has no other."""
        if self._store is not None:
            content = {"record": self._record, **share.pack()}
            self._store.write_checkpoint(self._processes.rank, self._processes.count, content)
        self._last = time.monotonic()


def what_is_there(
    store: Store | None, record: Mapping[str, Any], processes: Processes, device: torch.device
) -> dict[str, pd.DataFrame] | Share:
    """The tables, if this very sweep is finished; else what this process has done of it.

    Raises:
        ValueError: In all processes, if what one of them finds is another sweep, or damaged.
    """
    if store is None:
        return Share()
    tables, share, problem = None, Share(), None
    try:
        tables = _finished(store, record)
        if tables is None:
            share = _interrupted(store, record, processes, device)
    except ValueError as error:
        problem = str(error)
    found = processes.gather((tables, problem))
    problems = [problem for _, problem in found if problem is not None]
    if problems:
        raise ValueError(problems[0])
    # the first process is the one that writes tables
    return share if found[0][0] is None else found[0][0]


def _finished(store: Store, record: Mapping[str, Any]) -> dict[str, pd.DataFrame] | None:
    then = store.read_record()
    if then is None or not then["finished"]:
        return None
    check_same(then, record, str(store.folder))
    return store.read_tables(then["tables"])


def _interrupted(store: Store, record: Mapping[str, Any], processes: Processes, device: torch.device) -> Share:
    then = store.read_record()
    if then is not None:
        check_continues(then, record, str(store.folder))
    checkpoint = store.read_checkpoint(processes.rank, processes.count)
    if checkpoint is None:
        return Share()
    check_continues(json.loads(checkpoint["record"]), record, str(store.folder))
    return Share.unpack(checkpoint, device)

"""A process's share of a sweep: its progress, saved in checkpoints and restored when the sweep is run again."""

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

__all__ = ["Checkpoints", "Share", "resume_state"]


@dataclass
class Share:
    """What a process has computed so far. It grows by whole batches, so it is always the result of some batches.

    Attributes:
        next_batch: The batch to continue with, `None` before the first.
        totals: The analyses' totals by name.
        skipped: Index and reason of each image that could not be read.
    """

    next_batch: int | None = None
    totals: dict[str, Totals] = field(default_factory=dict)
    skipped: list[tuple[int, str]] = field(default_factory=list)

    def add_batch(self, batch: int, analyses: Mapping[str, Analysis], failures: Iterable[tuple[int, str]]) -> None:
        """Move the analyses' states after the batch of this number into the totals (no update: nothing was read)."""
        for name, analysis in analyses.items():
            self.totals.setdefault(name, Totals()).add_batch(batch, analysis)
        self.skipped += failures
        self.next_batch = batch + 1

    def skipped_table(self) -> pd.DataFrame:
        """Columns `index` and `reason`, one row per image."""
        index = pd.Series([index for index, _ in self.skipped], dtype="int64")
        return pd.DataFrame({"index": index, "reason": pd.Series([reason for _, reason in self.skipped], dtype="str")})

    def pack(self) -> dict[str, Any]:
        """The share as numbers, strings and tensors on the CPU, for `unpack`."""
        totals = {name: totals.pack() for name, totals in self.totals.items()}
        return {"next_batch": self.next_batch, "totals": totals, "skipped": [list(entry) for entry in self.skipped]}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any], device: torch.device) -> "Share":
        """The share that `pack` was called on."""
        totals = {name: Totals.unpack(state, device) for name, state in packed["totals"].items()}
        return cls(packed["next_batch"], totals, [(index, reason) for index, reason in packed["skipped"]])

    @classmethod
    def merged(cls, shares: Iterable["Share"]) -> "Share":
        """The share of the whole dataset, from the shares of all processes in order."""
        whole = cls()
        for share in shares:
            for name, totals in share.totals.items():
                whole.totals.setdefault(name, Totals()).merge(totals)
            whole.skipped += share.skipped
        return whole


class Checkpoints:
    """Writes a share to disk every `every` seconds; with 0, after each batch."""

    def __init__(self, store: Store | None, record: Mapping[str, Any], processes: Processes, every: float | int):
        self._store, self._processes, self._every = store, processes, every
        self._record = json.dumps(record)
        self._last = time.monotonic()

    def after_batch(self, share: Share) -> None:
        """Write if the last checkpoint is old enough."""
        if time.monotonic() - self._last >= self._every:
            self.write(share)

    def write(self, share: Share) -> None:
        """Write now, together with the record: a process on another machine may not see `record.json`."""
        if self._store is not None:
            content = {"record": self._record, **share.pack()}
            self._store.write_checkpoint(self._processes.rank, self._processes.count, content)
        self._last = time.monotonic()


def resume_state(
    store: Store | None, record: Mapping[str, Any], processes: Processes, device: torch.device
) -> dict[str, pd.DataFrame] | Share:
    """The tables if this sweep is finished, else the share that this process has computed so far.

    Raises:
        ValueError: In all processes, if any of them finds a different sweep or a damaged file.
    """
    if store is None:
        return Share()
    tables, share, problem = None, Share(), None
    try:
        tables = _finished_tables(store, record)
        if tables is None:
            share = _interrupted_share(store, record, processes, device)
    except ValueError as error:
        problem = str(error)
    gathered = processes.gather((tables, problem))
    problems = [problem for _, problem in gathered if problem is not None]
    if problems:
        raise ValueError(problems[0])
    # the tables of the first process, since it is the one that writes them
    tables = gathered[0][0]
    return share if tables is None else tables


def _finished_tables(store: Store, record: Mapping[str, Any]) -> dict[str, pd.DataFrame] | None:
    then = store.read_record()
    if then is None or not then["finished"]:
        return None
    check_same(then, record, str(store.folder))
    return store.read_tables(then["tables"])


def _interrupted_share(store: Store, record: Mapping[str, Any], processes: Processes, device: torch.device) -> Share:
    then = store.read_record()
    if then is not None:
        check_continues(then, record, str(store.folder))
    checkpoint = store.read_checkpoint(processes.rank, processes.count)
    if checkpoint is None:
        return Share()
    check_continues(json.loads(checkpoint["record"]), record, str(store.folder))
    return Share.unpack(checkpoint, device)

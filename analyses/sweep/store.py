"""A sweep's files: tables, record and checkpoints, each of which is whole or not there, whenever the power goes."""

import io
import json
import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch

__all__ = ["Store", "as_read"]

_RECORD = "record.json"


class Store:
    """The folder of one sweep.

    ```
    record.json                       what was run, on what, with which options; whether it is finished
    identifiability.parquet, ...      a table each, there when the sweep is finished
    checkpoints/rank-0-of-2.pt, ...   how far each process has come, gone when the sweep is finished
    ```

    A file is written beside its place, flushed to the disk, and moved into it. Checkpoints hold tensors, numbers
    and strings, and are read without running code.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"'{folder}' is a file: out must be a folder")

    def read_record(self) -> dict[str, Any] | None:
        """The record of the sweep that was begun or finished here, if any."""
        path = self.folder / _RECORD
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"'{path}' is no record of a sweep: {error}; choose another folder") from error

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Whether `finished`, and everything that the tables follow from."""
        self._write(_RECORD, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())

    def write_tables(self, tables: Mapping[str, pd.DataFrame], record: Mapping[str, Any]) -> None:
        """The tables, and then the record, which says that they are all there."""
        for name, table in tables.items():
            self._write(f"{name}.parquet", _encoded(table))
        self.write_record({**record, "tables": list(tables), "finished": True})

    def read_tables(self, names: Sequence[str]) -> dict[str, pd.DataFrame]:
        """The tables of a finished sweep."""
        return {name: pd.read_parquet(self.folder / f"{name}.parquet") for name in names}

    def read_checkpoint(self, rank: int, count: int) -> dict[str, Any] | None:
        """How far a process had come, if it had written that down."""
        path = self._checkpoint(rank, count)
        if not path.is_file():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise ValueError(f"checkpoint '{path}' is damaged: {error}; delete it to run its share again") from error

    def write_checkpoint(self, rank: int, count: int, checkpoint: Mapping[str, Any]) -> None:
        """How far a process has come: tensors, numbers and strings."""
        buffer = io.BytesIO()
        torch.save(dict(checkpoint), buffer)
        path = self._checkpoint(rank, count)
        self._write(str(path.relative_to(self.folder)), buffer.getvalue())

    def clear_checkpoints(self) -> None:
        """Remove all checkpoints, and what a killed process left half-written."""
        # several processes may do so at once
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what a sweep wrote here, and nothing else."""
        record = self.read_record() or {}
        (self.folder / _RECORD).unlink(missing_ok=True)
        for name in record.get("tables", []):
            (self.folder / f"{name}.parquet").unlink(missing_ok=True)
        self.clear_checkpoints()

    def _checkpoint(self, rank: int, count: int) -> Path:
        return self.folder / "checkpoints" / f"rank-{rank}-of-{count}.pt"

    def _write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)


def as_read(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """What reading the tables gives after writing them: Parquet has fewer types of columns than pandas."""
    return {name: pd.read_parquet(io.BytesIO(_encoded(table))) for name, table in tables.items()}


def _encoded(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def _flush_folder(folder: Path) -> None:
    """The move itself must reach the disk, too; where folders cannot be opened, there is nothing to flush."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)

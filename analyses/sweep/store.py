"""A sweep's files: tables, record and checkpoints, each complete or absent even after a power failure."""

import io
import json
import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

import pandas as pd
import torch

__all__ = ["Store", "as_read", "flush_folder"]

_RECORD = "record.json"


class Store:
    """The folder of one sweep.

    ```
    record.json                       model, data, analyses and options; whether the sweep is finished
    identifiability.parquet, ...      one table per analysis, written when the sweep is finished
    checkpoints/rank-0-of-2.pt, ...   the progress of each process, deleted when the sweep is finished
    ```

    A file is written under a temporary name, flushed to the disk, and renamed. Checkpoints hold tensors, numbers and
    strings, and are read without running code.

    Of the processes that share a sweep, the first writes record and tables, and each its own checkpoint.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"'{folder}' is a file: out must be a folder")

    def read_record(self) -> dict[str, Any] | None:
        """The record of the sweep that was started or finished here, if any."""
        path = self.folder / _RECORD
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text("utf-8"))
            if not isinstance(record, dict) or "finished" not in record:
                raise ValueError("it lacks 'finished'")
        except ValueError as error:
            raise ValueError(f"'{path}' is not the record of a sweep: {error}; choose another folder") from error
        return record

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write everything that determines the tables, and whether the sweep is `finished`."""
        self._write(_RECORD, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())

    def write_tables(self, tables: Mapping[str, pd.DataFrame], record: Mapping[str, Any]) -> None:
        """Write the tables, and then the record, which marks them as complete."""
        for name, table in tables.items():
            self._write(f"{name}.parquet", _encoded(table))
        self.write_record({**record, "tables": list(tables), "finished": True})

    def read_tables(self, names: Sequence[str]) -> dict[str, pd.DataFrame]:
        """The tables of a finished sweep."""
        return {name: pd.read_parquet(self.folder / f"{name}.parquet") for name in names}

    def read_checkpoint(self, rank: int, count: int) -> dict[str, Any] | None:
        """The last checkpoint of a process, if it has written one."""
        path = self._checkpoint(rank, count)
        if not path.is_file():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise ValueError(f"checkpoint '{path}' is damaged: {error}; delete it to run its share again") from error

    def write_checkpoint(self, rank: int, count: int, checkpoint: Mapping[str, Any]) -> None:
        """Write the progress of a process: tensors, numbers and strings."""
        buffer = io.BytesIO()
        torch.save(dict(checkpoint), buffer)
        path = self._checkpoint(rank, count)
        self._write(str(path.relative_to(self.folder)), buffer.getvalue())

    def clear_checkpoints(self) -> None:
        """Remove all checkpoints, when no process writes them any more; several processes may do this at once."""
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def clear_temporaries(self, names: Sequence[str]) -> None:
        """Remove what killed processes have left of the record and the tables of these names.

        Only for the process that writes these files: it may be writing one while the others clear their checkpoints.
        """
        for name in (_RECORD, *(f"{name}.parquet" for name in names)):
            for leftover in self.folder.glob(f".{escape(name)}.*.tmp"):
                leftover.unlink(missing_ok=True)

    def clear(self, names: Sequence[str]) -> None:
        """Remove the files of the sweep in this folder, and no others.

        Args:
            names: The tables that the next sweep writes, of which a killed process may have left temporary files.
        """
        tables = (self.read_record() or {}).get("tables", [])
        (self.folder / _RECORD).unlink(missing_ok=True)
        for name in tables:
            (self.folder / f"{name}.parquet").unlink(missing_ok=True)
        self.clear_checkpoints()
        self.clear_temporaries([*tables, *names])

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
        flush_folder(path.parent)


def as_read(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables as they are after writing and reading them: Parquet has fewer column types than pandas."""
    return {name: pd.read_parquet(io.BytesIO(_encoded(table))) for name, table in tables.items()}


def _encoded(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def flush_folder(folder: Path) -> None:
    """Flush a folder to the disk after a rename in it; does nothing where folders cannot be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)

"""The tables and the record of a finished sweep, read from its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.sweep.record import upgraded
from analyses.sweep.store import Store

__all__ = ["SweepOutput", "read_sweep"]


@dataclass(frozen=True)
class SweepOutput:
    """The files of a finished sweep.

    Attributes:
        folder: The sweep's folder.
        record: `record.json`, in the current format.
        tables: The tables by name, in the order in which they were requested.
    """

    folder: Path
    record: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]

    @property
    def n_classes(self) -> int:
        """Number of the model's classes."""
        return self.record["model"]["cfg"]["n_classes"]

    @property
    def asked(self) -> Mapping[str, Any]:
        """The command's `model`, `weights`, `random_weights`, `data`, `date`; empty for a sweep run from Python."""
        asked = self.record.get("asked")
        return asked if isinstance(asked, Mapping) else {}

    def kind(self, name: str) -> str:
        """Name of the analysis that computed a table, as in the catalogue; "" for the sweep's own tables."""
        return self.record["analyses"].get(name, {}).get("type", "")


def read_sweep(folder: str | Path) -> SweepOutput:
    """Read what `sweep(..., out=folder)` or `hooked-vit sweep --out` wrote.

    Raises:
        ValueError: If there is no sweep, it is not finished, or its record or a table is damaged or missing.

    >>> read_sweep("nowhere")
    Traceback (most recent call last):
    ValueError: no sweep in 'nowhere': expected the folder that `hooked-vit sweep --out` wrote
    """
    folder = Path(folder)
    store = Store(folder)
    record = store.read_record()
    if record is None:
        raise ValueError(f"no sweep in '{folder}': expected the folder that `hooked-vit sweep --out` wrote")
    try:
        record = upgraded(record)
        if not record["finished"]:
            raise ValueError(f"the sweep in '{folder}' is not finished: run it again to resume it")
        _ = record["model"]["cfg"]["n_classes"], record["analyses"].items(), record["dataset"]["n_images"]
        names = list(record["tables"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"'{folder / 'record.json'}' is not the record of a sweep: it lacks {error}") from error
    try:
        return SweepOutput(folder, record, store.read_tables(names))
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise ValueError(
            f"a table of the sweep in '{folder}' is missing or damaged: {error}; run it again with --no-resume"
        ) from error

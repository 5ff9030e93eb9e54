"""A sweep's folder, read: its tables, and what they follow from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.sweep.record import current_format
from analyses.sweep.store import Store

__all__ = ["SweepOutput", "read_sweep"]


@dataclass(frozen=True)
class SweepOutput:
    """What a finished sweep left in its folder.

    Attributes:
        folder: Where.
        record: `record.json`.
        tables: By name, in the order in which they were asked for.
    """

    folder: Path
    record: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]

    @property
    def n_classes(self) -> int:
        """Of the model."""
        return self.record["model"]["cfg"]["n_classes"]

    @property
    def asked(self) -> Mapping[str, Any]:
        """What the command was asked for: `model`, `weights`, `random_weights`, `data`, `date`; empty of Python's."""
        asked = self.record.get("asked")
        return asked if isinstance(asked, Mapping) else {}

    def kind(self, name: str) -> str:
        """Name of the analysis that computed a table, as in the catalogue; "" for the sweep's own tables."""
        return self.record["analyses"].get(name, {}).get("type", "")


def read_sweep(folder: str | Path) -> SweepOutput:
    """Read what `sweep(..., out=folder)` or `hooked-vit sweep --out` wrote.

    Raises:
        ValueError: There is no sweep, or it is not finished, or its record or a table is damaged or missing.

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
        record = current_format(record)
        if not record["finished"]:
            raise ValueError(f"the sweep in '{folder}' is not finished: run it again, and it goes on where it stopped")
        _ = record["model"]["cfg"]["n_classes"], record["analyses"].items(), record["dataset"]["n_images"]
        names = list(record["tables"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"'{folder / 'record.json'}' is no record of a sweep: it lacks {error}") from error
    try:
        return SweepOutput(folder, record, store.read_tables(names))
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise ValueError(
            f"a table of the sweep in '{folder}' is missing or damaged: {error}; run it again with --no-resume"
        ) from error

"""What the benchmarks share: their options, and rows that are printed when they are measured and kept in a CSV."""

import argparse
import csv
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "timm", "transformer-lens", "transformers", "nnsight", "hooked-vit")


def options(description: str, quick: dict[str, Any], **defaults: Any) -> argparse.ArgumentParser:
    """The options of a benchmark; `parse` reads them.

    Args:
        description: The benchmark's docstring.
        quick: What `--quick` sets.
        defaults: Of further options, by name.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown at the end")
    parser.add_argument("--quick", action="store_true", help="a first look, in under a minute")
    parser.add_argument("--csv", type=Path, default=None, help="default: out/benchmarks/, by the benchmark's name")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.set_defaults(of_quick=quick)
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, and set the number of threads. `--quick` replaces what is not given."""
    arguments = parser.parse_args()
    if arguments.quick:
        parser.set_defaults(**arguments.of_quick)
        arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments


def machine() -> dict[str, str]:
    """The versions and the machine that numbers were measured with."""
    found = {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    cpu = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), "")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {**found, "cpu": cpu or platform.processor(), "cores": str(os.cpu_count()), "gpu": gpu}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


class Report:
    """Rows of a benchmark.

    Args:
        name: Of the benchmark, and of its CSV.
        header: The columns.
        arguments: Of the command line.
    """

    def __init__(self, name: str, header: Sequence[str], arguments: argparse.Namespace):
        self.header, self.rows, self.markdown = tuple(header), [], arguments.markdown
        path = arguments.csv or Path("out/benchmarks") / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", newline="")
        self._writer = csv.writer(self._file)
        self._machine = {**machine(), "threads": str(arguments.threads), "device": arguments.device}
        self._writer.writerow([*self.header, *self._machine])
        of = self._machine
        print(
            f"{name}: torch {of['torch']}, timm {of['timm']}, {of['threads']} threads, {of['cpu']} {of['gpu']}; {path}"
        )
        self._line(self.header)

    def row(self, *cells: object) -> None:
        """Print a row, and append it to the CSV."""
        row = [str(cell) for cell in cells]
        assert len(row) == len(self.header), "a cell for each column"
        self.rows.append(row)
        self._line(row)
        self._writer.writerow([*row, *self._machine.values()])
        self._file.flush()

    def finish(self) -> None:
        """Print the whole as Markdown, if that was asked for."""
        self._file.close()
        if self.markdown:
            for row in (self.header, ["---"] * len(self.header), *self.rows):
                print("|", " | ".join(row), "|")

    def _line(self, cells: Sequence[str]) -> None:
        widths = [max(len(name), 28 if index == 0 else 0) for index, name in enumerate(self.header)]
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print(line.rstrip(), flush=True)

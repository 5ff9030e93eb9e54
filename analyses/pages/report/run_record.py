"""The run of a report in readable rows: model, dataset, analyses, options and versions."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from analyses.sweep.output import SweepOutput

__all__ = ["record_rows"]

_ARCHITECTURE = (
    "n_layers",
    "d_model",
    "n_heads",
    "d_mlp",
    "n_classes",
    "image_size",
    "patch_size",
    "pool",
    "n_registers",
    "n_added_registers",
)


def record_rows(
    found: SweepOutput, null: SweepOutput | None = None, model_name: str | None = None
) -> list[tuple[str, str]]:
    """Names and values of everything that determines the tables.

    Args:
        found: The sweep.
        null: Its null control.
        model_name: By default the name that the command was given.
    """
    record, asked = found.record, found.asked
    model, dataset, versions = record["model"], record["dataset"], record.get("versions", {})
    untrained = ", freshly initialised" if asked.get("random_weights") else ""
    name = (model_name or str(asked.get("model", ""))) + untrained
    weights = f"SHA-256 {model.get('weights_sha256', '')}"
    machine = record.get("machine", {})
    rows = [
        ("model", name),
        ("architecture", _listed({field: model["cfg"].get(field) for field in _ARCHITECTURE})),
        ("weights", f"{asked['weights']}, {weights}" if asked.get("weights") else weights),
        ("interventions", _listed(model.get("hooks"))),
        ("preprocessing", _listed(record.get("preprocessing"))),
        ("dataset", f"{asked.get('data', '')} {_listed(dataset.get('description'))}".strip()),
        ("images", f"{dataset['n_images']:,}"),
        *((f"analysis: {name}", _listed(analysis.get("options"))) for name, analysis in record["analyses"].items()),
        ("options", _listed(record.get("options"))),
        ("null control", "" if null is None else f"SHA-256 {null.record['model'].get('weights_sha256', '')}"),
        ("date of the sweep", _date(found)),
        ("machine", _listed({**machine, "processes": record.get("processes")})),
        ("versions", ", ".join(f"{package} {version}" for package, version in versions.items() if version)),
    ]
    return [(name, text) for name, text in rows if text]


def _date(found: SweepOutput) -> str:
    if found.asked.get("date"):
        return str(found.asked["date"])
    written = (found.folder / "record.json").stat().st_mtime
    return datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d")


def _listed(value: Any) -> str:
    """A description (see `analyses.sweep.describe`) as a line."""
    if isinstance(value, Mapping):
        type_name = str(value.get("type", "")).rpartition(".")[2]
        fields = [(name, field) for name, field in value.items() if name != "type" and field not in (None, {}, [])]
        return " ".join([type_name, ", ".join(f"{name} {_plain(field)}" for name, field in fields)]).strip()
    return _plain(value) if value not in (None, []) else ""


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"SHA-256 {str(value['sha256'])[:12]}…" if "sha256" in value else f"({_listed(value)})"
    if isinstance(value, list):
        return f"[{', '.join(_plain(item) for item in value)}]"
    return value if isinstance(value, str) else json.dumps(value)

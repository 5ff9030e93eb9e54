"""The numbers at the head of each section of a report: what was measured, its control, and what was published."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analyses.catalogue import CATALOGUE, Headline

__all__ = ["Quantity", "has_blocks", "quantities_of"]


@dataclass(frozen=True)
class Quantity:
    """A number of a report.

    Attributes:
        label: What it is.
        unit: "%", "points" (of percent), "logits", or "" of what is between -1 and 1.
        value: Measured.
        low: Of its interval; NaN where it has none.
        high: Of its interval.
        control: The same of the control (see the section); NaN where there is none.
        published: NaN where there is none.
        published_control: The published value of the untrained model.
    """

    label: str
    unit: str
    value: float
    low: float = np.nan
    high: float = np.nan
    control: float = np.nan
    published: float = np.nan
    published_control: float = np.nan


def quantities_of(
    name: str,
    table: pd.DataFrame,
    null: pd.DataFrame | None = None,
    published: Mapping[str, float] | None = None,
    published_null: Mapping[str, float] | None = None,
) -> list[Quantity]:
    """The headline numbers of a table, those after the last block unless their label says otherwise.

    Args:
        name: The analysis, as in `CATALOGUE`; one that is not in it has no headline.
        table: What it computed.
        null: The same of the untrained model.
        published: By key, as in `analyses.pages.report.published`.
        published_null: The same of the untrained model.
    """
    published, published_null = published or {}, published_null or {}
    found = []
    for headline in _headlines(name):
        column = headline.column
        row = _row(table, headline.where)
        if row is None:
            continue
        untrained = None if null is None else _row(null, headline.where)
        # the interval of a perturbation is of its effect, not of what comes of it
        low, high = (row[end] for end in ("low", "high")) if column == "value" else (np.nan, np.nan)
        found.append(
            Quantity(
                headline.label,
                headline.unit,
                float(row[column]),
                float(low),
                float(high),
                np.nan if untrained is None else float(untrained[column]),
                published.get(headline.published, np.nan),
                published_null.get(headline.published, np.nan),
            )
        )
    own = {
        "accuracy": _accuracies,
        "perturbation": _perturbed_accuracies,
        "key_value_agreement": _agreements,
        "class_value_agreement": _class_values,
        "faithfulness": _areas,
        "localisation": _localised,
        "ablation_study": _largest_ablations,
    }
    if name in own:
        found += own[name](table, null, published)
    return found


def has_blocks(name: str) -> bool:
    """Whether the headline numbers of an analysis are those after the last block."""
    return bool(_headlines(name))


def _headlines(name: str) -> Sequence[Headline]:
    return CATALOGUE[name].headlines if name in CATALOGUE else ()


def _rows(table: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    chosen = np.ones(len(table), dtype=bool)
    for name, value in where.items():
        chosen &= table[name].eq(value).fillna(False).to_numpy(dtype=bool)
    return pd.DataFrame(table[chosen])


def _row(table: pd.DataFrame, where: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Of the last block."""
    rows = _rows(table, where).sort_values(by="layer")
    return rows.to_dict("records")[-1] if len(rows) else None


def _accuracies(table: pd.DataFrame, null: pd.DataFrame | None, published: Mapping[str, float]) -> list[Quantity]:
    row = table.iloc[0]
    n_images = int(row["n_images"])
    ends = {}
    for name in ("top1", "top5"):
        interval = binomtest(round(row[name] * n_images / 100), n_images).proportion_ci(method="wilson")
        ends[name] = {"low": 100 * interval.low, "high": 100 * interval.high}
    untrained = dict.fromkeys(("top1", "top5"), np.nan) if null is None else null.iloc[0]
    return [
        Quantity("accuracy, top 1", "%", row["top1"], **ends["top1"], control=float(untrained["top1"]),
                 published=published.get("accuracy", np.nan)),
        Quantity("accuracy, top 5", "%", row["top5"], **ends["top5"], control=float(untrained["top5"])),
    ]  # fmt: skip


def _perturbed_accuracies(table: pd.DataFrame, null: pd.DataFrame | None, _: Mapping[str, float]) -> list[Quantity]:
    of_null = {} if null is None else {row["perturbation"]: row["value"] for row in _records(null, metric="accuracy")}
    found = []
    for row in _records(table, metric="accuracy"):
        name = str(row["perturbation"])
        label = f"{name.replace('_', ' ').replace('cls', 'CLS')}: change of accuracy"
        control = float(of_null.get(name, np.nan))
        found.append(Quantity(label, "points", row["value"], row["low"], row["high"], control))
    return found


def _agreements(table: pd.DataFrame, null: pd.DataFrame | None, _: Mapping[str, float]) -> list[Quantity]:
    found = []
    names = {"z": "attention", "pre": "MLP, before f", "post": "MLP, after f"}
    for coefficients, name in names.items():
        where = {"images": "all", "token_type": "all", "coefficients": coefficients}
        rates = _records(table, metric="agreement_rate", **where)
        if rates:
            best = max(rates, key=lambda row: row["value"])
            chance = _records(table, metric="agreement_rate_random", layer=best["layer"], **where)[0]["value"]
            label = f"{name}: largest rate over blocks, block {best['layer']}"
            found.append(Quantity(label, "%", best["value"], best["low"], best["high"], chance))
    return found


def _class_values(table: pd.DataFrame, null: pd.DataFrame | None, _: Mapping[str, float]) -> list[Quantity]:
    found = []
    for stream, name in (("attn_out", "attention"), ("mlp_out", "MLP")):
        rows = _records(table, stream=stream)
        if rows:
            last = max(rows, key=lambda row: row["layer"])
            label = f"{name}: mean largest cosine, last block"
            found.append(Quantity(label, "", last["value"], last["low"], last["high"], last["null"]))
    return found


def _areas(table: pd.DataFrame, null: pd.DataFrame | None, published: Mapping[str, float]) -> list[Quantity]:
    found = []
    for direction, better in (("negative", "higher is better"), ("positive", "lower is better")):
        rows = _records(table, direction=direction, metric="auc_published")
        chance = {row["method"]: row["value"] for row in rows}.get("random", np.nan)
        for row in rows:
            method = str(row["method"])
            label = f"{method.replace('_', ' ')}: area, {direction} ({better})"
            known = published.get(f"auc_{direction}/{method}", np.nan)
            found.append(Quantity(label, "", row["value"], row["low"], row["high"], chance, known))
    return found


def _localised(table: pd.DataFrame, null: pd.DataFrame | None, _: Mapping[str, float]) -> list[Quantity]:
    return [
        Quantity(f"{row['method']}: {row['metric']}".replace("_", " ").replace("iou", "IoU"), "", row["value"],
                 row["low"], row["high"], np.nan if row["metric"] == "mask_iou" else row["chance"])
        for row in _records(table)
    ]  # fmt: skip


def _largest_ablations(table: pd.DataFrame, null: pd.DataFrame | None, _: Mapping[str, float]) -> list[Quantity]:
    rows = [row for row in _records(table, metric="label_logit") if pd.isna(row["class_index"])]
    found = []
    for row in sorted(rows, key=lambda row: -abs(row["value"]))[:5]:
        part = "MLP" if row["component"] == "mlp" else f"head {row['head']:.0f}"
        label = f"block {row['layer']}, {part}: change of the correct class's logit"
        found.append(Quantity(label, "logits", row["value"], row["low"], row["high"]))
    return found


def _records(table: pd.DataFrame, **where: Any) -> list[dict[str, Any]]:
    return list(_as_records(_rows(table, where)))


def _as_records(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in rows.to_dict("records"):
        yield {str(name): value for name, value in row.items()}

"""The numbers at the top of each section of a report: the measured value, its control, and the published value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analyses.analysis.tables import rows_where
from analyses.catalogue import CATALOGUE, Headline

__all__ = ["Quantity", "has_blocks", "quantities_of"]

_N_ABLATIONS = 5  # the largest, in a report


@dataclass(frozen=True)
class Quantity:
    """A number of a report.

    Attributes:
        label: Its name.
        unit: "%", "points" (of percent), "logits", or "" for a quantity between -1 and 1.
        value: The measured value.
        low: The lower end of its interval; NaN if it has none.
        high: The upper end of its interval.
        control: The value of the control, which the section names; NaN if there is none.
        published: The published value; NaN if there is none.
        published_control: The published value of the untrained model.
        key: The key of the published value; "" if the paper has none.
    """

    label: str
    unit: str
    value: float
    low: float = np.nan
    high: float = np.nan
    control: float = np.nan
    published: float = np.nan
    published_control: float = np.nan
    key: str = ""


def quantities_of(
    name: str,
    table: pd.DataFrame,
    null: pd.DataFrame | None = None,
    published: Mapping[str, float] | None = None,
    published_null: Mapping[str, float] | None = None,
) -> list[Quantity]:
    """The headline numbers of a table, those after the last block unless their label says otherwise.

    Args:
        name: The analysis, as in `CATALOGUE`; others have no headlines.
        table: The table of the analysis.
        null: The same table for the untrained model.
        published: Published values by key, as in `analyses.catalogue.published`.
        published_null: The same for the untrained model.
    """
    published, published_null = published or {}, published_null or {}
    quantities = []
    for headline in _headlines(name):
        row = _last_row(table, headline.where)
        if row is None:
            continue
        untrained = None if null is None else _last_row(null, headline.where)
        # other columns than `value` have no interval: that of a perturbation belongs to its effect
        low, high = (row["low"], row["high"]) if headline.column == "value" else (np.nan, np.nan)
        quantities.append(
            Quantity(
                headline.label,
                headline.unit,
                float(row[headline.column]),
                float(low),
                float(high),
                np.nan if untrained is None else float(untrained[headline.column]),
                published.get(headline.published, np.nan),
                published_null.get(headline.published, np.nan),
                headline.published,
            )
        )
    if name in _MORE_QUANTITIES:
        quantities += _MORE_QUANTITIES[name](table, null, published)
    return quantities


def has_blocks(name: str) -> bool:
    """Whether the headline numbers of an analysis are those after the last block."""
    return bool(_headlines(name))


def _headlines(name: str) -> Sequence[Headline]:
    return CATALOGUE[name].headlines if name in CATALOGUE else ()


def _last_row(table: pd.DataFrame, where: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The row of the last block, if any row has these values."""
    rows = rows_where(table, where).sort_values(by="layer")
    return rows.to_dict("records")[-1] if len(rows) else None


def _accuracies(table: pd.DataFrame, null: pd.DataFrame | None, published: Mapping[str, float]) -> list[Quantity]:
    row = table.iloc[0]
    n_images = int(row["n_images"])
    quantities = []
    for column, label, key in (("top1", "accuracy, top 1", "accuracy"), ("top5", "accuracy, top 5", "")):
        interval = binomtest(round(row[column] * n_images / 100), n_images).proportion_ci(method="wilson")
        control = np.nan if null is None else float(null.iloc[0][column])
        known = published.get(key, np.nan)
        low, high = 100 * interval.low, 100 * interval.high
        quantities.append(Quantity(label, "%", row[column], low, high, control, known, key=key))
    return quantities


def _perturbed_accuracies(table: pd.DataFrame, null: pd.DataFrame | None, _: Mapping[str, float]) -> list[Quantity]:
    null_rows = [] if null is None else _records(null, metric="accuracy")
    controls = {row["perturbation"]: row["value"] for row in null_rows}
    quantities = []
    for row in _records(table, metric="accuracy"):
        name = str(row["perturbation"])
        label = f"{name.replace('_', ' ').replace('cls', 'CLS')}: change of accuracy"
        control = float(controls.get(name, np.nan))
        quantities.append(Quantity(label, "points", row["value"], row["low"], row["high"], control))
    return quantities


def _agreements(table: pd.DataFrame, null: pd.DataFrame | None, _: Mapping[str, float]) -> list[Quantity]:
    quantities = []
    names = {"z": "attention", "pre": "MLP, before activation", "post": "MLP, after activation"}
    for coefficients, name in names.items():
        where = {"images": "all", "token_type": "all", "coefficients": coefficients}
        rates = _records(table, metric="agreement_rate", **where)
        if rates:
            best = max(rates, key=lambda row: row["value"])
            chance = _records(table, metric="agreement_rate_random", layer=best["layer"], **where)[0]["value"]
            label = f"{name}: largest rate over blocks, block {best['layer']}"
            quantities.append(Quantity(label, "%", best["value"], best["low"], best["high"], chance))
    return quantities


def _class_value_agreements(table: pd.DataFrame, null: pd.DataFrame | None, _: Mapping[str, float]) -> list[Quantity]:
    quantities = []
    for stream, name in (("attn_out", "attention"), ("mlp_out", "MLP")):
        rows = _records(table, stream=stream)
        if rows:
            last = max(rows, key=lambda row: row["layer"])
            label = f"{name}: mean largest cosine, last block"
            quantities.append(Quantity(label, "", last["value"], last["low"], last["high"], last["null"]))
    return quantities


def _areas(table: pd.DataFrame, null: pd.DataFrame | None, published: Mapping[str, float]) -> list[Quantity]:
    quantities = []
    for direction, better in (("negative", "higher is better"), ("positive", "lower is better")):
        rows = _records(table, direction=direction, metric="auc_published")
        chance = {row["method"]: row["value"] for row in rows}.get("random", np.nan)
        for row in rows:
            method = str(row["method"])
            label = f"{method.replace('_', ' ')}: area, {direction} ({better})"
            key = f"auc_{direction}/{method}"
            known = published.get(key, np.nan)
            quantities.append(Quantity(label, "", row["value"], row["low"], row["high"], chance, known, key=key))
    return quantities


def _localisations(table: pd.DataFrame, null: pd.DataFrame | None, _: Mapping[str, float]) -> list[Quantity]:
    quantities = []
    for row in _records(table):
        label = f"{row['method']}: {row['metric']}".replace("_", " ").replace("iou", "IoU")
        chance = np.nan if row["metric"] == "mask_iou" else row["chance"]
        quantities.append(Quantity(label, "", row["value"], row["low"], row["high"], chance))
    return quantities


def _largest_ablations(table: pd.DataFrame, null: pd.DataFrame | None, _: Mapping[str, float]) -> list[Quantity]:
    rows = [row for row in _records(table, metric="label_logit") if pd.isna(row["class_index"])]
    quantities = []
    for row in sorted(rows, key=lambda row: -abs(row["value"]))[:_N_ABLATIONS]:
        part = "MLP" if row["component"] == "mlp" else f"head {row['head']:.0f}"
        label = f"block {row['layer']}, {part}: change of the correct class's logit"
        quantities.append(Quantity(label, "logits", row["value"], row["low"], row["high"]))
    return quantities


def _records(table: pd.DataFrame, **where: Any) -> list[dict[str, Any]]:
    """The rows that have these values."""
    records = rows_where(table, where).to_dict("records")
    return [{str(column): value for column, value in row.items()} for row in records]


_MORE_QUANTITIES: Mapping[str, Callable[..., list[Quantity]]] = {
    "accuracy": _accuracies,
    "perturbation": _perturbed_accuracies,
    "key_value_agreement": _agreements,
    "class_value_agreement": _class_value_agreements,
    "faithfulness": _areas,
    "localisation": _localisations,
    "ablation_study": _largest_ablations,
}
"""By analysis: the quantities that are not single rows after the last block."""

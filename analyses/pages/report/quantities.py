"""The numbers at the head of each section of a report: what was measured, its control, and what was published."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

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


_ALL_PATCHES = {"token_type": "patch", "region": "all"}
_RATE = {"metric": "identifiability_rate"}
_IMAGES_RATE = {"metric": "identifiability_rate_of_images"}
_UPDATES: dict[str, Any] = {"reference": "block_input", "images": "all", "metric": "similarity_change_rate"}
_COMPOSED: dict[str, Any] = {**_ALL_PATCHES, "images": "all"}

# label, unit, the row's columns, the column of the number, its published key
_Spec = tuple[str, str, Mapping[str, Any], str, str]
_SPECS: Mapping[str, Sequence[_Spec]] = {
    "analyses.identifiability.Identifiability": [
        ("patch tokens with the class on top", "%", {**_RATE, **_ALL_PATCHES}, "value", "rate"),
        ("images with at least one such patch", "%",
         {"metric": "images_with_identifiable", **_ALL_PATCHES}, "value", "images_with_one"),
        ("identifiability of patches", "", {"metric": "identifiability", **_ALL_PATCHES}, "value", ""),
        ("identifiability of CLS", "", {"metric": "identifiability", "token_type": "cls"}, "value", ""),
        ("identifiability of patches on the object", "",
         {"metric": "identifiability", "token_type": "patch", "region": "object"}, "value", ""),
        ("identifiability of patches of context", "",
         {"metric": "identifiability", "token_type": "patch", "region": "context"}, "value", ""),
        ("object minus context, within images", "",
         {"metric": "identifiability", "region": "object_minus_context"}, "value", ""),
    ],
    "analyses.categorical_updates.over_dataset.CategoricalUpdates": [
        (f"{name}: {tokens} moved towards the class, share", "",
         {**_UPDATES, "stream": stream, "token_type": kind, "region": "all"}, "value", "")
        for stream, name in (("attn_out", "attention"), ("mlp_out", "MLP"))
        for kind, tokens in (("cls", "CLS"), ("patch", "patches"))
    ] + [
        (f"patches whose top class is that of {name}", "%", {**_COMPOSED, "metric": f"composition_{part}"}, "value", "")
        for part, name in (("previous", "the block's input"), ("attn", "attention"), ("mlp", "the MLP"),
                           ("none", "none of the three"))
    ],
    "analyses.perturbation.over_dataset.Perturbation": [
        ("rate of patches, unperturbed", "%",
         {**_RATE, **_ALL_PATCHES, "perturbation": "self_only"}, "before", "rate"),
        ("self only: rate of patches", "%",
         {**_RATE, **_ALL_PATCHES, "perturbation": "self_only"}, "after", "rate_self_only"),
        ("no CLS: rate of patches", "%", {**_RATE, **_ALL_PATCHES, "perturbation": "no_cls"}, "after", "rate_no_cls"),
        ("patches on the object, with context: rate", "%",
         {**_RATE, **_ALL_PATCHES, "perturbation": "no_context"}, "before", "rate_no_context_before"),
        ("patches on the object, no context: rate", "%",
         {**_IMAGES_RATE, **_ALL_PATCHES, "perturbation": "no_context"}, "after", "rate_no_context_after"),
        ("patches of context, with the object: rate", "%",
         {**_RATE, **_ALL_PATCHES, "perturbation": "no_object"}, "before", "rate_no_object_before"),
        ("patches of context, no object: rate", "%",
         {**_IMAGES_RATE, **_ALL_PATCHES, "perturbation": "no_object"}, "after", "rate_no_object_after"),
        *(
            (f"{name}: change of the rate of patches", "points",
             {**_RATE, **_ALL_PATCHES, "perturbation": perturbation}, "value", "")
            for perturbation, name in (("self_only", "self only"), ("no_cls", "no CLS"),
                                       ("no_context", "no context"), ("no_object", "no object"))
        ),
    ],
    "analyses.memory_pairs.composition.Compositionality": [
        (f"{name}, 5 memories, all tokens", "%",
         {"metric": "compositionality", "images": "all", "token_type": "all", "k": 5, "coefficients": kind},
         "value", "")
        for kind, name in (("z", "attention"), ("pre", "MLP, coefficients before f"),
                           ("post", "MLP, coefficients after f"))
    ],
}  # fmt: skip


def quantities_of(
    kind: str,
    table: pd.DataFrame,
    null: pd.DataFrame | None = None,
    published: Mapping[str, float] | None = None,
    published_null: Mapping[str, float] | None = None,
) -> list[Quantity]:
    """The headline numbers of a table, those after the last block unless their label says otherwise.

    Args:
        kind: The analysis, by module and class; one that is unknown has no headline.
        table: What it computed.
        null: The same of the untrained model.
        published: By key, as in `analyses.pages.report.published`.
        published_null: The same of the untrained model.
    """
    published, published_null = published or {}, published_null or {}
    found = []
    for label, unit, where, column, key in _SPECS.get(kind, []):
        row = _row(table, where)
        if row is None:
            continue
        untrained = None if null is None else _row(null, where)
        # the interval of a perturbation is of its effect, not of what comes of it
        low, high = (row[end] for end in ("low", "high")) if column == "value" else (np.nan, np.nan)
        found.append(
            Quantity(
                label,
                unit,
                float(row[column]),
                float(low),
                float(high),
                np.nan if untrained is None else float(untrained[column]),
                published.get(key, np.nan),
                published_null.get(key, np.nan),
            )
        )
    own = {
        "analyses.sweep.accuracy.Accuracy": _accuracies,
        "analyses.perturbation.over_dataset.Perturbation": _perturbed_accuracies,
        "analyses.memory_pairs.agreement.KeyValueAgreement": _agreements,
        "analyses.value_vectors.alignment.ClassValueAgreement": _class_values,
        "analyses.faithfulness.over_dataset.Faithfulness": _areas,
        "analyses.faithfulness.over_dataset.Localisation": _localised,
        "analyses.patching.ablation.AblationStudy": _largest_ablations,
    }
    if kind in own:
        found += own[kind](table, null, published)
    return found


def has_blocks(kind: str) -> bool:
    """Whether the headline numbers of an analysis are those after the last block."""
    return kind in _SPECS


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

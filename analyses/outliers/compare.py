"""The effect of test-time registers on attention, segmentation and accuracy, with random neurons as the control."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from analyses.analysis.tables import difference_rows, rows_where
from analyses.data.dataset import LabelledImages
from analyses.outliers.over_dataset import METRICS, Outliers
from analyses.outliers.scores import THRESHOLD
from analyses.segmentation.over_dataset import Segmentation
from analyses.statistics.intervals import Resampling
from analyses.sweep.run import sweep
from hooked_vit import HookedViT
from hooked_vit.interventions import move_neurons

__all__ = ["compare_registers", "random_neurons"]

_KEYS = ["metric", "layer", "token_type", "region"]
_COLUMNS = ["condition", *_KEYS, "before", "after", "value", "low", "high", "p_value", "p_adjusted", "effect_size",
            "n_images"]  # fmt: skip
_KINDS = ["metric", "token_type", "region"]
_TESTS = ("low", "high", "p_value", "p_adjusted", "effect_size")


def compare_registers(
    model: HookedViT,
    dataset: LabelledImages,
    neurons: Mapping[int, Sequence[int]],
    n_registers: int = 1,
    *,
    threshold: float | int = THRESHOLD,
    batch_size: int = 32,
    seed: int = 0,
    resampling: Resampling = Resampling(),
    progress: bool | None = None,
) -> pd.DataFrame:
    """Measure a model with test-time registers (Jiang et al. 2025) against the model as it is, on the same images.

    | condition | the model |
    |---|---|
    | `registers` | with registers added, and nothing else |
    | `moved` | with registers, to which the neurons are moved |
    | `random` | with registers, to which as many random neurons of the same blocks are moved |

    The table has a row for each condition, block, kind of token and metric: those of `Outliers`; and where the dataset
    has masks `pixel_accuracy`, `object_iou` and `mean_iou` of `Segmentation`; and `accuracy`, in percent, without a
    block. `before` is the model as it is, `value` is `after - before`; `low` and `high` are bootstrap intervals of the
    paired difference over images, `p_value` is that of a sign-flip permutation test, `p_adjusted` Holm's over blocks.
    `mean_iou` is a number of the whole dataset, and has neither. Registers that the model lacked before have
    only `after`.

    Args:
        model: The model.
        dataset: As for `sweep`.
        neurons: The neurons of each block, such as `register_neurons(...).top(10)`; find them on other images.
        n_registers: Registers to add.
        threshold: The norm ratio above which a token is an outlier.
        batch_size: Images per forward pass.
        seed: Seed of the random neurons.
        resampling: Bootstrap intervals and permutation tests.
        progress: As for `sweep`.

    Raises:
        ValueError: As `sweep` and `move_neurons`; or if a block has too few other neurons for the control.

    >>> from analyses.data import EmojiScenes
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> table = compare_registers(model, EmojiScenes(4, seed=3), {2: [5, 7]})
    >>> table[table["metric"] == "accuracy"]["condition"].tolist()
    ['registers', 'moved', 'random']
    """
    more = model.with_registers(n_registers)
    conditions = {
        "registers": (),
        "moved": move_neurons(more, neurons),
        "random": move_neurons(more, random_neurons(model, neurons, seed)),
    }
    options: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    before, tables = _numbers(model, dataset, (), threshold, options), []
    for condition, hooks in conditions.items():
        after = _numbers(more, dataset, hooks, threshold, options)
        tables.append(_differences(before, after, resampling).assign(condition=condition))
    return pd.concat(tables, ignore_index=True).reindex(columns=_COLUMNS).astype({"layer": "Int64"})


def random_neurons(model: HookedViT, neurons: Mapping[int, Sequence[int]], seed: int) -> dict[int, list[int]]:
    """As many random neurons of the same blocks, none of them given.

    Raises:
        ValueError: If a block has too few others.

    >>> drawn = random_neurons(HookedViT.from_pretrained("emoji-vit"), {2: [5, 7]}, seed=0)
    >>> len(drawn[2]), {5, 7} & set(drawn[2])
    (2, set())
    """
    generator, drawn = torch.Generator().manual_seed(seed), {}
    for layer, chosen in neurons.items():
        others = sorted(set(range(model.cfg.d_mlp)) - {int(neuron) % model.cfg.d_mlp for neuron in chosen})
        if len(others) < len(chosen):
            raise ValueError(
                f"block {layer} has {len(others)} other neurons, the control needs {len(chosen)}: move fewer"
            )
        order = torch.randperm(len(others), generator=generator)[: len(chosen)].tolist()
        drawn[layer] = sorted(others[place] for place in order)
    return drawn


def _numbers(
    model: HookedViT, dataset: LabelledImages, hooks: Any, threshold: float | int, options: dict[str, Any]
) -> pd.DataFrame:
    """One number per image, and the mean IoU without an `index`: a row for each of them and of `_KEYS`."""
    few = Resampling(2)  # their own intervals are not read
    outliers, segmentation = Outliers(threshold, few), Segmentation(resampling=few)
    table = sweep(model, dataset, [outliers, segmentation], fwd_hooks=hooks, **options)["segmentation"]
    images = outliers.images()
    metrics = [metric for metric in METRICS if metric in images]
    index, correct = outliers.by_image("index", "correct")
    accuracy = pd.DataFrame({"index": index, "metric": "accuracy", "value": 100.0 * correct})
    whole = rows_where(table, {"metric": "mean_iou"})
    tables = [
        images.melt(["index", *_KEYS[1:]], metrics, var_name="metric"),
        accuracy.assign(token_type="", region="all"),
        *(_segmented(segmentation) if len(table) else ()),
        whole.assign(token_type="patch", region="object"),
    ]
    found = pd.concat([table for table in tables if len(table)], ignore_index=True)
    return found.reindex(columns=["index", *_KEYS, "value"]).astype({"layer": "Int64", "index": "Int64"})


def _segmented(segmentation: Segmentation) -> list[pd.DataFrame]:
    """Pixel accuracy and IoU of each image that shows an object, in percent."""
    index, hits, union, inside = segmentation.by_image("index", "hits", "union", "object_pixels")
    tables = []
    for layer in range(hits.shape[2]):
        for metric, pixels in (("pixel_accuracy", inside), ("object_iou", union[:, 0, layer])):
            numbers = {"index": index, "layer": layer, "value": 100 * hits[:, 0, layer] / pixels}
            tables.append(pd.DataFrame(numbers).assign(metric=metric, token_type="patch", region="object"))
    return tables


def _differences(before: pd.DataFrame, after: pd.DataFrame, resampling: Resampling) -> pd.DataFrame:
    """A row for each of `_KEYS`; registers that are only in `after` have no difference."""
    tables = []
    for kind in pd.DataFrame(after[_KINDS]).drop_duplicates().to_dict("records"):
        b, a = (_by_image(rows_where(table, {str(name): kind[name] for name in kind})) for table in (before, after))
        rows = pd.DataFrame({"layer": a.columns})
        means = rows.assign(**kind, after=a.mean().to_numpy(), n_images=len(a))
        if len(b):
            assert a.index.equals(b.index)
            means = means.assign(before=b.mean().to_numpy(), value=(a.mean() - b.mean()).to_numpy())
        if kind["metric"] == "mean_iou":
            means = means.assign(n_images=pd.NA)
        elif len(b) > 1:
            tests = difference_rows(a.to_numpy(), b.to_numpy(), rows, resampling, paired=True)
            means = means.assign(**{name: tests[name] for name in _TESTS})
        tables.append(means)
    return pd.concat(tables, ignore_index=True)


def _by_image(rows: pd.DataFrame) -> pd.DataFrame:
    """Values by image and block, both without a name where there is one number for all."""
    filled = rows.assign(index=rows["index"].fillna(-1), layer=rows["layer"].fillna(-1))
    wide = filled.pivot(index="index", columns="layer", values="value").astype(float)
    wide.columns = pd.array([pd.NA if layer < 0 else layer for layer in wide.columns], dtype="Int64")
    return wide

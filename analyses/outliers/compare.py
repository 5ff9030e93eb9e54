"""The effect of test-time registers on attention, segmentation and accuracy, with random neurons as the control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Num

from analyses.analysis.groups import TOKEN_GROUPS
from analyses.analysis.tables import difference_rows
from analyses.data.dataset import LabelledImages
from analyses.outliers.over_dataset import METRICS, Outliers
from analyses.outliers.scores import THRESHOLD
from analyses.segmentation.measures import ClassPixels, mean_iou
from analyses.segmentation.over_dataset import Segmentation
from analyses.statistics.intervals import Resampling
from analyses.sweep.run import sweep
from hooked_vit import HookedViT
from hooked_vit.interventions import move_neurons

__all__ = ["compare_registers", "random_neurons"]

_COLUMNS = ["condition", "metric", "layer", "token_type", "region", "before", "after", "value", "low", "high",
            "p_value", "p_adjusted", "effect_size", "n_images"]  # fmt: skip
_KINDS = ("metric", "token_type", "region")
_Kind = tuple[str, str, str]
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
    `mean_iou` is a number of the whole dataset: its interval resamples the 64 groups into which `Segmentation` divides
    the images, and it has no test. Registers that the model lacked before have only `after`. The memory is that of the
    states of `Outliers` and `Segmentation`, for two runs.

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
    before, tables = _Numbers.of_run(model, dataset, (), threshold, options), []
    for condition, hooks in conditions.items():
        after = _Numbers.of_run(more, dataset, hooks, threshold, options)
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


@dataclass(frozen=True)
class _Numbers:
    """What one run over the dataset counted of each image, and of the classes in groups of images.

    States of `Outliers` and `Segmentation`, as small as these keep them; `shown` are the images that show an object.
    """

    index: Int[np.ndarray, "image"]
    correct: Bool[np.ndarray, "image"]
    n_tokens: Int[np.ndarray, "image group"]
    sums: Float[np.ndarray, "image metric layer group"]
    shown: Int[np.ndarray, "shown"]
    hits: Int[np.ndarray, "shown layer"]
    union: Int[np.ndarray, "shown layer"]
    object_pixels: Int[np.ndarray, "shown"]
    class_pixels: Int[np.ndarray, "image_group count layer n_classes"] | None

    @classmethod
    def of_run(
        cls, model: HookedViT, dataset: LabelledImages, hooks: Any, threshold: float | int, options: dict[str, Any]
    ) -> "_Numbers":
        few = Resampling(2)  # their own intervals are not read
        outliers, segmentation = Outliers(threshold, few), Segmentation(resampling=few)
        sweep(model, dataset, [outliers, segmentation], fwd_hooks=hooks, **options)
        shown, hits, union, object_pixels = segmentation.by_image("index", "hits", "union", "object_pixels")
        grouped, pixels = "count layer (group c) -> group count layer c", None
        if len(shown):
            counted = segmentation.class_pixels[[0, 1, 3], 0].cpu()
            pixels = rearrange(counted, grouped, c=model.cfg.n_classes).numpy()
        index, correct, n_tokens, sums = outliers.by_image("index", "correct", "n_tokens", "sums")
        return cls(index, correct, n_tokens, sums, shown, hits[:, 0], union[:, 0], object_pixels, pixels)

    def kinds(self) -> list[_Kind]:
        """Everything that there is a number of for each image."""
        metrics = [metric for place, metric in enumerate(METRICS) if not np.isnan(self.sums[:, place]).any()]
        groups = [group for group, counts in zip(TOKEN_GROUPS, self.n_tokens.T, strict=True) if counts.any()]
        segmented = [(metric, "patch", "object") for metric in ("pixel_accuracy", "object_iou") if len(self.shown)]
        of_tokens = [(metric, *TOKEN_GROUPS[group]) for metric in metrics for group in groups]
        return [*of_tokens, ("accuracy", "", "all"), *segmented]

    def by_image(self, kind: _Kind) -> tuple[Int[np.ndarray, "image"], Float[np.ndarray, "image row"]]:
        """The images that have such a number, and the number of each, by block where blocks have their own."""
        metric = kind[0]
        if metric == "accuracy":
            return self.index, 100.0 * self.correct[:, None]
        if metric in ("pixel_accuracy", "object_iou"):
            whole = self.object_pixels[:, None] if metric == "pixel_accuracy" else self.union
            return self.shown, 100 * self.hits / whole
        group = list(TOKEN_GROUPS.values()).index(kind[1:])
        counts = self.n_tokens[:, group]
        sums = self.sums[counts > 0, list(METRICS).index(metric), :, group].astype(np.float64)
        return self.index[counts > 0], sums / counts[counts > 0, None] if METRICS[metric] == "tokens" else sums


def _differences(before: _Numbers, after: _Numbers, resampling: Resampling) -> pd.DataFrame:
    """A row for each kind of number and block; registers that are only in `after` have no difference."""
    in_both = set(before.kinds())
    tables = []
    for kind in after.kinds():
        index, a = after.by_image(kind)
        rows = pd.DataFrame({"layer": [pd.NA] if kind[0] == "accuracy" else range(a.shape[1])}, dtype="Int64")
        means = rows.assign(**dict(zip(_KINDS, kind, strict=True)), after=a.mean(axis=0), n_images=len(a))
        if kind in in_both:
            same, b = before.by_image(kind)
            assert np.array_equal(index, same)
            means = means.assign(before=b.mean(axis=0), value=a.mean(axis=0) - b.mean(axis=0))
            if len(b) > 1:
                tests = difference_rows(a, b, rows, resampling, paired=True)
                means = means.assign(**{name: tests[name] for name in _TESTS})
        tables.append(means)
    if before.class_pixels is not None and after.class_pixels is not None:
        means = _mean_iou_rows(before.class_pixels, after.class_pixels, resampling)
        tables.append(means.assign(n_images=len(after.shown)))
    return pd.concat(tables, ignore_index=True)


def _mean_iou_rows(
    before: Int[np.ndarray, "image_group count layer n_classes"],
    after: Int[np.ndarray, "image_group count layer n_classes"],
    resampling: Resampling,
) -> pd.DataFrame:
    """The mean IoU of each block, and the difference's interval over groups of images, the same ones in both runs."""
    runs = np.stack([before, after], axis=1)
    runs = runs[runs.any(axis=(1, 2, 3, 4))]
    rows = []
    for layer in range(runs.shape[3]):
        counts = runs[:, :, :, layer]
        found = resampling.of_sums(counts, lambda sums: np.subtract(*_mean_ious(sums)[::-1]))
        iou_before, iou_after = _mean_ious(counts.sum(axis=0)[None])[:, 0]
        row = {"layer": layer, "metric": "mean_iou", "token_type": "patch", "region": "object"}
        numbers = {"before": iou_before, "after": iou_after, "value": iou_after - iou_before}
        rows.append({**row, **numbers, "low": float(found.low), "high": float(found.high)})
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _mean_ious(sums: Num[np.ndarray, "resample run count n_classes"]) -> Float[np.ndarray, "run resample"]:
    """Mean IoUs in percent, before and after, of pixels of each class: hits, predicted, target."""
    hits, predicted, target = torch.from_numpy(sums).long().unbind(dim=2)
    return 100 * mean_iou(ClassPixels(hits, predicted, target)).T.double().numpy()

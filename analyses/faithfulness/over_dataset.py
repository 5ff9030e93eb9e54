"""Explanation methods over a dataset: faithfulness by removal of patches, and localisation of the object."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.data.patch_labels import token_labels
from analyses.faithfulness.areas import AucRule, auc_interval
from analyses.faithfulness.localisation import average_precision, mask_iou, pointing_game
from analyses.faithfulness.removal import TOKENS_DROPPED, RemovalOrder, most_removals, removal_curve, removal_order
from analyses.feature_importance.baseline import random_map
from analyses.feature_importance.methods import METHODS, Explainer, explainer, needs_pixels
from analyses.statistics.intervals import Resampling
from hooked_vit import HookedViTConfig

__all__ = ["SWEPT_METHODS", "Faithfulness", "Localisation"]

SWEPT_METHODS = tuple(name for name in METHODS if not needs_pixels(name))
"""The default methods: all that can start from the stream. Those that need pixels can be selected by name."""

Samples = Literal["all", "correct"]

_SAMPLES: dict[Samples, str] = {"all": "all images", "correct": "images classified correctly when whole"}
_LOCALISATION = {"pointing_game": pointing_game, "mask_iou": mask_iou, "average_precision": average_precision}


class _MethodMaps(Analysis):
    """Base of both analyses: maps of several methods for each image's label."""

    index: list[Tensor]  # [image]

    def __init__(self, methods: Sequence[str] | Mapping[str, Explainer], resampling: Resampling):
        super().__init__()
        if isinstance(methods, str) or not methods:
            raise ValueError(
                f"expected some of {', '.join(METHODS)}, or a mapping from names to explainers, got {methods!r}"
            )
        if not isinstance(methods, Mapping):
            methods = {name: explainer(name) for name in methods}
        self.explainers = dict(methods)
        self.methods = tuple(self.explainers)
        self.resampling = resampling
        self.add_state("index", [], dist_reduce_fx="cat")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The stream's start, from which methods run the model again."""
        return ["hook_tokens"]

    def _map(self, batch: AnalysisBatch, name: str) -> Float[Tensor, "batch patch"]:
        method = self.explainers[name]
        # in a sweep, the random map is seeded by an image's index in the dataset
        options: dict[str, Any] = {"index": batch.index} if method is random_map else {}
        if needs_pixels(method):
            if batch.images is None:
                raise ValueError(f"'{name}' needs pixels: give the batch its `images`, as a sweep does")
            start = batch.images
        else:
            start, options["start_at_layer"] = batch.cache["hook_tokens"], 0
        # keyed by the method itself, since another analysis may use the same name for another method
        return batch.once(("map", id(method)), lambda: method(batch.model, start, batch.labels, **options).float())


class Faithfulness(_MethodMaps):
    """Accuracy while patches are removed in the order of several methods' maps (paper, section 6), over a dataset.

    Maps are for each image's label. `compute` has rows for each `method`, `direction` (`negative`: least important
    first; `positive`: most important first), and `metric`:

    | metric | value, low, high |
    |---|---|
    | `accuracy` | at `n_removed` patches, 0 to 1 |
    | `auc_published`, `auc_trapezoid` | area under it by that rule of `removal_auc` |

    with bootstrap intervals over images, the `removal` rule and the sample filter (`samples`). The published numbers
    are for all images.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), Faithfulness(["importance", "random"], n_steps=4)
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> sorted(set(analysis.compute()["n_removed"].dropna().tolist()))
    [0, 16, 32, 48, 64]
    """

    correct: list[Tensor]  # [image method direction step]
    n_removed: Tensor  # [step]
    n_patches: Tensor

    def __init__(
        self,
        methods: Sequence[str] | Mapping[str, Explainer] = SWEPT_METHODS,
        samples: Samples = "all",
        n_steps: int = 50,
        resampling: Resampling = Resampling(),
    ):
        """Configure the analysis.

        Args:
            methods: Any of `METHODS` by name, or a mapping from names to your own explainers, such as `ProbeOrder`.
            samples: `"all"` images, or those classified `"correct"` when whole.
            n_steps: The most removals to evaluate, evenly spaced; each costs a pass on the remaining tokens.
            resampling: Bootstrap intervals.

        Raises:
            ValueError: If a method is unknown, or an option is invalid.
        """
        super().__init__(methods, resampling)
        if samples not in _SAMPLES or n_steps < 1:
            raise ValueError(f"expected samples 'all' or 'correct' and n_steps from 1, got {samples!r} and {n_steps}")
        self.samples: Samples = samples
        self.n_steps = n_steps
        self.add_state("correct", [], dist_reduce_fx="cat")
        self.add_state("n_removed", torch.tensor(0), dist_reduce_fx="max")
        self.add_state("n_patches", torch.tensor(0), dist_reduce_fx="max")

    def passes(self, cfg: HookedViTConfig) -> float:
        """Each removal is a pass on the tokens that remain, half of them on average."""
        return len(self.methods) * len(get_args(RemovalOrder)) * len(self._steps(cfg)) / 2

    def _steps(self, cfg: HookedViTConfig) -> list[int]:
        most = most_removals(cfg, cfg.token_layout.n_patches)
        return np.unique(np.linspace(0, most, min(self.n_steps, most) + 1).round().astype(int)).tolist()

    def update(self, batch: AnalysisBatch) -> None:
        """Remove patches of a batch, in each method's order and in the reverse order."""
        model, n_patches = batch.model, batch.model.token_layout.n_patches
        steps = self._steps(model.cfg)
        tokens, correct = batch.cache["hook_tokens"], []
        for name in self.methods:
            maps = self._map(batch, name)
            orders = [removal_order(maps, direction) for direction in get_args(RemovalOrder)]
            curves = [removal_curve(model, tokens, batch.labels, order, steps, start_at_layer=0) for order in orders]
            correct.append(torch.stack([curve.correct.T for curve in curves], dim=1))
            batch.passed(self.passes(model.cfg) / len(self.methods))
        counted = torch.ones_like(batch.labels, dtype=torch.bool)
        if self.samples == "correct":
            counted = batch.logits.argmax(dim=-1) == batch.labels
        self.index.append(batch.index[counted].to(self.device))
        self.correct.append(torch.stack(correct, dim=1)[counted].to(self.device, torch.uint8))
        self.n_removed = torch.tensor(steps, device=self.device)
        self.n_patches = torch.tensor(n_patches, device=self.device)

    def compute(self) -> pd.DataFrame:
        """One row per method, direction and metric; for accuracy, one per step.

        Raises:
            ValueError: If no image was seen.
        """
        (correct,) = self.by_image("correct")
        if not len(correct):
            raise ValueError(
                "no image is classified correctly, so samples='correct' leaves out all of them: use samples='all'"
            )
        steps, n_patches, at_steps = (
            self.n_removed.cpu().numpy(),
            int(self.n_patches),
            self.resampling.interval(correct),
        )
        rules: tuple[AucRule, ...] = get_args(AucRule)
        areas = {
            rule: auc_interval(correct.astype(bool), steps, n_patches, rule, **asdict(self.resampling))
            for rule in rules
        }
        rows = []
        for m, method in enumerate(self.methods):
            for d, direction in enumerate(get_args(RemovalOrder)):
                row = {"method": method, "direction": direction}
                for rule, area in areas.items():
                    numbers = {"value": area.estimate[m, d], "low": area.low[m, d], "high": area.high[m, d]}
                    rows.append({**row, "metric": f"auc_{rule}", "n_removed": None, **numbers})
                for s, n in enumerate(steps):
                    i = m, d, s
                    numbers = {"value": at_steps.estimate[i], "low": at_steps.low[i], "high": at_steps.high[i]}
                    rows.append({**row, "metric": "accuracy", "n_removed": int(n), **numbers})
        table = pd.DataFrame(rows).astype({"n_removed": "Int64"})
        named = {"removal": TOKENS_DROPPED, "samples": _SAMPLES[self.samples]}
        return table.assign(n_images=len(correct), n_patches=n_patches, **named)


class Localisation(_MethodMaps):
    """Whether several methods' maps lie on the object, over a dataset with masks.

    Maps are for each image's label; a patch is on the object if the mask covers its centre. Images whose object covers
    no patch, or all, are not counted. `compute` has one row per `method` and `metric` (`pointing_game`, `mask_iou`,
    `average_precision`, see `analyses.faithfulness.localisation`), with `chance`, the mean share of patches on the
    object, which is the expected value of the first and third for a random map. Without masks there are no rows.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), Localisation(["importance"])
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> mask = torch.arange(64).expand(2, 64, 64) < 20
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2), mask))
    >>> analysis.compute()["metric"].tolist()
    ['pointing_game', 'mask_iou', 'average_precision']
    """

    scores: list[Tensor]  # [image method metric]
    share: list[Tensor]  # [image]

    def __init__(
        self,
        methods: Sequence[str] | Mapping[str, Explainer] = SWEPT_METHODS,
        resampling: Resampling = Resampling(),
    ):
        """Configure the analysis, with the arguments of `Faithfulness`.

        Raises:
            ValueError: If a method is unknown.
        """
        super().__init__(methods, resampling)
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("share", [], dist_reduce_fx="cat")

    def update(self, batch: AnalysisBatch) -> None:
        """Compare a batch's maps with its masks."""
        if batch.object_mask is None:
            counted = torch.zeros_like(batch.labels, dtype=torch.bool)
            on_object = torch.zeros(len(batch.labels), batch.model.token_layout.n_patches, dtype=torch.bool)
        else:
            on_object = token_labels(batch.object_mask, batch.model.token_layout.grid, anchor="centre")
            counted = on_object.any(dim=1) & ~on_object.all(dim=1)
        on_object = on_object.to(batch.labels.device)[counted]
        scores = torch.zeros(len(on_object), len(self.methods), len(_LOCALISATION), device=batch.labels.device)
        if len(on_object):
            for m, name in enumerate(self.methods):
                maps = self._map(batch, name)[counted]
                scores[:, m] = torch.stack([score(maps, on_object) for score in _LOCALISATION.values()], dim=1)
        self.index.append(batch.index[counted].to(self.device))
        self.scores.append(scores.to(self.device))
        self.share.append(on_object.float().mean(dim=1).to(self.device))

    def compute(self) -> pd.DataFrame:
        """One row per method and metric.

        Raises:
            ValueError: If no image was seen.
        """
        scores, share = self.by_image("scores", "share")
        columns = ["method", "metric", "value", "low", "high", "chance", "n_images"]
        if not len(scores):
            return pd.DataFrame(columns=columns)
        interval = self.resampling.interval(scores)
        rows = []
        for m, method in enumerate(self.methods):
            for s, metric in enumerate(_LOCALISATION):
                numbers = {"value": interval.estimate[m, s], "low": interval.low[m, s], "high": interval.high[m, s]}
                rows.append({"method": method, "metric": metric, **numbers})
        table = pd.DataFrame(rows).assign(chance=float(share.mean()), n_images=len(scores))
        return table.reindex(columns=columns)

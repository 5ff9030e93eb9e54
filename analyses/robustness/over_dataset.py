"""Over a dataset: what each perturbation of the images does to the class representation, block by block."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.analysis.groups import sum_by_group, token_groups
from analyses.analysis.tables import GroupSums, before_after_rows, difference_rows
from analyses.attribution import attribution_names, logit_attribution
from analyses.projection import project, stream_names
from analyses.robustness.named import DEFAULT, InputPerturbation, perturbation
from analyses.statistics.intervals import Resampling
from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache

__all__ = ["Robustness", "checked_perturbations", "perturbed_images"]

_METRICS = ("identifiability", "identifiability_rate", "change_rate")
_COLUMNS = [
    "perturbation", "layer", "stream", "head", "token_type", "region", "metric", "before", "after", "value", "low",
    "high", "n_images", "n_tokens", "p_value", "p_adjusted", "effect_size",
]  # fmt: skip


def checked_perturbations(
    perturbations: Mapping[str, InputPerturbation] | None,
) -> dict[str, InputPerturbation]:
    """The perturbations by name; the default ones for `None`.

    Raises:
        ValueError: If there is none, or one is no function of a batch.
    """
    if perturbations is None:
        return {name: perturbation(name) for name in DEFAULT}
    if not perturbations:
        raise ValueError("expected at least one perturbation, as {name: perturbation}, got none")
    for name, found in perturbations.items():
        if not callable(found):
            raise ValueError(
                f"perturbation '{name}' must be a function from a batch to images, got {type(found).__name__}: "
                '`perturbation("fog:3")` makes one by name, `OnPictures(function)` one from pictures to pictures'
            )
    return dict(perturbations)


def perturbed_images(
    batch: AnalysisBatch, name: str, found: InputPerturbation
) -> Float[Tensor, "batch channel height width"]:
    """The perturbed images of a batch, computed once for all analyses that ask for them.

    Raises:
        ValueError: If the batch has no pixels, or the perturbation changes the shape.
    """
    if batch.images is None:
        raise ValueError("robustness needs pixels: give the batch its `images`, as a sweep does")
    images = batch.once(("perturbed", name, id(found)), lambda: found(batch))
    if images.shape != batch.images.shape:
        raise ValueError(
            f"perturbation '{name}' turned images of shape {tuple(batch.images.shape)} into {tuple(images.shape)}: it "
            "must keep their number and size"
        )
    return images


class Robustness(Analysis):
    """Class identifiability and the attribution to the class before and after perturbations of the images.

    `compute` returns a row for each perturbation, block, kind of token (as in `Identifiability`) and metric, with
    `before` (the clean images), `after`, and `value`, their difference:

    | stream | metric | before, after |
    |---|---|---|
    | `resid_post` | `identifiability` | mean over tokens, 0 to 1 |
    | | `identifiability_rate` | percent of tokens with rank 0 |
    | | `change_rate` | share of tokens whose correct-class logit rose since the previous block |
    | `head`, `mlp` | `attribution` | what the head (or MLP) contributes to the correct class's logit, in logits |
    | missing | `accuracy` | percent of images |

    `token_type` `cls_minus_patch` compares the two kinds of token: the change of an image's CLS minus the mean change
    of its patches; below zero where CLS loses more. `low` and `high` are bootstrap intervals of the paired difference
    over images, `p_value` that of a sign-flip permutation test, `p_adjusted` Holm's over blocks.
    Attribution needs a head that reads the stream linearly. Perturbations that move the object
    have no rows for regions. The control is the same for the model freshly initialised.

    >>> from analyses.robustness import Occlusion
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), Robustness({"hidden": Occlusion(0.5)})
    >>> images = torch.randn(2, 3, 64, 64)
    >>> logits, cache = model.run_with_cache(images, names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2), images=images))
    >>> sorted(set(analysis.compute()["metric"]))
    ['accuracy', 'attribution', 'change_rate', 'identifiability', 'identifiability_rate']
    """

    index: list[Tensor]  # [image]
    n_tokens: list[Tensor]  # [image group]
    correct: list[Tensor]  # [image condition]: clean, then each perturbation
    counts: list[Tensor]  # [image condition metric layer group]: sum of ranks, identifiable, rising
    parts: list[Tensor]  # [image condition layer component]: attribution to heads, then the MLP
    n_classes: Tensor

    def __init__(
        self,
        perturbations: Mapping[str, InputPerturbation] | None = None,
        resampling: Resampling = Resampling(),
    ):
        """Configure the analysis.

        Args:
            perturbations: Functions from a batch to perturbed images, by name; by default noise, blur, hidden patches
                and shuffled patches.
            resampling: Bootstrap intervals and permutation tests.

        Raises:
            ValueError: If there is no perturbation, or one is no function.
        """
        super().__init__()
        self.perturbations, self.resampling = checked_perturbations(perturbations), resampling
        for name in ("index", "n_tokens", "correct", "counts", "parts"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("n_classes", torch.tensor(0), dist_reduce_fx="max")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The stream that leaves every block, and what attribution reads."""
        return stream_names(cfg, "resid_post") + (attribution_names(cfg) if _has_attribution(cfg) else [])

    def passes(self, cfg: HookedViTConfig) -> float:
        """One for each perturbation, and what it takes itself."""
        return sum(1 + getattr(found, "passes", 0.0) for found in self.perturbations.values())

    def update(self, batch: AnalysisBatch) -> None:
        """Run the batch again with each perturbation."""
        model, groups = batch.model, token_groups(batch)
        found = [self._measured(model, batch.cache, batch.logits, batch.labels, groups)]
        for name, perturb in self.perturbations.items():
            images = perturbed_images(batch, name, perturb)
            logits, cache = model.run_with_cache(images, names_filter=self.names(model.cfg))
            found.append(self._measured(model, cache, logits, batch.labels, groups))
            batch.passed(1 + getattr(perturb, "passes", 0.0))
        self.n_classes = torch.tensor(model.cfg.n_classes, device=self.device)
        self.index.append(batch.index.to(self.device))
        self.n_tokens.append(groups.sum(-1, dtype=torch.int32).to(self.device))
        for state, values in zip((self.correct, self.counts, self.parts), zip(*found, strict=True), strict=True):
            state.append(torch.stack(values, dim=1).to(self.device))

    @staticmethod
    def _measured(
        model: HookedViT, cache: ViTActivationCache, logits: Tensor, labels: Tensor, groups: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Correctness [image], counts [image metric layer group] and attribution [image layer component]."""
        projection = project(model, cache, "resid_post", labels, k=0)
        rank, logit = projection.rank, projection.label_logit
        assert rank is not None
        assert logit is not None
        rising = torch.zeros_like(rank, dtype=torch.bool)
        rising[1:] = logit[1:] > logit[:-1]
        counts = torch.stack([sum_by_group(values, groups) for values in (rank, rank == 0, rising)], dim=1)
        parts = torch.zeros(len(labels), 0, 0)
        if _has_attribution(model.cfg):
            found = logit_attribution(model, cache, labels)
            parts = torch.cat([found.head.transpose(0, 1), found.mlp.T[..., None]], dim=-1).float()
        return logits.argmax(dim=-1) == labels, counts.to(torch.int32), parts

    def compute(self) -> pd.DataFrame:
        """One row for each perturbation, block, kind of token, head and metric.

        Raises:
            ValueError: If no image was seen.
        """
        n_tokens, correct, counts, parts = self.by_image("n_tokens", "correct", "counts", "parts")
        n_tokens = n_tokens.astype(np.int64)
        sums = [self._sums(counts[:, at].astype(np.int64), n_tokens) for at in range(counts.shape[1])]
        tables = []
        for at, (name, perturb) in enumerate(self.perturbations.items(), start=1):
            rows = before_after_rows(sums[0], sums[at], self.resampling).assign(stream="resid_post")
            if getattr(perturb, "moves_pixels", False):
                rows = rows[rows["region"] == "all"]
            found = [rows, self._cls_minus_patch(sums[0], sums[at])]
            found += [self._attribution(parts[:, 0], parts[:, at]), self._accuracy(correct[:, 0], correct[:, at])]
            tables += [table.assign(perturbation=name) for table in found if len(table)]
        table = pd.concat(tables, ignore_index=True).reindex(columns=_COLUMNS)
        return table.astype({"layer": "Int64", "head": "Int64"})

    def _sums(self, counts: np.ndarray, n_tokens: np.ndarray) -> GroupSums:
        rank_sum, n_identifiable, n_rising = counts[:, 0], counts[:, 1], counts[:, 2]
        score = n_tokens[:, None] - rank_sum / int(self.n_classes)
        return GroupSums.stack(
            [
                GroupSums.of_layers(score, n_tokens, metric=_METRICS[0]),
                GroupSums.of_layers(100 * n_identifiable, n_tokens, metric=_METRICS[1]),
                GroupSums.of_layers(n_rising[:, 1:], n_tokens, first_layer=1, metric=_METRICS[2]),
            ]
        )

    def _cls_minus_patch(self, before: GroupSums, after: GroupSums) -> pd.DataFrame:
        """The change of CLS minus that of the patches, within each image."""
        if not before.has("cls").all():
            return pd.DataFrame()
        chosen = (before.rows["metric"] == _METRICS[0]).to_numpy()
        cls, patch = (after.means(group)[:, chosen] - before.means(group)[:, chosen] for group in ("cls", "patch"))
        rows = pd.DataFrame(before.rows[chosen]).reset_index(drop=True)
        table = difference_rows(cls, patch, rows, self.resampling, paired=True)
        means = {"before": patch.mean(axis=0), "after": cls.mean(axis=0)} if len(table) else {}
        return table.assign(token_type="cls_minus_patch", region="all", stream="resid_post", **means)

    def _attribution(self, before: np.ndarray, after: np.ndarray) -> pd.DataFrame:
        if not before.size:
            return pd.DataFrame()
        n_layers, n_parts = before.shape[1:]
        a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (after, before))
        layer, part = np.divmod(np.arange(n_layers * n_parts), n_parts)
        is_head = part < n_parts - 1
        head = pd.array(part, dtype="Int64")
        head[~is_head] = pd.NA
        rows = pd.DataFrame({"layer": layer, "stream": np.where(is_head, "head", "mlp"), "head": head})
        means = {"before": b.mean(axis=0), "after": a.mean(axis=0)}
        table = difference_rows(a, b, rows, self.resampling, paired=True)
        if not len(table):
            table = rows.assign(value=(a - b).mean(axis=0), n_images=len(a))
        return table.assign(metric="attribution", region="all", **means)

    def _accuracy(self, before: np.ndarray, after: np.ndarray) -> pd.DataFrame:
        b, a = (100.0 * values[:, None] for values in (before, after))
        row = pd.DataFrame([{"metric": "accuracy", "before": b.mean(), "after": a.mean(), "region": "all"}])
        if len(a) < 2:
            return row.assign(value=a.mean() - b.mean(), n_images=len(a))
        return difference_rows(a, b, row, self.resampling, paired=True)


def _has_attribution(cfg: HookedViTConfig) -> bool:
    """Whether heads and MLPs have contributions that sum to the logit."""
    return cfg.pool not in ("max", "avgmax", "attention") and cfg.n_parallel == 1

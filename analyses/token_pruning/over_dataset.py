"""Token pruning over a dataset: accuracy with fewer and fewer patches, chosen by several scores at one block."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.data.patch_labels import token_labels
from analyses.feature_importance.baseline import random_map
from analyses.feature_importance.importance import importance_map
from analyses.projection import Lens, stream_names
from analyses.statistics.intervals import Resampling
from analyses.token_pruning.pruning import kept_mask, largest, take_patches
from analyses.token_pruning.scores import PATCH_SCORES, PatchScore, check_score, patch_scores
from hooked_vit import HookedViTConfig

__all__ = ["TokenPruning"]

_COLUMNS = ["block", "score", "share", "n_kept", "metric", "value", "low", "high", "n_images"]
_NEVER = -1  # where an image has no mask


class TokenPruning(Analysis):
    """Accuracy with fewer patches from one block on, kept by class space and by rival scores.

    At the entrance of `block`, each image keeps its prefix tokens and the share of its patches with the largest scores
    (`patch_scores`); the rest of the model runs on those. `compute` has one row per `score`, `share` (with `n_kept`
    patches) and `metric`, in percent:

    - `accuracy`; `accuracy_change`, minus that with all patches; `accuracy_minus_random`, minus that with random ones.
    - `overlap`: patches that `class_space` keeps, too, of those that the score keeps.
    - `on_object`: kept patches that are on the object, over images that have a mask with a patch on it.

    All are means over images with bootstrap intervals, and differences are paired by image. The score `all` with share
    1 is the whole model. The control is `random`, and the same for the model freshly initialised.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), TokenPruning(["norm"], shares=[0.5])
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> images = torch.zeros(2, 3, 64, 64)
    >>> batch = AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2), images=images)
    >>> analysis.update(batch)
    >>> analysis.compute()[["score", "n_kept", "metric"]].values.tolist()[:2]
    [['all', 64, 'accuracy'], ['norm', 32, 'accuracy']]
    """

    index: list[Tensor]
    whole: list[Tensor]  # [image]
    correct: list[Tensor]  # [image score share]
    n_common: list[Tensor]  # [image score share], patches that class_space keeps, too
    n_on_object: list[Tensor]  # [image score share]
    n_patches: Tensor
    at_block: Tensor
    has_cls: Tensor

    def __init__(
        self,
        scores: Sequence[PatchScore] | None = None,
        block: int | None = None,
        shares: Sequence[float] = (0.75, 0.5, 0.25, 0.1),
        lens: Lens | None = None,
        seed: int = 0,
        resampling: Resampling = Resampling(),
    ):
        """Configure the analysis.

        Args:
            scores: Any of `PATCH_SCORES`; by default all that the model can compute (`cls_attention` needs CLS).
            block: From which block on there are fewer patches; by default the one in the middle.
            shares: Shares of the patches to keep, between 0 and 1; at least one patch stays.
            lens: As for `project`, for the scores in class space.
            seed: For `random`.
            resampling: The bootstrap intervals.

        Raises:
            ValueError: If a score is unknown, or a share is not above 0 and at most 1.
        """
        super().__init__()
        unknown = [] if scores is None else [score for score in scores if score not in PATCH_SCORES]
        if unknown or isinstance(scores, str) or (scores is not None and not len(scores)):
            raise ValueError(f"expected a list of scores out of {', '.join(PATCH_SCORES)}, got {scores!r}")
        if not len(shares) or not all(0 < share <= 1 for share in shares):
            raise ValueError(f"expected shares of the patches to keep, above 0 and at most 1, got {list(shares)}")
        self.scores = None if scores is None else tuple(dict.fromkeys(scores))
        self.block, self.shares, self.lens, self.seed = block, tuple(shares), lens, seed
        self.resampling = resampling
        for name in ("index", "whole", "correct", "n_common", "n_on_object"):
            self.add_state(name, [], dist_reduce_fx="cat")
        for name in ("n_patches", "at_block", "has_cls"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="max")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The stream that enters the block and, for `cls_attention`, the pattern of the block before."""
        block = self._block(cfg)
        names = stream_names(cfg, "resid_pre", [block])
        return [*names, f"blocks.{block - 1}.attn.hook_pattern"] if "cls_attention" in self._chosen(cfg) else names

    def passes(self, cfg: HookedViTConfig) -> float:
        """The blocks after the pruned one, for each score and share, and a run for `importance`."""
        chosen = self._chosen(cfg)
        after = 1 - self._block(cfg) / cfg.n_layers
        return len(chosen) * sum(self.shares) * after + ("importance" in chosen)

    def _block(self, cfg: HookedViTConfig) -> int:
        block = cfg.n_layers // 2 if self.block is None else self.block
        if not 0 <= block < cfg.n_layers:
            raise ValueError(f"expected a block from 0 to {cfg.n_layers - 1} to prune at, got {block}")
        return block

    def _chosen(self, cfg: HookedViTConfig) -> tuple[PatchScore, ...]:
        if self.scores is not None:
            return self.scores
        can_attend = cfg.token_layout.cls is not None and self._block(cfg) > 0 and cfg.n_parallel == 1
        return tuple(score for score in PATCH_SCORES if score != "cls_attention" or can_attend)

    def update(self, batch: AnalysisBatch) -> None:
        """Run the rest of the model with fewer patches, for each score and share."""
        model, labels = batch.model, batch.labels
        block, layout = self._block(model.cfg), model.token_layout
        chosen = self._chosen(model.cfg)
        residual = batch.cache["resid_pre", block]
        on_object = torch.full((len(labels), layout.n_patches), _NEVER, device=residual.device)
        if batch.object_mask is not None:
            on_object = token_labels(batch.object_mask.to(residual.device), layout.grid).long()
        class_space = patch_scores(model, residual, block, lens=self.lens)
        correct, common, inside = [], [], []
        for score in chosen:
            check_score(model, score, block, has_labels=True)
            given = self._given(batch, score, block)
            target = labels if score == "label" else None
            values = class_space
            if score != "class_space":
                values = patch_scores(model, residual, block, score, labels=target, given=given, lens=self.lens)
            for share in self.shares:
                n_kept = max(1, round(share * layout.n_patches))
                kept, reference = largest(values, n_kept), largest(class_space, n_kept)
                mask = kept_mask(kept, layout)
                taken = take_patches(residual, kept, layout.n_prefix)
                logits = model(taken, start_at_layer=block, token_mask=mask)
                correct.append(logits.argmax(dim=-1) == labels)
                common.append((mask & kept_mask(reference, layout))[:, layout.patches].sum(dim=1))
                inside.append(on_object.gather(1, kept).sum(dim=1))
        shape = (len(chosen), len(self.shares))
        self.index.append(batch.index.to(self.device))
        self.whole.append((batch.logits.argmax(dim=-1) == labels).to(self.device))
        for state, values in ((self.correct, correct), (self.n_common, common)):
            state.append(torch.stack(values, dim=1).unflatten(1, shape).to(self.device))
        has_object = (on_object.sum(dim=1) > 0)[:, None]
        on_objects = torch.where(has_object, torch.stack(inside, dim=1), _NEVER)
        self.n_on_object.append(on_objects.unflatten(1, shape).to(self.device))
        numbers = (("n_patches", layout.n_patches), ("at_block", block), ("has_cls", int("cls_attention" in chosen)))
        for name, number in numbers:
            setattr(self, name, torch.tensor(number, device=self.device))

    def _given(self, batch: AnalysisBatch, score: PatchScore, block: int) -> Tensor | None:
        """The scores that are not read from the stream."""
        model, layout = batch.model, batch.model.token_layout
        if score == "cls_attention":
            return batch.cache["pattern", block - 1][:, :, layout.cls, layout.patches].mean(dim=1)
        if score in ("importance", "random") and batch.images is None:
            raise ValueError(f"the score '{score}' needs pixels: give the batch its `images`, as a sweep does")
        if score == "importance":
            assert batch.images is not None
            return importance_map(model, batch.images, batch.logits.argmax(dim=-1))
        if score == "random":
            assert batch.images is not None
            return random_map(model, batch.images, batch.labels, seed=self.seed, index=batch.index)
        return None

    def compute(self) -> pd.DataFrame:
        """One row per score, share and metric.

        Raises:
            ValueError: If no image was seen.
        """
        whole, correct, common, inside = self.by_image("whole", "correct", "n_common", "n_on_object")
        n_patches = int(self.n_patches)
        chosen = self.scores
        if chosen is None:
            chosen = tuple(s for s in PATCH_SCORES if s != "cls_attention" or int(self.has_cls))
        rows = self._rows({"score": "all", "share": 1.0, "n_kept": n_patches}, {"accuracy": 100.0 * whole})
        random = list(chosen).index("random") if "random" in chosen else None
        for s, score in enumerate(chosen):
            for k, share in enumerate(self.shares):
                n_kept = max(1, round(share * n_patches))
                right = correct[:, s, k].astype(np.float64)
                counted = inside[:, s, k] != _NEVER
                numbers = {"accuracy": 100 * right, "accuracy_change": 100 * (right - whole)}
                if random is not None and s != random:
                    numbers["accuracy_minus_random"] = 100 * (right - correct[:, random, k])
                numbers["overlap"] = 100 * common[:, s, k] / n_kept
                if counted.any():
                    numbers["on_object"] = 100 * inside[counted, s, k] / n_kept
                rows += self._rows({"score": score, "share": share, "n_kept": n_kept}, numbers)
        return pd.DataFrame(rows).assign(block=int(self.at_block)).reindex(columns=_COLUMNS)

    def _rows(self, key: dict[str, Any], numbers: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        rows = []
        for metric, values in numbers.items():
            interval = self.resampling.interval(values)
            ends = {"value": interval.estimate, "low": interval.low, "high": interval.high}
            shown = {name: float(number) for name, number in ends.items()}
            rows.append({**key, "metric": metric, **shown, "n_images": len(values)})
        return rows

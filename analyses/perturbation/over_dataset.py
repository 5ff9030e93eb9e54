"""Identifiability and accuracy over a dataset, before and after attention or tokens are removed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.analysis.groups import TOKEN_GROUPS, sum_by_group, token_groups
from analyses.analysis.tables import GroupSums, before_after_rows, difference_rows
from analyses.perturbation.attention import no_cls, self_only
from analyses.perturbation.runs import PerturbedRun, Region, perturb_stream, region_mask
from analyses.projection import Lens, stream_names
from analyses.statistics.intervals import Resampling
from hooked_vit import HookedViT, HookedViTConfig
from hooked_vit.running import Hooks

__all__ = ["Perturbation"]

_COLUMNS = [
    "perturbation", "layer", "stream", "token_type", "region", "metric", "before", "after", "value", "low", "high",
    "n_images", "n_tokens", "p_value", "p_adjusted", "effect_size",
]  # fmt: skip

Removed = Literal["context", "object", "touched"]

_KEPT: dict[Removed, Region] = {"context": "object", "object": "context", "touched": "untouched"}


class Perturbation(Analysis):
    """Identifiability and accuracy before and after each of several perturbations, over a dataset.

    The default perturbations are the paper's (section 4): `self_only` and, with a CLS token, `no_cls`; and where the
    dataset has masks `no_context` and `no_object`, which drop those patches after the position embedding. One pixel of
    a patch decides between object and context, so context patches may still show some of the object; `no_touched`, on
    request, drops every patch with any pixel of the object. An image is not counted for a removal that would leave
    all of its patches or none.

    `compute` returns a row for each perturbation, block, kind of token and metric, with `before`, `after`, and `value`,
    their difference, on the same tokens:

    | metric | before, after |
    |---|---|
    | `identifiability` | mean over tokens, 0 to 1 |
    | `identifiability_rate` | percent of tokens with rank 0 |
    | `identifiability_rate_of_images` | percent of an image's tokens, mean over images |
    | `accuracy` | percent of images; its `layer` and `token_type` are missing |

    (The published numbers of context perturbation compare the third metric after with the second before.) `low` and
    `high` are the bootstrap interval of the difference over images; `p_value` is that of a sign-flip permutation test
    on per-image differences, `p_adjusted` Holm's over blocks.

    Each perturbation costs a forward pass, from the stream's start.

    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), Perturbation({"late": lambda m: self_only(m, [7])})
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> table = analysis.compute().query("metric == 'identifiability' and token_type == 'patch'")
    >>> table["value"].ne(0).tolist()
    [False, False, False, False, False, False, False, True]
    """

    index: list[Tensor]  # [image]
    correct: list[Tensor]  # [image perturbation time]: before, after
    n_tokens: list[Tensor]  # [image perturbation group]; 0 where the image is not counted
    rank_sum: list[Tensor]  # [image perturbation time layer group]
    n_identifiable: list[Tensor]  # [image perturbation time layer group]
    n_classes: Tensor

    def __init__(
        self,
        interventions: Mapping[str, Callable[[HookedViT], Hooks]] | None = None,
        removals: Sequence[Removed] = ("context", "object"),
        resampling: Resampling = Resampling(),
        lens: Lens | None = None,
    ):
        """Configure the analysis.

        Args:
            interventions: Functions from a model to hooks by name, such as `no_cls` or
                `lambda model: block_attention(model, [("patch", "register")], blocks=[0, 1])`.
            removals: Which patches to drop where the dataset has masks: `context`, `object`, `touched`.
            resampling: Bootstrap intervals and permutation tests.
            lens: As for `project`.

        Raises:
            ValueError: If a removal is unknown, or two perturbations have the same name.
        """
        super().__init__()
        if isinstance(removals, str) or not set(removals) <= set(get_args(Removed)):
            known = ", ".join(map(repr, get_args(Removed)))
            raise ValueError(f"expected a list of removals out of {known}, got {removals!r}")
        self.by_default = interventions is None
        self.interventions = (
            {"self_only": self_only, "no_cls": no_cls} if interventions is None else dict(interventions)
        )
        self.removals = tuple(removals)
        self.perturbations = (*self.interventions, *(f"no_{region}" for region in self.removals))
        repeated = sorted({name for name in self.perturbations if self.perturbations.count(name) > 1})
        if repeated:
            raise ValueError(f"several perturbations are called {', '.join(repeated)}: give each its own name")
        self.resampling, self.lens = resampling, lens
        for name in ("index", "correct", "n_tokens", "rank_sum", "n_identifiable"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("n_classes", torch.tensor(0), dist_reduce_fx="max")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The start of the residual stream, and the stream after every block."""
        return ["hook_tokens", *stream_names(cfg, "resid_post")]

    def update(self, batch: AnalysisBatch) -> None:
        """Run the batch again with each perturbation."""
        before, groups = batch.projection("resid_post", lens=self.lens).rank, token_groups(batch)
        assert before is not None
        correct = batch.logits.argmax(dim=-1) == batch.labels
        tokens = batch.cache["hook_tokens"]
        cases = [self._intervention(batch, name) for name in self.interventions]
        cases += [self._removal(batch, region) for region in self.removals]
        counts = []
        for counted, hooks, mask in cases:
            if not counted.any():
                run = PerturbedRun(batch.model.cfg.n_classes, groups.any(dim=1), before, before, correct, correct)
            else:
                run = perturb_stream(batch.model, tokens, batch.labels, before, correct, hooks, mask, self.lens)
            counts.append(self._counts(run, groups & (run.kept & counted[:, None])[:, None]))
        self.n_classes = torch.tensor(batch.model.cfg.n_classes, device=self.device)
        self.index.append(batch.index.to(self.device))
        states = (self.correct, self.n_tokens, self.rank_sum, self.n_identifiable)
        for state, values in zip(states, zip(*counts, strict=True), strict=True):
            state.append(torch.stack(values, dim=1).to(self.device, torch.int32))

    def _intervention(self, batch: AnalysisBatch, name: str) -> tuple[Tensor, Hooks, Tensor | None]:
        if self.by_default and name == "no_cls" and batch.model.token_layout.cls is None:
            return torch.zeros_like(batch.labels, dtype=torch.bool), (), None
        return torch.ones_like(batch.labels, dtype=torch.bool), self.interventions[name](batch.model), None

    def _removal(self, batch: AnalysisBatch, removed: Removed) -> tuple[Tensor, Hooks, Tensor | None]:
        if batch.object_mask is None:
            return torch.zeros_like(batch.labels, dtype=torch.bool), (), None
        layout, mask = batch.model.token_layout, batch.object_mask.to(batch.labels.device)
        kept = region_mask(mask, layout, _KEPT[removed])
        on_patches = kept[:, layout.patches]
        counted = on_patches.any(dim=1) & ~on_patches.all(dim=1)
        return counted, (), kept | ~counted[:, None]

    @staticmethod
    def _counts(run: PerturbedRun, groups: Tensor) -> tuple[Tensor, ...]:
        """Correctness, number of tokens, sum of ranks and identifiable tokens; all but the second [time]."""
        ranks = torch.stack([run.rank_before, run.rank_after])
        correct = torch.stack([run.correct_before, run.correct_after], dim=1)
        return correct, groups.sum(dim=-1), sum_by_group(ranks, groups), sum_by_group(ranks == 0, groups)

    def compute(self) -> pd.DataFrame:
        """One row for each perturbation, block, kind of token and metric.

        Raises:
            ValueError: If no image was seen.
        """
        states = self.by_image("correct", "n_tokens", "rank_sum", "n_identifiable")
        correct, n_tokens, rank_sum, n_identifiable = (state.astype(np.int64) for state in states)
        tables, patches = [], list(TOKEN_GROUPS).index("patch")
        for p, name in enumerate(self.perturbations):
            counted = n_tokens[:, p, patches] > 0
            if counted.any():
                images = (state[counted, p] for state in (correct, n_tokens, rank_sum, n_identifiable))
                tables.append(self._table(*images).assign(perturbation=name))
        table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        return table.reindex(columns=_COLUMNS).astype({"layer": "Int64"})

    def _table(
        self, correct: np.ndarray, n_tokens: np.ndarray, rank_sum: np.ndarray, n_identifiable: np.ndarray
    ) -> pd.DataFrame:
        """The rows of one perturbation, from [image time], [image group], and twice [image time layer group]."""
        score, rate = n_tokens[:, None, None] - rank_sum / int(self.n_classes), 100 * n_identifiable
        rate_of_images = rate / np.maximum(n_tokens, 1)[:, None, None]
        has_tokens = np.broadcast_to(n_tokens[:, None] > 0, rate[:, 0].shape).astype(np.int64)
        before, after = (
            GroupSums.stack(
                [
                    GroupSums.of_layers(score[:, time], n_tokens, metric="identifiability"),
                    GroupSums.of_layers(rate[:, time], n_tokens, metric="identifiability_rate"),
                    GroupSums.of_layers(
                        rate_of_images[:, time], n_tokens, counts=has_tokens, metric="identifiability_rate_of_images"
                    ),
                ]
            )
            for time in (0, 1)
        )
        table = before_after_rows(before, after, self.resampling)
        return pd.concat([table.assign(stream="resid_post"), self._accuracy(correct)], ignore_index=True)

    def _accuracy(self, correct: np.ndarray) -> pd.DataFrame:
        before, after = (100.0 * correct[:, [time]] for time in (0, 1))
        row = pd.DataFrame([{"metric": "accuracy", "before": before.mean(), "after": after.mean(), "region": "all"}])
        if len(correct) < 2:
            return row.assign(value=after.mean() - before.mean(), n_images=len(correct))
        return difference_rows(after, before, row, self.resampling, paired=True)

"""What becomes of identifiability and accuracy over a dataset when attention or tokens are taken away."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.analysis.groups import TOKEN_GROUPS, sum_by_group, token_groups
from analyses.analysis.tables import GroupSums, difference_rows, ratio_rows
from analyses.perturbation.attention import attention_mask, block_attention, no_cls, restrict_attention, self_only
from analyses.perturbation.runs import PerturbedRun, Region, perturb, perturb_stream, region_mask
from analyses.projection import stream_names
from analyses.statistics.intervals import Resampling
from hooked_vit import HookedViT, HookedViTConfig
from hooked_vit.running import Hooks

__all__ = [
    "Perturbation",
    "PerturbedRun",
    "attention_mask",
    "block_attention",
    "no_cls",
    "perturb",
    "region_mask",
    "restrict_attention",
    "self_only",
]

_COLUMNS = [
    "perturbation", "layer", "stream", "token_type", "region", "metric", "before", "after", "value", "low", "high",
    "n_images", "n_tokens", "p_value", "p_adjusted", "effect_size",
]  # fmt: skip
_TESTS = ("p_value", "p_adjusted", "effect_size")

Removed = Literal["context", "object", "touched"]

_KEPT: dict[Removed, Region] = {"context": "object", "object": "context", "touched": "untouched"}


class Perturbation(Analysis):
    """Identifiability and accuracy before and after each of several perturbations, over a dataset.

    By default the paper's (section 4): `self_only` and, with a CLS token, `no_cls`; and where the dataset has masks
    `no_context` and `no_object`, which drop those patches after the position embedding. One pixel of a patch decides
    which of the two it is, so some of the object stays in the context; `no_touched`, on demand, drops every patch
    with any pixel of the object. An image of which a removal would leave nothing, or all, is not counted for it.

    `compute` has a row for each perturbation, block, kind of token and metric, with `before`, `after`, and `value`,
    their difference, on the same tokens:

    | metric | before, after |
    |---|---|
    | `identifiability` | mean over tokens, 0 to 1 |
    | `identifiability_rate` | percent of tokens with rank 0 |
    | `identifiability_rate_of_images` | percent of an image's tokens, mean over images |
    | `accuracy` | percent of images; its `layer` and `token_type` are missing |

    (The published numbers of context perturbation hold the third, after, against the second, before.) `low` and
    `high` are the bootstrap interval of the difference over images; `p_value` is of a sign-flip permutation test on
    images' own differences, `p_adjusted` Holm's over blocks.

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
    ):
        """Say which.

        Args:
            interventions: From a model to hooks, such as `no_cls` or
                `lambda model: block_attention(model, [("patch", "register")], blocks=[0, 1])`, by name.
            removals: Which patches to drop, where the dataset has masks: `context`, `object`, `touched`.
            resampling: Bootstrap intervals and permutation tests.

        Raises:
            ValueError: If patches of no such kind are to be dropped, or two perturbations have one name.
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
        names = [*self.interventions, *(f"no_{region}" for region in self.removals)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"several perturbations are called {', '.join(twice)}: name each its own way")
        self.resampling = resampling
        for name in ("index", "correct", "n_tokens", "rank_sum", "n_identifiable"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("n_classes", torch.tensor(0), dist_reduce_fx="max")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The stream's start, and after every block."""
        return ["hook_tokens", *stream_names(cfg, "resid_post")]

    def update(self, batch: AnalysisBatch) -> None:
        """Run a batch once more for each perturbation."""
        before, groups = batch.projection("resid_post").rank, token_groups(batch)
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
                run = perturb_stream(batch.model, tokens, batch.labels, before, correct, hooks, mask)
            counts.append(self._counts(run, groups & (run.kept & counted[:, None])[:, None]))
        self.n_classes = torch.tensor(batch.model.cfg.n_classes, device=self.device)
        self.index.append(batch.index.to(self.device))
        states = (self.correct, self.n_tokens, self.rank_sum, self.n_identifiable)
        for state, of_cases in zip(states, zip(*counts, strict=True), strict=True):
            state.append(torch.stack(of_cases, dim=1).to(self.device, torch.int32))

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
        """Correct, tokens, sums of ranks and identifiable tokens of each image; of all but tokens, before and after."""
        ranks = torch.stack([run.rank_before, run.rank_after])
        correct = torch.stack([run.correct_before, run.correct_after], dim=1)
        return correct, groups.sum(dim=-1), sum_by_group(ranks, groups), sum_by_group(ranks == 0, groups)

    def compute(self) -> pd.DataFrame:
        """One row for each perturbation, block, kind of token and metric.

        Raises:
            ValueError: If no image was seen.
        """
        correct, n_tokens, rank_sum, n_identifiable = (
            one.astype(np.int64) for one in self.by_image("correct", "n_tokens", "rank_sum", "n_identifiable")
        )
        tables, of_patches = [], list(TOKEN_GROUPS).index("patch")
        for place, name in enumerate([*self.interventions, *(f"no_{region}" for region in self.removals)]):
            counted = n_tokens[:, place, of_patches] > 0
            if counted.any():
                of = correct[counted, place], n_tokens[counted, place], rank_sum[counted, place]
                tables.append(self._table(*of, n_identifiable[counted, place]).assign(perturbation=name))
        table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        return table.reindex(columns=_COLUMNS).astype({"layer": "Int64"})

    def _table(
        self, correct: np.ndarray, n_tokens: np.ndarray, rank_sum: np.ndarray, n_identifiable: np.ndarray
    ) -> pd.DataFrame:
        """Of one perturbation: [image time], [image group], and two of [image time layer group]."""
        score, rate = n_tokens[:, None, None] - rank_sum / int(self.n_classes), 100 * n_identifiable
        rate_of_images = rate / np.maximum(n_tokens, 1)[:, None, None]
        of_images = np.broadcast_to(n_tokens[:, None] > 0, rate[:, 0].shape).astype(np.int64)
        before, after = (
            GroupSums.stack(
                [
                    GroupSums.of_layers(score[:, time], n_tokens, metric="identifiability"),
                    GroupSums.of_layers(rate[:, time], n_tokens, metric="identifiability_rate"),
                    GroupSums.of_layers(
                        rate_of_images[:, time], n_tokens, counts=of_images, metric="identifiability_rate_of_images"
                    ),
                ]
            )
            for time in (0, 1)
        )
        change = dataclasses.replace(before, sums=after.sums - before.sums)
        tables = []
        for group, (token_type, region) in TOKEN_GROUPS.items():
            seen, place = change.has(group), list(TOKEN_GROUPS).index(group)
            if not seen.any():
                continue
            of_group = change.rows.assign(token_type=token_type, region=region)
            for time, of in (("before", before), ("after", after)):
                of_group[time] = of.sums[:, :, place].sum(axis=0) / of.counts[:, :, place].sum(axis=0)
            means_after, means_before = (one.of_images(seen).means(group) for one in (after, before))
            tests = difference_rows(means_after, means_before, change.rows, self.resampling, paired=True)
            tables.append(of_group.assign(**{name: tests[name] for name in _TESTS if len(tests)}))
        table = ratio_rows(change, self.resampling).merge(pd.concat(tables), how="left", validate="one_to_one")
        return pd.concat([table.assign(stream="resid_post"), self._accuracy(correct)], ignore_index=True)

    def _accuracy(self, correct: np.ndarray) -> pd.DataFrame:
        before, after = (100.0 * correct[:, [time]] for time in (0, 1))
        row = pd.DataFrame([{"metric": "accuracy", "before": before.mean(), "after": after.mean(), "region": "all"}])
        if len(correct) < 2:
            return row.assign(value=after.mean() - before.mean(), n_images=len(correct))
        return difference_rows(after, before, row, self.resampling, paired=True)

"""Key-value agreement over a dataset, compared with its expected value for a random class."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.analysis.correctness import correctness_tables
from analyses.analysis.groups import sum_by_group, token_groups
from analyses.analysis.tables import GroupSums
from analyses.memory_pairs.calls import called_in_batch, memory_sources, source_columns, source_names, tables_of_batch
from analyses.memory_pairs.coefficients import Coefficients
from analyses.memory_pairs.lookup import TableStore
from analyses.statistics.intervals import Resampling
from analyses.value_vectors.vectors import MemorySublayer
from hooked_vit import HookedViTConfig

__all__ = ["KeyValueAgreement"]

_COLUMNS = [
    "layer", "stream", "coefficients", "token_type", "region", "images", "metric", "value", "low", "high", "n_images",
    "n_tokens", "p_value", "p_adjusted", "effect_size",
]  # fmt: skip


class KeyValueAgreement(Analysis):
    """Key-value agreement over a dataset (paper, section 5.2), for each block, sub-layer and kind of token.

    | metric | value |
    |---|---|
    | `agreement_rate` | percent of tokens for which `key_value_agreement` is true |
    | `agreement_rate_random` | expected percent for a random class instead of the correct class |
    | `agreement_rate_above_random` | the first minus the second |
    | `class_logit` | mean logit of the correct class in the value vectors of a token's k largest coefficients |
    | `class_logit_random` | the same for a random class |

    Values for a random class are exact expectations over all classes (the published code draws one class, without a
    seed). `stream` is `mlp_out` or `attn_out`; `coefficients` is `pre`, `post` or, for attention, `z`. `images` is
    `all`, `correct` or `wrong` (as classified by the model), or `correct_minus_wrong`, with a permutation test on
    per-image means. `token_type` is `all` or as in `Identifiability`. Intervals are bootstrapped over images,
    `p_adjusted` is Holm's over blocks.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), KeyValueAgreement()
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> sorted(analysis.compute()["coefficients"].unique())
    ['post', 'pre', 'z']
    """

    index: list[Tensor]  # [image]
    correct: list[Tensor]  # [image]
    n_tokens: list[Tensor]  # [image group]
    n_agreeing: list[Tensor]  # [image source layer group]
    random_agreeing: list[Tensor]  # [image source layer group]: expected number
    class_logit: list[Tensor]  # [image source layer group], summed over tokens
    random_logit: list[Tensor]  # [image source layer group], summed over tokens

    def __init__(
        self,
        sublayers: Sequence[MemorySublayer] = ("mlp", "attn"),
        coefficients: Sequence[Coefficients] = ("pre", "post"),
        k: int = 5,
        layer_scale: bool = False,
        resampling: Resampling = Resampling(),
    ):
        """Configure the analysis.

        Args:
            sublayers: Any of `mlp`, `attn`.
            coefficients: For MLPs, any of `pre`, `post` (see `memory_coefficients`).
            k: Number of memories per token, and of value vectors per class.
            layer_scale: As for `value_vectors`.
            resampling: Bootstrap intervals and permutation tests.

        Raises:
            ValueError: If there is no such sub-layer, or none is given.
        """
        super().__init__()
        self.sublayers, self.coefficients, self.k, self.layer_scale = sublayers, coefficients, k, layer_scale
        self.resampling = resampling
        self._sources, self._store = memory_sources(sublayers, coefficients), TableStore()
        for name in ("index", "correct", "n_tokens", "n_agreeing", "random_agreeing", "class_logit", "random_logit"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The coefficients."""
        self._store.clear()  # a new pass begins, perhaps with other weights
        return source_names(cfg, self._sources)

    def update(self, batch: AnalysisBatch) -> None:
        """Measure a batch."""
        groups = token_groups(batch)
        measured = [self._measure(batch, source) for source in range(len(self._sources))]
        self.index.append(batch.index.to(self.device))
        self.correct.append((batch.logits.argmax(dim=-1) == batch.labels).to(self.device))
        self.n_tokens.append(groups.sum(-1, dtype=torch.int32).to(self.device))
        states = (self.n_agreeing, self.random_agreeing, self.class_logit, self.random_logit)
        for state, values in zip(states, zip(*measured, strict=True), strict=True):
            dtype = torch.int32 if values[0].dtype == torch.bool else torch.float32
            state.append(sum_by_group(torch.stack(values), groups).to(self.device, dtype))

    def _measure(self, batch: AnalysisBatch, source: int) -> tuple[Tensor, ...]:
        """Agreement with the correct and with a random class, and mean logits of both, each [layer batch token]."""
        sublayer, _ = self._sources[source]
        tables = tables_of_batch(batch, self._store, sublayer, self.k, self.layer_scale)
        measured = []
        for layer, memories in enumerate(called_in_batch(batch, self._sources[source], self.k)):
            measured.append(
                (
                    tables.agrees(layer, memories, batch.labels),
                    tables.random_agreement(layer, memories),
                    tables.label_logits(layer, memories, batch.labels).mean(dim=-1),
                    tables.mean_logit[layer][memories].mean(dim=-1),
                )
            )
        return tuple(torch.stack(values) for values in zip(*measured, strict=True))

    def compute(self) -> pd.DataFrame:
        """One row per block, sub-layer, kind of coefficient, kind of token, set of images and metric.

        Raises:
            ValueError: If no image was seen.
        """
        correct, n_tokens, agreeing, random_agreeing, logit, random_logit = self.by_image(
            "correct", "n_tokens", "n_agreeing", "random_agreeing", "class_logit", "random_logit"
        )
        metrics = {
            "agreement_rate": 100 * agreeing,
            "agreement_rate_random": 100 * random_agreeing,
            "agreement_rate_above_random": 100 * (agreeing - random_agreeing),
            "class_logit": logit,
            "class_logit_random": random_logit,
        }
        parts = [
            GroupSums.of_layers(sums[:, i], n_tokens, metric=metric, **source_columns(source))
            for i, source in enumerate(self._sources)
            for metric, sums in metrics.items()
        ]
        return correctness_tables(GroupSums.stack(parts), correct, self.resampling).reindex(columns=_COLUMNS)

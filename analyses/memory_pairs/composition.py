"""Compositionality over a dataset: how often none of k memories alone makes a sub-layer's prediction."""

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
from analyses.memory_pairs.pairs import first_match, output_of
from analyses.projection import stream_names
from analyses.statistics.intervals import Resampling
from analyses.value_vectors.vectors import MemorySublayer
from hooked_vit import HookedViTConfig

__all__ = ["Compositionality"]

_COLUMNS = [
    "layer", "stream", "coefficients", "k", "token_type", "region", "images", "metric", "value", "low", "high",
    "n_images", "n_tokens", "p_value", "p_adjusted", "effect_size",
]  # fmt: skip


class Compositionality(Analysis):
    """Compositionality over a dataset (paper, section 5.2), for each block, sub-layer, kind of token and number k.

    | metric | value |
    |---|---|
    | `compositionality` | percent of tokens for which `compositionality` is true: no single memory predicts the class |
    | `single_memory` | percent of tokens for which it is false: 100 minus the first |

    The other columns are `k` and those of `KeyValueAgreement`. One search for the largest k serves every k. Outputs are
    projected once per batch, shared with other analyses of the sweep.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), Compositionality(ks=[1, 5])
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> table = analysis.compute().query("metric == 'compositionality' and images == 'all' and token_type == 'cls'")
    >>> table.groupby("k").size().to_dict()  # 8 blocks, attention and both coefficients of the MLP
    {1: 24, 5: 24}
    """

    index: list[Tensor]  # [image]
    correct: list[Tensor]  # [image]
    n_tokens: list[Tensor]  # [image group]
    n_single: list[Tensor]  # [image source k layer group]

    def __init__(
        self,
        sublayers: Sequence[MemorySublayer] = ("mlp", "attn"),
        coefficients: Sequence[Coefficients] = ("pre", "post"),
        ks: Sequence[int] = (1, 2, 5, 10),
        layer_scale: bool = False,
        resampling: Resampling = Resampling(),
    ):
        """Configure the analysis.

        Args:
            sublayers: Any of `mlp`, `attn`.
            coefficients: For MLPs, any of `pre`, `post` (see `memory_coefficients`).
            ks: Numbers of memories.
            layer_scale: As for `value_vectors`.
            resampling: Bootstrap intervals and permutation tests.

        Raises:
            ValueError: If there is no such sub-layer, or a k is not positive.
        """
        super().__init__()
        if not len(ks) or min(ks) < 1:
            raise ValueError(f"expected numbers of memories from 1 on, such as ks=(1, 5), got {list(ks)}")
        self.sublayers, self.coefficients, self.ks, self.layer_scale = sublayers, coefficients, ks, layer_scale
        self.resampling = resampling
        self._sources, self._store = memory_sources(sublayers, coefficients), TableStore()
        for name in ("index", "correct", "n_tokens", "n_single"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The coefficients and the outputs of the sub-layers."""
        self._store.clear()  # a new pass begins, perhaps with other weights
        outputs = [name for sublayer in self.sublayers for name in stream_names(cfg, output_of(sublayer))]
        return [*source_names(cfg, self._sources), *outputs]

    def update(self, batch: AnalysisBatch) -> None:
        """Measure a batch."""
        groups, ks = token_groups(batch), torch.tensor(list(self.ks), device=batch.logits.device)
        single = []
        for source in self._sources:
            sublayer, _ = source
            tables = tables_of_batch(batch, self._store, sublayer, layer_scale=self.layer_scale)
            classes = batch.projection(output_of(sublayer)).top_classes[..., 0]
            called = enumerate(called_in_batch(batch, source, max(self.ks)))
            positions = torch.stack(
                [first_match(tables, layer, memories, classes[layer]) for layer, memories in called]
            )
            single.append(positions < ks[:, None, None, None])
        self.index.append(batch.index.to(self.device))
        self.correct.append((batch.logits.argmax(dim=-1) == batch.labels).to(self.device))
        self.n_tokens.append(groups.sum(-1, dtype=torch.int32).to(self.device))
        self.n_single.append(sum_by_group(torch.stack(single), groups).to(self.device, torch.int32))

    def compute(self) -> pd.DataFrame:
        """One row per block, sub-layer, kind of coefficient, kind of token, k, set of images and metric.

        Raises:
            ValueError: If no image was seen.
        """
        correct, n_tokens, n_single = self.by_image("correct", "n_tokens", "n_single")
        parts = []
        for i, source in enumerate(self._sources):
            for j, k in enumerate(self.ks):
                single, columns = n_single[:, i, j], {"k": int(k), **source_columns(source)}
                none = n_tokens[:, None] - single
                parts.append(GroupSums.of_layers(100 * none, n_tokens, metric="compositionality", **columns))
                parts.append(GroupSums.of_layers(100 * single, n_tokens, metric="single_memory", **columns))
        return correctness_tables(GroupSums.stack(parts), correct, self.resampling).reindex(columns=_COLUMNS)

"""How attention, MLPs and heads move tokens towards their class, and what of it the residual stream takes on."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.analysis.groups import TOKEN_GROUPS, sum_by_group, token_groups
from analyses.analysis.tables import GroupSums, difference_rows, object_minus_context, ratio_rows
from analyses.categorical_updates.block_projections import BlockProjections, Reference, Sublayer
from analyses.projection import Stream, stream_names
from analyses.statistics.intervals import Resampling
from hooked_vit import HookedViTConfig

__all__ = ["CategoricalUpdates"]

_PARTS = ("previous", "attn", "mlp", "none")
_COLUMNS = [
    "layer", "stream", "head", "reference", "token_type", "region", "images", "metric", "value", "low", "high",
    "n_images", "n_tokens", "p_value", "p_adjusted", "effect_size",
]  # fmt: skip


class CategoricalUpdates(Analysis):
    """Categorical updates over a dataset (paper, section 5.1), for each block, sub-layer and kind of token.

    | metric | value |
    |---|---|
    | `similarity_change_rate` | share of tokens whose correct class's logit is greater in the output than before |
    | `similarity_increase` | by how much, mean over tokens, in logits |
    | `composition_previous`, `_attn`, `_mlp`, `_none` | percent of tokens whose top class after the block is that of \
its input, of attention, of the MLP, of none of these |

    `stream` is `attn_out`, `mlp_out`, `resid_post` (the block as a whole) or, with `heads`, `result` with a `head`.
    `reference` is what a stream is held against. `images` is `all`, those that the model classifies `correct` or
    `wrong`, or `correct_minus_wrong`: the difference of per-image means, with a permutation test on images.
    `token_type` and `region` are those of `Identifiability`; `object_minus_context` is paired by image. Intervals are
    bootstrapped over images, `p_adjusted` is Holm's over blocks.

    Each stream is projected once a batch, and shared with other analyses of the sweep.

    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), CategoricalUpdates()
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> sorted(analysis.compute()["stream"].unique())
    ['attn_out', 'mlp_out', 'resid_post']
    """

    index: list[Tensor]  # [image]
    correct: list[Tensor]  # [image]
    n_tokens: list[Tensor]  # [image group]
    n_rising: list[Tensor]  # [image reference source layer group]
    increase: list[Tensor]  # [image reference source layer group], summed over tokens
    n_matching: list[Tensor]  # [image part layer group]

    def __init__(
        self,
        references: Sequence[Reference] = ("block_input",),
        heads: bool = False,
        sublayer_norm: bool = False,
        resampling: Resampling = Resampling(),
    ):
        """Ask it.

        Args:
            references: What sub-layers' outputs are held against; `layer_input` costs a projection of `resid_mid`.
            heads: Whether to project each head's share of `attn_out` too, which costs `n_heads` projections a block.
            sublayer_norm: As for `project`.
            resampling: Bootstrap intervals and permutation tests.

        Raises:
            ValueError: If there is no such reference, or none.
        """
        super().__init__()
        if isinstance(references, str) or not references or not set(references) <= set(get_args(Reference)):
            known = ", ".join(map(repr, get_args(Reference)))
            raise ValueError(f"expected a list of references out of {known}, got {references!r}")
        self.references, self.heads, self.sublayer_norm = tuple(references), heads, sublayer_norm
        self.resampling = resampling
        for name in ("index", "correct", "n_tokens", "n_rising", "increase", "n_matching"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """Block inputs and outputs and what sub-layers add."""
        streams: list[Stream] = ["resid_pre", "resid_post", "attn_out", "mlp_out"]
        if self.heads:
            streams.append("result")
        if "layer_input" in self.references:
            streams.append("resid_mid")
        return [name for stream in streams for name in stream_names(cfg, stream)]

    def update(self, batch: AnalysisBatch) -> None:
        """Count a batch's tokens."""
        groups, projections = token_groups(batch), BlockProjections.of_batch(batch, self.sublayer_norm)
        increases = torch.stack([self._increases(projections, reference) for reference in self.references])
        self.index.append(batch.index.to(self.device))
        self.correct.append((batch.logits.argmax(dim=-1) == batch.labels).to(self.device))
        self.n_tokens.append(groups.sum(-1, dtype=torch.int32).to(self.device))
        self.n_rising.append(sum_by_group(increases > 0, groups).to(self.device, torch.int32))
        self.increase.append(sum_by_group(increases, groups).to(self.device, torch.float32))
        self.n_matching.append(sum_by_group(projections.matches(), groups).to(self.device, torch.int32))

    def _increases(
        self, projections: BlockProjections, reference: Reference
    ) -> Float[Tensor, "source layer batch token"]:
        """Of attention, MLP and block, then of each head."""
        sources: tuple[Sublayer, ...] = ("attn", "mlp", "block")
        of_sources = torch.stack([projections.increase(source, reference) for source in sources])
        if not self.heads:
            return of_sources
        return torch.cat([of_sources, projections.increase("heads", reference).movedim(-1, 0)])

    def compute(self) -> pd.DataFrame:
        """One row for each block, stream, kind of token, set of images and metric.

        Raises:
            ValueError: If no image was seen.
        """
        correct, n_tokens, n_rising, increase, n_matching = self.by_image(
            "correct", "n_tokens", "n_rising", "increase", "n_matching"
        )
        parts = []
        for place, reference in enumerate(self.references):
            for source in range(n_rising.shape[2]):
                stream = ("attn_out", "mlp_out", "resid_post", "result")[min(source, 3)]
                head = source - 3 if source > 2 else None
                for metric, sums in (("similarity_change_rate", n_rising), ("similarity_increase", increase)):
                    of = {"stream": stream, "reference": reference, "head": head, "metric": metric}
                    parts.append(GroupSums.of_layers(sums[:, place, source], n_tokens, **of))
        for place, part in enumerate(_PARTS):
            of = {"stream": "resid_post", "reference": np.nan, "head": None, "metric": f"composition_{part}"}
            parts.append(GroupSums.of_layers(100 * n_matching[:, place], n_tokens, **of))
        tables = self._tables(GroupSums.stack(parts), correct)
        table = pd.concat([one for one in tables if len(one)], ignore_index=True).reindex(columns=_COLUMNS)
        return table.astype({"head": "Int64"})

    def _tables(self, of: GroupSums, correct: np.ndarray) -> list[pd.DataFrame]:
        """Of all images, of those classified correctly and wrongly, and what tells them, and regions, apart."""
        tables = [object_minus_context(of, self.resampling).assign(images="all")]
        for images, chosen in (("all", np.ones_like(correct)), ("correct", correct), ("wrong", ~correct)):
            if chosen.any():
                tables.append(ratio_rows(of.of_images(chosen), self.resampling).assign(images=images))
        for group, (token_type, region) in TOKEN_GROUPS.items():
            right, wrong = (of.of_images(chosen & of.has(group)).means(group) for chosen in (correct, ~correct))
            table = difference_rows(right, wrong, of.rows, self.resampling, paired=False)
            tables.append(table.assign(images="correct_minus_wrong", token_type=token_type, region=region))
        return tables

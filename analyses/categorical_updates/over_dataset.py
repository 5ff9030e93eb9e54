"""Categorical updates over a dataset: how sub-layers and heads move tokens towards their class, block by block."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.analysis.correctness import correctness_tables
from analyses.analysis.groups import sum_by_group, token_groups
from analyses.analysis.tables import GroupSums
from analyses.categorical_updates.block_projections import BlockProjections, Reference, Sublayer
from analyses.projection import Lens, Stream, stream_names
from analyses.statistics.intervals import Resampling
from hooked_vit import HookedViTConfig

__all__ = ["CategoricalUpdates"]

_SUBLAYERS: dict[Sublayer, Stream] = {"attn": "attn_out", "mlp": "mlp_out", "block": "resid_post"}
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
    `reference` is what a stream is compared with. `images` is `all`, those that the model classifies `correct` or
    `wrong`, or `correct_minus_wrong`: the difference of per-image means, with a permutation test on images.
    `token_type` and `region` are those of `Identifiability`; `object_minus_context` is paired by image. Intervals are
    bootstrapped over images, `p_adjusted` is Holm's over blocks.

    Each stream is projected once per batch; other analyses of the sweep share the projection.

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
        lens: Lens | None = None,
    ):
        """Configure the analysis.

        Args:
            references: What sub-layers' outputs are compared with; `layer_input` costs a projection of `resid_mid`.
            heads: Whether to project each head's share of `attn_out` too, which costs `n_heads` projections per block.
            sublayer_norm: As for `project`.
            resampling: Bootstrap intervals and permutation tests.
            lens: As for `project`.

        Raises:
            ValueError: If there is no such reference, or none; or with both `sublayer_norm` and a lens.
        """
        super().__init__()
        if isinstance(references, str) or not references or not set(references) <= set(get_args(Reference)):
            known = ", ".join(map(repr, get_args(Reference)))
            raise ValueError(f"expected a list of references out of {known}, got {references!r}")
        if sublayer_norm and lens is not None:
            raise ValueError("sublayer_norm applies to direct projection: leave it out, or the lens")
        self.references, self.heads, self.sublayer_norm = tuple(references), heads, sublayer_norm
        self.resampling, self.lens = resampling, lens
        for name in ("index", "correct", "n_tokens", "n_rising", "increase", "n_matching"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """Block inputs and outputs, and what sub-layers add."""
        streams: list[Stream] = ["resid_pre", "resid_post", "attn_out", "mlp_out"]
        if self.heads:
            streams.append("result")
        if "layer_input" in self.references and not cfg.parallel_attn_mlp:
            streams.append("resid_mid")
        return [name for stream in streams for name in stream_names(cfg, stream)]

    def update(self, batch: AnalysisBatch) -> None:
        """Count the tokens of a batch."""
        groups, projections = token_groups(batch), BlockProjections.of_batch(batch, self.sublayer_norm, self.lens)
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
        """The increases of attention, MLP and block, then of each head."""
        increases = torch.stack([projections.increase(sublayer, reference) for sublayer in _SUBLAYERS])
        if not self.heads:
            return increases
        return torch.cat([increases, projections.increase("heads", reference).movedim(-1, 0)])

    def compute(self) -> pd.DataFrame:
        """One row for each block, stream, kind of token, set of images and metric.

        Raises:
            ValueError: If no image was seen.
        """
        correct, n_tokens, n_rising, increase, n_matching = self.by_image(
            "correct", "n_tokens", "n_rising", "increase", "n_matching"
        )
        n_heads = n_rising.shape[2] - len(_SUBLAYERS)
        sources = [(stream, None) for stream in _SUBLAYERS.values()] + [("result", head) for head in range(n_heads)]
        parts = []
        for r, reference in enumerate(self.references):
            for s, (stream, head) in enumerate(sources):
                for metric, sums in (("similarity_change_rate", n_rising), ("similarity_increase", increase)):
                    columns = {"stream": stream, "reference": reference, "head": head, "metric": metric}
                    parts.append(GroupSums.of_layers(sums[:, r, s], n_tokens, **columns))
        for p, part in enumerate(_PARTS):
            columns = {"stream": "resid_post", "reference": np.nan, "head": None, "metric": f"composition_{part}"}
            parts.append(GroupSums.of_layers(100 * n_matching[:, p], n_tokens, **columns))
        table = correctness_tables(GroupSums.stack(parts), correct, self.resampling, all_tokens=False)
        return table.reindex(columns=_COLUMNS).astype({"head": "Int64"})

"""Class identifiability: how well tokens show the class of their image, block by block."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.analysis.groups import TOKEN_GROUPS, count_ranks, sum_by_group, token_groups
from analyses.analysis.null_control import compare_with_null
from analyses.analysis.tables import GroupSums, object_minus_context, ratio_rows
from analyses.projection import Lens, Stream, stream_names
from analyses.statistics.corrections import adjust_p_values
from analyses.statistics.hypothesis_tests import pooled_permutation_test
from analyses.statistics.intervals import Resampling
from hooked_vit import HookedViTConfig, TokenLayout
from hooked_vit.class_space import require_several_classes

__all__ = [
    "Identifiability",
    "IdentifiabilityRate",
    "ImageIdentifiability",
    "change_rate",
    "compare_with_null",
    "identifiability",
    "identifiability_rate",
]

_COLUMNS = [
    "layer", "stream", "token_type", "region", "metric", "value", "low", "high", "n_images", "n_tokens", "p_value",
    "p_adjusted", "effect_size",
]  # fmt: skip


@dataclass(frozen=True)
class IdentifiabilityRate:
    """How many patch tokens are identifiable: their image's class is on top of their projection.

    Attributes:
        patches: Percent of patch tokens, at each layer.
        images: Percent of images with at least one such patch token, at each layer.
    """

    patches: Float[Tensor, "layer"]
    images: Float[Tensor, "layer"]


def identifiability(rank: Int[Tensor, "*axes"], n_classes: int) -> Float[Tensor, "*axes"]:
    """Class identifiability `r = 1 - rank / C` (paper, section 4): 1 where the correct class is on top.

    Chance is `(C + 1) / 2C`, just above one half.

    Args:
        rank: How many classes are strictly above the correct one (`Projection.rank`).
        n_classes: C.

    Raises:
        ValueError: If a rank is not from 0 to `n_classes - 1`, or there is only one class.

    >>> identifiability(torch.tensor([0, 1, 3]), n_classes=4)
    tensor([1.0000, 0.7500, 0.2500])
    """
    require_several_classes(n_classes, "class identifiability")
    if rank.numel() and not 0 <= int(rank.min()) <= int(rank.max()) < n_classes:
        raise ValueError(f"expected ranks from 0 to {n_classes - 1}, got {int(rank.min())} to {int(rank.max())}")
    return 1 - rank / n_classes


def identifiability_rate(rank: Int[Tensor, "layer batch token"], layout: TokenLayout) -> IdentifiabilityRate:
    """Class identifiability rate (paper, section 4): percent of patch tokens with rank 0, and of images with one.

    Args:
        rank: `Projection.rank` of a stream.
        layout: Which tokens are patches: `model.token_layout`.

    Raises:
        ValueError: If the token axis is not the layout's.

    >>> rank = torch.tensor([[[5, 0, 3], [9, 2, 1]]])  # one layer, two images, CLS and two patches
    >>> identifiability_rate(rank, TokenLayout(n_cls=1, n_dist=0, n_registers=0, grid=(1, 2)))
    IdentifiabilityRate(patches=tensor([25.]), images=tensor([50.]))
    """
    identifiable = _patches(rank, layout) == 0
    return IdentifiabilityRate(
        patches=100 * identifiable.flatten(1).float().mean(-1), images=100 * identifiable.any(-1).float().mean(-1)
    )


def change_rate(label_logit: Float[Tensor, "layer batch token"], layout: TokenLayout) -> Float[Tensor, "step"]:
    """Share of patch tokens whose correct-class logit rises from one block's output to the next (paper, section 4).

    Args:
        label_logit: `Projection.label_logit` of `resid_post`.
        layout: Which tokens are patches: `model.token_layout`.

    Returns:
        One share per step between blocks: entry l is the step from block l to block l + 1.

    Raises:
        ValueError: If the token axis is not the layout's.

    >>> logits = torch.tensor([[[0.0, 1.0, 2.0]], [[9.0, 1.5, 1.0]], [[0.0, 2.0, 3.0]]])
    >>> change_rate(logits, TokenLayout(n_cls=1, n_dist=0, n_registers=0, grid=(1, 2)))
    tensor([0.5000, 1.0000])
    """
    patch_logit = _patches(label_logit, layout)
    return (patch_logit[1:] > patch_logit[:-1]).flatten(1).float().mean(-1)


def _patches(per_token: Tensor, layout: TokenLayout) -> Tensor:
    if per_token.shape[-1] != layout.n_tokens:
        raise ValueError(f"expected {layout.n_tokens} tokens in the last axis, got shape {tuple(per_token.shape)}")
    return per_token[..., layout.patches]


class Identifiability(Analysis):
    """Class identifiability over a dataset (paper, section 4), for each block and each kind of token.

    The numbers are exact: they come from histograms of ranks over all tokens and one row of counts per image, so that
    shards merge to the bit. `compute` returns a row for each block, kind of token and metric:

    | metric | value | low, high |
    |---|---|---|
    | `identifiability` | mean over tokens, 0 to 1 | bootstrap interval over images |
    | `identifiability_q25`, `_median`, `_q75` | quartiles over tokens | |
    | `identifiability_rate` | percent of tokens with rank 0 | bootstrap over images |
    | `images_with_identifiable` | percent of images with such a token; for patches only | bootstrap over images |
    | `change_rate` | share of tokens whose correct-class logit rose since the previous block | bootstrap over images |

    `token_type` is `cls`, `dist`, `register` or `patch`; `region` is `all`, or for patches `object` (the paper's
    class-labelled tokens) or `context` where the dataset has masks. Rows with `region` `object_minus_context` hold
    the difference: `identifiability` of per-image means, over images that show both, with a sign-flip permutation
    test on images; and `identifiability_pooled` of all tokens pooled, with the published code's shuffling of tokens
    (one-sided), which treats the tokens of one image as independent and is given for comparison only. `p_adjusted` is
    Holm's, over blocks.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), Identifiability()
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> table = analysis.compute()
    >>> table.query("metric == 'identifiability'").groupby("token_type").size().to_dict()
    {'cls': 8, 'patch': 8}
    """

    histogram: Tensor  # tokens by [layer group rank]
    index: list[Tensor]  # [image]
    n_tokens: list[Tensor]  # [image group]
    rank_sum: list[Tensor]  # [image layer group]
    n_identifiable: list[Tensor]  # [image layer group]
    n_rising: list[Tensor]  # [image layer group], 0 at the first block

    def __init__(self, stream: Stream = "resid_post", resampling: Resampling = Resampling(), lens: Lens | None = None):
        """Configure the analysis.

        Args:
            stream: The stream to project: the residual stream after each block, or any other but `result`.
            resampling: Bootstrap intervals and permutation tests.
            lens: As for `project`.

        Raises:
            ValueError: If the stream is `result`.
        """
        super().__init__()
        if stream == "result":
            raise ValueError("identifiability is not defined for single heads: pass 'attn_out', or a residual stream")
        self.stream: Stream = stream
        self.resampling, self.lens = resampling, lens
        # a scalar zero, to which counts of any shape can be added
        self.add_state("histogram", torch.tensor(0), dist_reduce_fx="sum")
        for name in ("index", "n_tokens", "rank_sum", "n_identifiable", "n_rising"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The stream at every block."""
        return stream_names(cfg, self.stream)

    def update(self, batch: AnalysisBatch) -> None:
        """Count the tokens of a batch."""
        projection, groups = batch.projection(self.stream, lens=self.lens), token_groups(batch)
        rank, logit = projection.rank, projection.label_logit
        assert rank is not None
        assert logit is not None
        rising = torch.zeros_like(rank, dtype=torch.bool)
        rising[1:] = logit[1:] > logit[:-1]
        self.histogram = self.histogram + count_ranks(rank, groups, projection.n_classes).to(self.device)
        self.index.append(batch.index.to(self.device))
        self.n_tokens.append(groups.sum(-1, dtype=torch.int32).to(self.device))
        for state, values in ((self.rank_sum, rank), (self.n_identifiable, rank == 0), (self.n_rising, rising)):
            state.append(sum_by_group(values, groups).to(self.device, torch.int32))

    def compute(self) -> pd.DataFrame:
        """One row for each block, kind of token and metric.

        Raises:
            ValueError: If no image was seen.
        """
        _, n_tokens, rank_sum, n_identifiable, n_rising = self._per_image()
        n_classes = self.histogram.shape[-1]
        score = n_tokens[:, None] - rank_sum / n_classes
        images_with = np.broadcast_to(n_tokens[:, None] > 0, rank_sum.shape).astype(np.int64)
        parts = [
            GroupSums.of_layers(score, n_tokens, metric="identifiability"),
            GroupSums.of_layers(100 * n_identifiable, n_tokens, metric="identifiability_rate"),
            GroupSums.of_layers(
                100 * (n_identifiable > 0), n_tokens, counts=images_with, metric="images_with_identifiable"
            ),
            GroupSums.of_layers(n_rising[:, 1:], n_tokens, first_layer=1, metric="change_rate"),
        ]
        means = ratio_rows(GroupSums.stack(parts), self.resampling)
        tables = [
            means[(means["token_type"] == "patch") | (means["metric"] != "images_with_identifiable")],
            self._quartiles(n_tokens),
            object_minus_context(parts[0], self.resampling),
            self._pooled_difference(n_tokens),
        ]
        table = pd.concat([table for table in tables if len(table)], ignore_index=True)
        return table.assign(stream=self.stream).reindex(columns=_COLUMNS)

    def images(self) -> pd.DataFrame:
        """Numbers per image: a row for each image, block and kind of token, for `compare_with_null`.

        Columns `index` (in the dataset), `layer`, `stream`, `token_type`, `region`, `identifiability` (mean over the
        image's tokens), `identifiability_rate` (percent), `n_tokens`.
        """
        index, n_tokens, rank_sum, n_identifiable, _ = self._per_image()
        n_classes, tables = self.histogram.shape[-1], []
        for group, (token_type, region) in enumerate(TOKEN_GROUPS.values()):
            has_group = n_tokens[:, group] > 0
            n_group = n_tokens[has_group, group]
            for layer in range(rank_sum.shape[1]):
                key = {"layer": layer, "stream": self.stream, "token_type": token_type, "region": region}
                mean = 1 - rank_sum[has_group, layer, group] / (n_group * n_classes)
                rate = 100 * n_identifiable[has_group, layer, group] / n_group
                numbers = {"identifiability": mean, "identifiability_rate": rate, "n_tokens": n_group}
                tables.append(pd.DataFrame({"index": index[has_group], **key, **numbers}))
        return pd.concat(tables, ignore_index=True)

    def _per_image(self) -> tuple[np.ndarray, ...]:
        """Index, number of tokens, sum of ranks, number of identifiable and of rising tokens."""
        states = self.by_image("index", "n_tokens", "rank_sum", "n_identifiable", "n_rising")
        return tuple(state.astype(np.int64) for state in states)

    def _quartiles(self, n_tokens: np.ndarray) -> pd.DataFrame:
        rows, n_classes = [], self.histogram.shape[-1]
        # cumulative counts, from the least identifiable tokens up
        counts = self.histogram.flip(-1).cumsum(-1).cpu().numpy()
        for group, (token_type, region) in enumerate(TOKEN_GROUPS.values()):
            for name, share in (("q25", 0.25), ("median", 0.5), ("q75", 0.75)):
                for layer, below in enumerate(counts[:, group] if n_tokens[:, group].any() else []):
                    key = {"layer": layer, "token_type": token_type, "region": region}
                    value = (1 + int(np.searchsorted(below, share * below[-1]))) / n_classes
                    size = {"n_images": int((n_tokens[:, group] > 0).sum()), "n_tokens": int(below[-1])}
                    rows.append({**key, "metric": f"identifiability_{name}", "value": value, **size})
        return pd.DataFrame(rows)

    def _pooled_difference(self, n_tokens: np.ndarray) -> pd.DataFrame:
        """Object minus context over tokens pooled, as in the published code."""
        pooled = self.histogram.cpu().numpy()[:, [list(TOKEN_GROUPS).index(group) for group in ("object", "context")]]
        if not pooled.sum(axis=-1).all():
            return pd.DataFrame()
        values = 1 - np.arange(pooled.shape[-1]) / pooled.shape[-1]
        n_resamples, seed = self.resampling.n_resamples, self.resampling.seed
        tests = [pooled_permutation_test(a, b, values, n_resamples=n_resamples, seed=seed) for a, b in pooled]
        p_values = [test.p_value for test in tests]
        return pd.DataFrame(
            {
                "layer": range(len(tests)),
                "token_type": "patch",
                "region": "object_minus_context",
                "metric": "identifiability_pooled",
                "value": [test.difference for test in tests],
                "n_images": len(n_tokens),
                "n_tokens": [test.n_a + test.n_b for test in tests],
                "p_value": p_values,
                "p_adjusted": adjust_p_values(p_values),
            }
        )


class ImageIdentifiability(Identifiability):
    """Identifiability with `images()` as its table, so that a sweep writes the table that `compare_with_null` reads.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), ImageIdentifiability()
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> len(analysis.compute())  # 2 images, 8 blocks, CLS and patches
    32
    """

    def compute(self) -> pd.DataFrame:
        """A row for each image, block and kind of token."""
        return self.images()

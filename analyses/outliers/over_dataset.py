"""Over a dataset: outlier tokens block by block, and the attention that they and each kind of token draw."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.analysis.groups import TOKEN_GROUPS, sum_by_group, token_groups
from analyses.analysis.tables import GroupSums, ratio_rows
from analyses.outliers.scores import THRESHOLD, attention_received, check_threshold, norm_ratios, outlier_names
from analyses.statistics.intervals import Resampling
from hooked_vit import HookedViTConfig

__all__ = ["METRICS", "Outliers"]

METRICS = {
    "norm_ratio": "tokens",
    "outlier_rate": "tokens",
    "largest_norm_ratio": "images",
    "images_with_outlier": "images",
    "attention": "images",
    "attention_to_outliers": "images",
    "cls_attention": "images",
}
"""The metrics of `Outliers`, in the order of its state, and what each is a mean over."""

_COLUMNS = ["layer", "stream", "token_type", "region", "metric", "value", "low", "high", "n_images", "n_tokens",
            "threshold"]  # fmt: skip


class Outliers(Analysis):
    """Outlier tokens over a dataset, for each block and each kind of token (Darcet et al. 2024; Jiang et al. 2025).

    A token is an outlier if its norm in `resid_post` is more than `threshold` times the median norm of the image's
    patches. `compute` returns a row for each block, kind of token (`token_type` and `region`, as in `Identifiability`)
    and metric:

    | metric | value |
    |---|---|
    | `norm_ratio` | the norm, in medians of the image's patches: mean over tokens |
    | `outlier_rate` | percent of tokens that are outliers |
    | `largest_norm_ratio` | the largest norm ratio of an image's tokens: mean over images |
    | `images_with_outlier` | percent of images with at least one outlier |
    | `attention` | percent of the block's attention that these tokens draw, over all heads and queries |
    | `attention_to_outliers` | percent of it that those of them draw that enter the block as outliers |
    | `cls_attention` | percent of the attention of CLS that these tokens draw; not for models without CLS |

    `low` and `high` are bootstrap intervals over images. The control is the same for the model freshly initialised.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), Outliers()
    >>> logits, cache = model.run_with_cache(torch.randn(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> table = analysis.compute()
    >>> attention = table[(table["metric"] == "attention") & (table["layer"] == 7)]
    >>> round(float(attention["value"].sum()), 3)  # of CLS and patches, which are all tokens
    100.0
    """

    index: list[Tensor]  # [image]
    correct: list[Tensor]  # [image]
    n_tokens: list[Tensor]  # [image group]
    sums: list[Tensor]  # [image metric layer group]

    def __init__(self, threshold: float | int = THRESHOLD, resampling: Resampling = Resampling()):
        """Configure the analysis.

        Args:
            threshold: The norm ratio above which a token is an outlier.
            resampling: The bootstrap intervals.

        Raises:
            ValueError: If the threshold is not above 1.
        """
        super().__init__()
        self.threshold, self.resampling = check_threshold(threshold), resampling
        for name in ("index", "correct", "n_tokens", "sums"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The stream that enters the first block and that leaves every block, and every block's attention."""
        return ["blocks.0.hook_resid_pre", *outlier_names(cfg)]

    def update(self, batch: AnalysisBatch) -> None:
        """Score the tokens of a batch.

        Raises:
            ValueError: If the images have another grid of patches than the model's own.
        """
        model, cache, layout = batch.model, batch.cache, batch.model.token_layout
        _check_grid(batch)
        groups, layers = token_groups(batch), range(model.cfg.n_layers)
        streams = [("resid_pre", 0), *(("resid_post", layer) for layer in layers)]
        ratios = torch.stack([norm_ratios(cache[name], layout) for name in streams])
        outliers, entering = ratios[1:] > self.threshold, ratios[:-1] > self.threshold
        received = torch.stack([attention_received(cache["pattern", layer]) for layer in layers])
        largest = _largest(ratios[1:], groups)
        cls_attention = torch.full_like(largest, torch.nan)
        if layout.cls is not None:
            rows = torch.stack([cache["pattern", layer][:, :, layout.cls].float().mean(dim=1) for layer in layers])
            cls_attention = 100 * sum_by_group(rows, groups)
        found = {
            "norm_ratio": sum_by_group(ratios[1:], groups),
            "outlier_rate": 100 * sum_by_group(outliers, groups),
            "largest_norm_ratio": largest,
            "images_with_outlier": 100 * (largest > self.threshold),
            "attention": 100 * sum_by_group(received, groups),
            "attention_to_outliers": 100 * sum_by_group(received * entering, groups),
            "cls_attention": cls_attention,
        }
        self.index.append(batch.index.to(self.device))
        self.correct.append((batch.logits.argmax(dim=-1) == batch.labels).to(self.device))
        self.n_tokens.append(groups.sum(-1, dtype=torch.int32).to(self.device))
        sums = torch.stack([found[metric].to(self.device, torch.float32) for metric in METRICS], dim=1)
        self.sums.append(sums)

    def compute(self) -> pd.DataFrame:
        """One row for each block, kind of token and metric.

        Raises:
            ValueError: If no image was seen.
        """
        table = ratio_rows(GroupSums.stack(self._sums()), self.resampling)
        return table.assign(stream="resid_post", threshold=self.threshold).reindex(columns=_COLUMNS)

    def images(self) -> pd.DataFrame:
        """Numbers per image: a row for each image, block and kind of token, for `compare_with_null`.

        Columns `index`, `layer`, `stream`, `token_type`, `region`, and one per metric: means over the image's tokens.
        """
        (index,), parts, tables = self.by_image("index"), self._sums(), []
        for group, (token_type, region) in TOKEN_GROUPS.items():
            has = parts[0].has(group)
            means = {part.rows["metric"].iloc[0]: part.of_images(has).means(group) for part in parts}
            for layer in range(parts[0].sums.shape[1]) if has.any() else ():
                key = {"layer": layer, "stream": "resid_post", "token_type": token_type, "region": region}
                numbers = {metric: values[:, layer] for metric, values in means.items()}
                tables.append(pd.DataFrame({"index": index[has], **key, **numbers}))
        return pd.concat(tables, ignore_index=True)

    def _sums(self) -> list[GroupSums]:
        """One part per metric that the model has."""
        n_tokens, sums = (state.astype(np.float64) for state in self.by_image("n_tokens", "sums"))
        n_tokens = n_tokens.astype(np.int64)
        shape = sums.shape[0], *sums.shape[2:]
        counts = {
            "tokens": np.broadcast_to(n_tokens[:, None], shape),
            "images": np.broadcast_to(n_tokens[:, None] > 0, shape).astype(np.int64),
        }
        return [
            GroupSums.of_layers(sums[:, place], n_tokens, counts=counts[unit], metric=metric)
            for place, (metric, unit) in enumerate(METRICS.items())
            if not np.isnan(sums[:, place]).any()
        ]


def _check_grid(batch: AnalysisBatch) -> None:
    cfg = batch.model.cfg
    if batch.images is None:
        return
    (height, width), own = batch.images.shape[-2:], cfg.token_layout
    if cfg.token_layout_at(height, width).grid != own.grid:
        raise ValueError(
            f"expected images of the model's own size, {cfg.image_size[0]} × {cfg.image_size[1]} pixels, got {height} "
            f"× {width}: resize them, or load the model with img_size=({height}, {width}); `outlier_scores` and "
            "`register_neurons` take any size"
        )


def _largest(ratios: Float[Tensor, "layer batch token"], groups: Tensor) -> Float[Tensor, "batch layer group"]:
    """The largest of each group's tokens; 0 where it has none."""
    of_group = ratios[:, :, None] * groups
    return of_group.amax(dim=-1).transpose(0, 1).double()

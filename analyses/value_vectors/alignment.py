"""Class-value agreement: whether value vectors align with class embeddings, more than before training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.analysis.tables import adjust_over_layers
from analyses.statistics.hypothesis_tests import signed_rank_test
from analyses.statistics.intervals import Resampling
from analyses.value_vectors.vectors import MemorySublayer, value_logits
from hooked_vit import HookedViT, HookedViTConfig
from hooked_vit.initialisation import freshly_initialised

__all__ = ["ClassValueAgreement", "class_value_agreement", "compare_class_value_agreement"]


@torch.no_grad()
def class_value_agreement(model: HookedViT, sublayer: MemorySublayer = "mlp") -> Float[Tensor, "layer n_classes"]:
    """Class-value agreement (paper, section 5.2): for each class, the largest cosine over a layer's value vectors.

    `max_i cos(E_c, v_i)`, -1 to 1. LayerScale is not applied. With an attention pool, v_i is the pool's output for it.

    Args:
        model: The model; it is not changed (the published code normalises its weights in place).
        sublayer: `mlp` or `attn`.

    Raises:
        ValueError: If there is no such sub-layer, or the model has no classes. A single class is enough: a cosine
            compares no classes (tests over classes, in `compare_class_value_agreement`, are then NaN).

    >>> class_value_agreement(HookedViT.from_pretrained("emoji-vit"), "attn").shape
    torch.Size([8, 100])
    """
    return torch.stack(
        [value_logits(model, layer, sublayer, unit_length=True).amax(dim=0) for layer in range(model.cfg.n_layers)]
    )


def compare_class_value_agreement(
    model: HookedViT,
    sublayers: Sequence[MemorySublayer] = ("mlp", "attn"),
    *,
    null: HookedViT | None = None,
    seed: int = 0,
    resampling: Resampling = Resampling(),
) -> pd.DataFrame:
    """Test whether class-value agreement is above that of the freshly initialised model, per block and sub-layer.

    One-sided Wilcoxon signed-rank test, paired by class: a class's agreement in one model and in the other.

    Args:
        model: The trained model.
        sublayers: Any of `mlp`, `attn`.
        null: The model to compare with; by default `freshly_initialised(model, seed)`.
        seed: Seed of the null model.
        resampling: Bootstrap intervals over classes.

    Returns:
        One row per sub-layer and block: `layer`, `stream` (`mlp_out`, `attn_out`), `metric`, `value` (mean over
        classes) with its interval `low`, `high`, `null` (mean), `median_difference`, `rank_biserial`, `p_value`,
        `p_adjusted` (Holm's, over blocks), `n_classes`.

    Raises:
        ValueError: If the two models differ in their numbers of blocks or classes.

    >>> table = compare_class_value_agreement(HookedViT.from_pretrained("emoji-vit"), ["mlp"], resampling=Resampling(9))
    >>> table["layer"].tolist(), set(table["stream"])
    ([0, 1, 2, 3, 4, 5, 6, 7], {'mlp_out'})
    """
    null = freshly_initialised(model, seed) if null is None else null
    shapes = [(either.cfg.n_layers, either.cfg.n_classes) for either in (model, null)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"expected a null model with as many (blocks, classes) as the model, {shapes[0]}, got {shapes[1]}"
        )
    return _comparison(sublayers, _agreement(model, sublayers), _agreement(null, sublayers), resampling)


class ClassValueAgreement(Analysis):
    """`compare_class_value_agreement` as an analysis of a sweep; it reads only the model's weights, not the images.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.statistics import Resampling
    >>> from analyses.sweep import sweep
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> analysis = ClassValueAgreement(resampling=Resampling(9))
    >>> table = sweep(model, EmojiScenes(2, 0), [analysis])["class_value_agreement"]
    >>> table.groupby("stream").size().to_dict()
    {'attn_out': 8, 'mlp_out': 8}
    """

    # of the model and of the null model; the same in every batch, so shards merge by their maximum
    agreement: Float[Tensor, "sublayer layer n_classes"]
    null_agreement: Float[Tensor, "sublayer layer n_classes"]

    def __init__(
        self,
        sublayers: Sequence[MemorySublayer] = ("mlp", "attn"),
        resampling: Resampling = Resampling(),
        seed: int = 0,
    ):
        """Configure the analysis; the arguments are those of `compare_class_value_agreement`."""
        super().__init__()
        self.sublayers, self.resampling, self.seed = tuple(sublayers), resampling, seed
        self._measured: tuple[HookedViT, Tensor, Tensor] | None = None
        for name in ("agreement", "null_agreement"):
            self.add_state(name, torch.full((1, 1, 1), -1.0), dist_reduce_fx="max")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """None: only weights are read."""
        return []

    def update(self, batch: AnalysisBatch) -> None:
        """Measure the model, in its first batch only."""
        if self._measured is None or self._measured[0] is not batch.model:
            null = freshly_initialised(batch.model, self.seed)
            self._measured = batch.model, _agreement(batch.model, self.sublayers), _agreement(null, self.sublayers)
        _, self.agreement, self.null_agreement = self._measured

    def compute(self) -> pd.DataFrame:
        """The table of `compare_class_value_agreement`."""
        return _comparison(self.sublayers, self.agreement, self.null_agreement, self.resampling)


def _agreement(model: HookedViT, sublayers: Sequence[MemorySublayer]) -> Float[Tensor, "sublayer layer n_classes"]:
    return torch.stack([class_value_agreement(model, sublayer) for sublayer in sublayers])


def _comparison(
    sublayers: Sequence[MemorySublayer],
    agreement: Float[Tensor, "sublayer layer n_classes"],
    null_agreement: Float[Tensor, "sublayer layer n_classes"],
    resampling: Resampling,
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for sublayer, *both in zip(sublayers, agreement, null_agreement, strict=True):
        ours, theirs = (values.double().cpu().numpy() for values in both)
        interval = resampling.interval(ours.T)
        for layer, (x, y) in enumerate(zip(ours, theirs, strict=True)):
            test = signed_rank_test(x, y, "greater") if len(x) > 1 else None
            rows.append(
                {
                    "layer": layer,
                    "stream": f"{sublayer}_out",
                    "metric": "class_value_agreement",
                    "value": x.mean(),
                    "low": interval.low[layer],
                    "high": interval.high[layer],
                    "null": y.mean(),
                    "median_difference": test.median_difference if test else np.nan,
                    "rank_biserial": test.rank_biserial if test else np.nan,
                    "p_value": test.p_value if test else np.nan,
                    "n_classes": len(x),
                }
            )
    table = pd.DataFrame(rows)
    kinds = pd.DataFrame(rows, columns=["layer", "stream"])
    return table.assign(p_adjusted=adjust_over_layers(table["p_value"].to_numpy(dtype=float), kinds))

"""Direct projection and a tuned lens side by side: how much of late emergence is a change of basis."""

from typing import Any

import numpy as np
import pandas as pd

from analyses.analysis.base import Fitted
from analyses.data.dataset import LabelledImages
from analyses.identifiability import Identifiability
from analyses.projection import Lens
from analyses.statistics.intervals import Resampling
from analyses.sweep.run import sweep
from hooked_vit import HookedViT

__all__ = ["compare_lenses"]

_METRICS = ("identifiability", "identifiability_rate")


def compare_lenses(
    model: HookedViT,
    dataset: LabelledImages,
    lens: Lens,
    *,
    batch_size: int = 32,
    limit: int | None = None,
    resampling: Resampling = Resampling(),
    progress: bool | None = None,
) -> pd.DataFrame:
    """Class identifiability of every block through direct projection and through a lens, on the same images.

    If the class that direct projection finds only in the last blocks is found earlier through the lens, it was there
    in another basis. What neither finds is not there in a form that is the same for all images and linear.

    Args:
        model: The model.
        dataset: Images with labels, other ones than those that the lens was fitted to.
        lens: Such as `fit_tuned_lens(model, other_images)`.
        batch_size: Images per forward pass.
        limit: Only the first so many images.
        resampling: Bootstrap intervals over images.
        progress: As for `sweep`.

    Returns:
        A row for each block, kind of token (`region` `all`, or patches on `object` and `context`), `metric`
        (`identifiability`, 0 to 1; `identifiability_rate`, percent of tokens) and `lens`: `direct`, `tuned`, and
        `tuned_minus_direct`, paired by image. `value` is a mean over images, with `low` and `high`.

    Raises:
        ValueError: If the lens was fitted to another model, to these images or to CLS alone, or no image can be read.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.tuned_lens import TunedLens
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> table = compare_lenses(model, EmojiScenes(4, seed=1), TunedLens.identity(model.cfg), resampling=Resampling(9))
    >>> table[table["lens"] == "tuned_minus_direct"]["value"].unique()
    array([0.])
    """
    lens.check(model)
    if isinstance(lens, Fitted):
        lens.check_sweep(model, dataset, "all")
    analyses = {"direct": Identifiability(resampling=resampling), "tuned": Identifiability(lens=lens)}
    sweep(model, dataset, analyses, batch_size=batch_size, limit=limit, progress=progress)
    tables: dict[str, pd.DataFrame] = {name: analysis.images() for name, analysis in analyses.items()}
    keys = ["token_type", "region"]
    rows: list[dict[str, Any]] = []
    for group in tables["direct"][keys].drop_duplicates().itertuples(index=False):
        chosen = {name: pd.DataFrame(table[(table[keys] == list(group)).all(axis=1)]) for name, table in tables.items()}
        for metric in _METRICS:
            per_image = {name: _by_image(table, metric) for name, table in chosen.items()}
            per_image["tuned_minus_direct"] = per_image["tuned"] - per_image["direct"]
            for name, values in per_image.items():
                interval = resampling.interval(values)
                numbers = zip(interval.estimate, interval.low, interval.high, strict=True)
                key = {**dict(zip(keys, group, strict=True)), "metric": metric, "lens": name, "n_images": len(values)}
                rows += [
                    {"layer": layer, **key, "value": float(value), "low": float(low), "high": float(high)}
                    for layer, (value, low, high) in enumerate(numbers)
                ]
    return pd.DataFrame(rows)


def _by_image(table: pd.DataFrame, metric: str) -> np.ndarray:
    """[image layer]"""
    return table.pivot(index="index", columns="layer", values=metric).to_numpy(dtype=np.float64)

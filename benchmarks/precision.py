"""How far the results of analyses and explanations move under bfloat16: weights in bfloat16, and autocast.

    python benchmarks/precision.py [--images 64] [--quick] [--markdown]

On emoji-vit and Emoji Scenes. For an analysis, the mean and the largest difference of a number in its table from that
in float32; for an explanation, the mean correlation of its maps with those in float32, over the first 16 images.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from report import Report, options, parse
from torch import Tensor

from analyses.analysis import Analysis
from analyses.categorical_updates import CategoricalUpdates
from analyses.data import EmojiScenes
from analyses.faithfulness import Faithfulness, Localisation
from analyses.feature_importance.methods import METHODS, explainer
from analyses.identifiability import Identifiability
from analyses.memory_pairs import CausalMemories, Compositionality, KeyValueAgreement
from analyses.patching import AblationStudy
from analyses.perturbation import Perturbation
from analyses.statistics import Resampling
from analyses.sweep import sweep
from analyses.value_vectors import ClassValueAgreement
from hooked_vit import HookedViT


def analyses() -> dict[str, Analysis]:
    """One of each kind, with few resamples: intervals are not compared."""
    few = Resampling(9)
    made = [Identifiability(resampling=few), CategoricalUpdates(resampling=few), KeyValueAgreement(resampling=few),
            Compositionality(resampling=few), ClassValueAgreement(), Perturbation(),
            Faithfulness(["importance", "raw_attention"], n_steps=8, resampling=few),
            Localisation(["importance", "raw_attention"], resampling=few),
            CausalMemories(resampling=few), AblationStudy(resampling=few)]  # fmt: skip
    return {type(one).__name__: one for one in made}


def settings(name: str) -> tuple[HookedViT, Any]:
    """A model, and the context in which it runs."""
    model = HookedViT.from_pretrained("emoji-vit")
    if name == "weights":
        return model.to(torch.bfloat16), contextlib.nullcontext()
    return model, torch.autocast("cpu", torch.bfloat16) if name == "autocast" else contextlib.nullcontext()


def tables(name: str, n_images: int) -> dict[str, pd.DataFrame]:
    """The tables of a sweep."""
    model, context = settings(name)
    found = {}
    for key, analysis in analyses().items():
        with context:
            found[key] = sweep(model, EmojiScenes(n_images, seed=3), {key: analysis}, 32, progress=False)[key]
    return found


def maps(name: str, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The maps of every method, [image patch]."""
    model, context = settings(name)
    images = images.to(model.embed.weight)
    with context:
        return {method: explainer(method)(model, images, labels).float() for method in METHODS if method != "random"}


def movement(table: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float]:
    """Mean and largest absolute difference of the values of two tables."""
    a, b = table["value"].to_numpy(float), other["value"].to_numpy(float)
    assert len(a) == len(b)
    distance = np.abs(a - b)[~(np.isnan(a) | np.isnan(b))]
    return float(distance.mean()), float(distance.max())


def correlation(a: Tensor, b: Tensor) -> float:
    """Mean over images of the correlation of two maps; maps that are the same everywhere have none."""
    pairs = [(x.numpy(), y.numpy()) for x, y in zip(a.flatten(1), b.flatten(1), strict=True)]
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in pairs if x.std() > 0 and y.std() > 0]))


def main() -> None:
    """Measure and print."""
    arguments = parse(options(__doc__ or "", {"images": 16}, images=64))
    report = Report("precision", ("what", "unit", "bfloat16 weights", "autocast"), arguments)
    whole = tables("float32", arguments.images)
    others = {name: tables(name, arguments.images) for name in ("weights", "autocast")}
    for key, table in whole.items():
        moved = [movement(table, other[key]) for other in others.values()]
        report.row(key, "mean, largest difference", *(f"{mean:.3g}, {most:.3g}" for mean, most in moved))
    n_explained = min(16, arguments.images)
    scenes = EmojiScenes(n_explained, seed=3)
    read: Callable[[int], Tensor] = lambda index: scenes[index][0]  # noqa: E731
    model = HookedViT.from_pretrained("emoji-vit")
    images = torch.stack([torch.as_tensor(read(index)) for index in range(n_explained)]).to(model.embed.weight)
    labels = torch.tensor([int(scenes[index][1]) for index in range(n_explained)])
    in_float32 = maps("float32", images, labels)
    low = [maps(name, images, labels) for name in ("weights", "autocast")]
    for method, of_method in in_float32.items():
        report.row(method, "correlation of maps", *(f"{correlation(of_method, other[method]):.4f}" for other in low))
    report.finish()


if __name__ == "__main__":
    main()

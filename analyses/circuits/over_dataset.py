"""Faithfulness of circuits over a dataset: each image's own circuits, or one for all, with intervals over images."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.circuits.attribution import Method, edge_attribution
from analyses.circuits.baseline import random_circuit
from analyses.circuits.circuit import Circuit, run_circuits
from analyses.circuits.quality import SHARES, areas, sized_circuits
from analyses.circuits.recording import record
from analyses.circuits.scores import EdgeScores
from analyses.circuits.search import Ranking
from analyses.patching.metrics import logit_difference
from analyses.statistics.intervals import Resampling
from hooked_vit import HookedViTConfig

__all__ = ["CircuitFaithfulness", "Counterfactual", "next_of_another_label"]

Counterfactual = Callable[[AnalysisBatch], tuple[Float[Tensor, "batch channel height width"], Int[Tensor, "batch"]]]
"""From a batch to its corrupt images and their labels; an image whose label is its own is left out."""

_CURVES = ("faithfulness", "complement", "random")


def next_of_another_label(batch: AnalysisBatch) -> tuple[Tensor, Tensor]:
    """The next image of the batch that has another label; in a batch of one label, the image itself.

    >>> from hooked_vit import HookedViT
    >>> model, images = HookedViT.from_pretrained("emoji-vit"), torch.randn(3, 3, 64, 64)
    >>> logits, cache = model.run_with_cache(images, names_filter="logits")
    >>> batch = AnalysisBatch(model, cache, logits, torch.tensor([5, 5, 8]), torch.arange(3), images=images)
    >>> next_of_another_label(batch)[1].tolist()
    [8, 8, 5]
    """
    assert batch.images is not None
    n_images, order = len(batch.labels), []
    for image in range(n_images):
        others = [(image + step) % n_images for step in range(1, n_images)]
        order.append(next((other for other in others if batch.labels[other] != batch.labels[image]), image))
    return batch.images[order], batch.labels[order]


class CircuitFaithfulness(Analysis):
    """How faithful circuits of growing size are, over a dataset.

    The metric of an image is its label's logit minus that of its counterfactual's label. By default the counterfactual
    is the next image of the batch that has another label, so results depend on the batches; pass a function for exact
    ones, such as scenes with one object swapped. For each image, edges are ranked by its own `edge_attribution`, or by
    given scores, which asks whether one circuit serves all images.

    With m(C) the sum of the metric over images through circuits C, `compute` has a row for each `curve` and `share` of
    the edges, with the mean number of edges (`n_edges`) and

    | curve | value |
    |---|---|
    | `faithfulness` | `(m(C) - m(corrupt)) / (m(clean) - m(corrupt))` |
    | `complement` | the same of all edges outside C |
    | `random` | the same of a random connected circuit of as many edges |

    and rows for the areas under the curves over the share of edges, `cpr` and, without an interval, `cmd` (see
    `CircuitCurve`; Mueller et al. 2025). `low` and `high` are bootstrap intervals over images.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), CircuitFaithfulness(shares=(0.05,))
    >>> images = torch.randn(2, 3, 64, 64)
    >>> logits, cache = model.run_with_cache(images, names_filter="logits")
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2), images=images))
    >>> analysis.compute()["curve"].unique().tolist()
    ['faithfulness', 'complement', 'random']
    """

    index: list[Tensor]  # [image]
    metrics: list[Tensor]  # [image 2 + curve * share]: clean, corrupt, then the curves
    n_edges: list[Tensor]  # [image share]

    def __init__(
        self,
        method: Method = "eap",
        shares: Sequence[float] = SHARES[:-1],
        counterfactual: Counterfactual = next_of_another_label,
        scores: EdgeScores | None = None,
        search: str = "top",
        ranking: Ranking = "absolute",
        steps: int = 5,
        seed: int = 0,
        memory_limit: float | int | None = None,
        resampling: Resampling = Resampling(),
    ):
        """Configure the analysis.

        Args:
            method: The scores of each image.
            shares: Shares of all edges.
            counterfactual: The corrupt image and its label, for each image of a batch.
            scores: Scores that rank edges for all images, instead of each image's own.
            search: `"top"` or `"greedy"`.
            ranking: As for `top_circuit`.
            steps: Of `eap-ig` and `eap-gp`.
            seed: Seed of the random circuits.
            memory_limit: Bytes that the runs may take at a time.
            resampling: Bootstrap intervals.

        Raises:
            ValueError: If a share is not between 0 and 1.
        """
        super().__init__()
        if not shares or not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"expected shares of the edges from 0 to 1, got {tuple(shares)}")
        self.method: Method = method
        self.shares, self.counterfactual, self.scores = tuple(shares), counterfactual, scores
        self.search, self.steps, self.seed = search, steps, seed
        self.ranking: Ranking = ranking
        self.memory_limit, self.resampling = memory_limit, resampling
        for name in ("index", "metrics", "n_edges"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The logits alone: images are run again."""
        return ["hook_logits"]

    def update(self, batch: AnalysisBatch) -> None:
        """Score the edges of each image of a batch, and run its circuits."""
        if batch.images is None:
            raise ValueError("circuits need pixels: give the batch its `images`, as a sweep does")
        corrupt, others = self.counterfactual(batch)
        counted = others != batch.labels
        if not counted.any():
            return
        clean, corrupt, labels, others = (
            part[counted] for part in (batch.images, corrupt, batch.labels, others.to(batch.labels.device))
        )
        index = batch.index[counted.to(batch.index.device)]
        each = logit_difference(labels, against=others, per_image=True)
        ranked = [self.scores] * len(clean) if self.scores is not None else self._scores(batch, clean, corrupt, each)
        rows, sizes = [], []
        for image, scores in enumerate(ranked):
            of_image = slice(image, image + 1)
            metric = logit_difference(labels[of_image], against=others[of_image])
            values, n_edges = self._curves(batch, clean[of_image], corrupt[of_image], metric, scores, int(index[image]))
            rows.append(values)
            sizes.append(n_edges)
        self.index.append(index.to(self.device))
        self.metrics.append(torch.stack(rows).to(self.device, torch.float32))
        self.n_edges.append(torch.tensor(sizes, device=self.device))

    def _scores(self, batch: AnalysisBatch, clean: Tensor, corrupt: Tensor, metric: Any) -> list[EdgeScores]:
        """The scores of each image."""
        found = edge_attribution(
            batch.model, clean, corrupt, metric, self.method, steps=self.steps, per_image=True,
            memory_limit=self.memory_limit,
        )  # fmt: skip
        ends = zip(found.values, found.clean, found.corrupt, strict=True)
        return [EdgeScores(found.graph, found.method, *of_image) for of_image in ends]

    def _curves(
        self, batch: AnalysisBatch, clean: Tensor, corrupt: Tensor, metric: Any, scores: EdgeScores, index: int
    ) -> tuple[Tensor, list[int]]:
        circuits = sized_circuits(scores, self.shares, self.search, self.ranking)
        # seeded by the image, so that its numbers depend on no other
        generator = torch.Generator().manual_seed(self.seed + 7919 * index)
        runs = [Circuit.whole(scores.graph), Circuit.whole(scores.graph).complement(), *circuits]
        runs += [circuit.complement() for circuit in circuits]
        runs += [random_circuit(scores.graph, circuit.n_edges, generator) for circuit in circuits]
        masks = torch.stack([circuit.mask for circuit in runs])
        kept = record(batch.model, corrupt)
        members = torch.ones(1, 1, kept.writes.shape[1], dtype=torch.bool)
        found = torch.cat(list(
            run_circuits(batch.model, scores.graph, masks, clean, kept, members, memory_limit=self.memory_limit)
        ))  # fmt: skip
        return metric(found), [circuit.n_edges for circuit in circuits]

    def compute(self) -> pd.DataFrame:
        """One row per curve and share of the edges, and one per area.

        Raises:
            ValueError: If no image was counted.
        """
        if not len(self.index):
            raise ValueError("no image was counted: give update batches with images of different labels")
        metrics, n_edges = self.by_image("metrics", "n_edges")
        metrics = metrics.astype(np.float64)
        clean, corrupt = metrics[:, :1], metrics[:, 1:2]
        kept = (metrics[:, 2:] - corrupt).reshape(len(metrics), len(_CURVES), len(self.shares))
        whole = np.broadcast_to((clean - corrupt)[..., None], kept.shape)
        interval = self.resampling.ratio(kept, whole)
        shares = np.array(self.shares)
        rows = []
        for i, curve in enumerate(_CURVES):
            for j, share in enumerate(shares):
                rows.append({
                    "curve": curve, "metric": "value", "share": share, "n_edges": n_edges[:, j].mean(),
                    "value": interval.estimate[i, j], "low": interval.low[i, j], "high": interval.high[i, j],
                })  # fmt: skip
        # at the ends, no edge keeps nothing and all keep everything
        at = np.concatenate([[0.0], shares, [1.0]])
        ends = np.zeros((len(metrics), len(_CURVES), 1)), whole[..., :1]
        if not (np.diff(at) >= 0).all():
            raise ValueError(f"expected shares in increasing order, got {self.shares}")
        for i, curve in enumerate(_CURVES):
            first, last = ends if curve != "complement" else ends[::-1]
            along = np.concatenate([first[:, i], kept[:, i], last[:, i]], axis=1)
            area = self.resampling.ratio(_area(along, at), whole[:, i, 0])
            mean = torch.from_numpy(along.sum(axis=0) / whole[:, i, 0].sum())
            cpr = {"value": float(area.estimate), "low": float(area.low), "high": float(area.high)}
            rows.append({"curve": curve, "metric": "cpr", **cpr})
            rows.append({"curve": curve, "metric": "cmd", "value": areas(at.tolist(), mean)[1]})
        table = pd.DataFrame(rows).assign(n_images=len(metrics), method=self.method)
        columns = ["curve", "metric", "share", "n_edges", "value", "low", "high", "n_images", "method"]
        return table.reindex(columns=columns)


def _area(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The area under each row, by trapezoids."""
    return ((values[:, 1:] + values[:, :-1]) / 2 * np.diff(shares)).sum(axis=1)

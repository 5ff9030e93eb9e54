"""Scores of edges: how far each is estimated, or measured, to move a metric when it takes its corrupt value."""

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from analyses.circuits.circuit import Circuit, edge_table
from analyses.circuits.graph import CircuitGraph, Edge

__all__ = ["EdgeScores", "ScoreAgreement", "score_agreement"]


@dataclass(frozen=True)
class EdgeScores:
    """The change of a metric when an edge carries its corrupt value and everything else the clean one.

    Attributes:
        graph: The graph.
        method: `eap`, `eap-ig`, `eap-gp` or `exact`.
        values: The change for each edge, in the metric's unit, 0 where there is no edge; per image if these were kept.
        clean: The metric of the clean run.
        corrupt: The metric of the corrupt run.
        per_step: With `eap-ig` and `eap-gp`, the sum of the embedding's edges after each step: how it converges.
    """

    graph: CircuitGraph
    method: str
    values: Float[Tensor, "*image sender reader"]
    clean: Float[Tensor, "*image"]
    corrupt: Float[Tensor, "*image"]
    per_step: Float[Tensor, "step *image"] | None = None

    @property
    def mean(self) -> Float[Tensor, "sender reader"]:
        """The values; their mean over images if each has its own."""
        return self.values if self.values.ndim == 2 else self.values.mean(dim=0)

    @property
    def completeness(self) -> Float[Tensor, "*image"]:
        """Sum of the scores of the embedding's edges over the whole change of the metric: 1 where an integral is exact.

        All that differs enters through the embedding. With enough steps, the gradients along a path from one run to
        the other add up to the whole change; how far this is from 1 is the error of the integral.
        """
        return self.values[..., 0, :].sum(dim=-1) / (self.corrupt - self.clean)

    def at(self, edge: Edge) -> Float[Tensor, "*image"]:
        """The score of an edge.

        Raises:
            ValueError: If there is no such edge.
        """
        sender, reader = self.graph.index(edge)
        return self.values[..., sender, reader]

    def of_edges(self) -> Float[Tensor, "edge"]:
        """The scores of all edges in a row, in the order of `table`."""
        return self.mean[self.graph.valid.to(self.values.device)]

    def table(self, n: int | None = None) -> pd.DataFrame:
        """One row per edge: its ends and `score`; with `n`, the edges with the largest scores, whatever their sign."""
        scores = self.of_edges().cpu()
        if n is None:
            return edge_table(self.graph, self.graph.valid).assign(score=scores.double().numpy())
        chosen = scores.abs().argsort(descending=True)[:n]
        mask = torch.zeros_like(self.graph.valid)
        mask[tuple(self.graph.valid.nonzero()[chosen].T)] = True
        table = edge_table(self.graph, mask).assign(score=self.mean.cpu()[mask].double().numpy())
        return table.sort_values("score", key=abs, ascending=False, ignore_index=True)


@dataclass(frozen=True)
class ScoreAgreement:
    """How well the scores of one method predict those of another.

    Attributes:
        pearson: Correlation over edges, -1 to 1.
        spearman: Correlation of ranks.
        recall: Share of the other's largest edges that are among as many of this one's largest, 0 to 1.
        n_edges: Number of edges.
    """

    pearson: float
    spearman: float
    recall: float
    n_edges: int


def score_agreement(a: EdgeScores, b: EdgeScores, n: int = 50) -> ScoreAgreement:
    """Compare two sets of scores; recall is of the `n` edges that are largest in absolute value.

    Raises:
        ValueError: If they are of different graphs.

    >>> graph, ends = CircuitGraph(1, 2), (torch.tensor(1.0), torch.tensor(0.0))
    >>> one = EdgeScores(graph, "eap", torch.rand(4, 8) * graph.valid, *ends)
    >>> score_agreement(one, one, n=5).recall
    1.0
    """
    if a.graph != b.graph:
        raise ValueError("expected scores of the same graph, got scores of two: compute both for one model and groups")
    x, y = a.of_edges().cpu().double(), b.of_edges().cpu().double()
    n = min(n, len(x))
    largest = [set(scores.abs().topk(n).indices.tolist()) for scores in (x, y)]
    constant = float(x.std()) == 0 or float(y.std()) == 0
    pearson = float("nan") if constant else float(stats.pearsonr(x.numpy(), y.numpy())[0])  # pyright: ignore[reportArgumentType]
    spearman = float("nan") if constant else float(stats.spearmanr(x.numpy(), y.numpy())[0])  # pyright: ignore[reportArgumentType]
    return ScoreAgreement(pearson, spearman, len(largest[0] & largest[1]) / n, len(x))


def overlap(a: Circuit, b: Circuit) -> float:
    """Edges that two circuits share, over the edges of either: 1 for the same circuit, 0 for none in common.

    Raises:
        ValueError: If they are of different graphs.

    >>> graph = CircuitGraph(1, 2)
    >>> overlap(Circuit.whole(graph), Circuit.whole(graph))
    1.0
    """
    if a.graph != b.graph:
        raise ValueError("expected two circuits of the same graph, got circuits of two")
    either = int((a.mask | b.mask).sum())
    return int((a.mask & b.mask).sum()) / either if either else float("nan")

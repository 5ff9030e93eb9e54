"""The quality of circuits: how much of a metric they keep and what is lost without them, against their size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.circuits.baseline import random_circuit
from analyses.circuits.circuit import Circuit, checked_groups, corrupt_recording, run_circuits
from analyses.circuits.groups import Groups
from analyses.circuits.recording import Recording
from analyses.circuits.scores import EdgeScores, overlap
from analyses.circuits.search import Ranking, greedy_circuit, top_circuit
from analyses.patching.metrics import Metric, checked_metric, metric_values
from hooked_vit import HookedViT

__all__ = ["SHARES", "CircuitCurve", "areas", "circuit_curve", "minimality", "overlaps"]

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The shares of a graph's edges at which the MIB benchmark measures circuits."""


@dataclass(frozen=True)
class CircuitCurve:
    """How faithful circuits of growing size are, with m(C) the metric of a run through circuit C.

    Attributes:
        n_edges: Edges of each circuit, after those on no path from the embedding to the logits were left out.
        shares: The share of all edges that each was allowed.
        faithfulness: `(m(C) - m(corrupt)) / (m(clean) - m(corrupt))`: 1 where the circuit does what the model does.
        complement: The same of all edges outside the circuit: what remains without it.
        random: The same of a random connected circuit of as many edges; mean over draws.
        clean: The metric of the clean run.
        corrupt: The metric of the corrupt run.
        circuits: The circuits.
    """

    n_edges: tuple[int, ...]
    shares: tuple[float, ...]
    faithfulness: Float[Tensor, "size"]
    complement: Float[Tensor, "size"]
    random: Float[Tensor, "size"]
    clean: float
    corrupt: float
    circuits: tuple[Circuit, ...]

    @property
    def completeness(self) -> Float[Tensor, "size"]:
        """`1 - complement`: the share of the change that is lost without the circuit (Marks et al. 2024)."""
        return 1 - self.complement

    @property
    def cpr(self) -> float:
        """Integrated circuit performance ratio: the area under faithfulness over the share of edges; higher is better.

        From the MIB benchmark (Mueller et al. 2025), by trapezoids. It may exceed 1.
        """
        return areas(self.shares, self.faithfulness)[0]

    @property
    def cmd(self) -> float:
        """Integrated circuit-model distance: the area under `|1 - faithfulness|`; 0 is best (Mueller et al. 2025)."""
        return areas(self.shares, self.faithfulness)[1]

    def table(self) -> pd.DataFrame:
        """One row per circuit: `share`, `n_edges`, `faithfulness`, `completeness`, `complement`, `random`."""
        numbers = {name: getattr(self, name).cpu().double().numpy()
                   for name in ("faithfulness", "completeness", "complement", "random")}  # fmt: skip
        return pd.DataFrame({"share": self.shares, "n_edges": self.n_edges, **numbers})


def areas(shares: Sequence[float], faithfulness: Float[Tensor, "size"]) -> tuple[float, float]:
    """CPR and CMD: the areas under faithfulness and under `|1 - faithfulness|`, by trapezoids over the shares.

    >>> areas([0.0, 0.5, 1.0], torch.tensor([0.0, 1.0, 1.0]))
    (0.75, 0.25)
    """
    values, at = faithfulness.cpu().double(), torch.tensor(shares, dtype=torch.float64)
    return float(torch.trapezoid(values, at)), float(torch.trapezoid((1 - values).abs(), at))


def sized_circuits(
    scores: EdgeScores, shares: Sequence[float], search: str = "top", ranking: Ranking = "absolute"
) -> list[Circuit]:
    """The circuit that a search finds at each share of the edges, rounded down.

    Raises:
        ValueError: If there is no such search, or a share is not between 0 and 1.
    """
    searches: dict[str, Any] = {"top": top_circuit, "greedy": greedy_circuit}
    if search not in searches:
        raise ValueError(f"expected a search 'top' or 'greedy', got {search!r}")
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"expected shares of the edges from 0 to 1, got {tuple(shares)}")
    return [searches[search](scores, math.floor(share * scores.graph.n_edges + 1e-9), ranking) for share in shares]


@torch.no_grad()
def circuit_curve(
    model: HookedViT,
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Float[Tensor, "batch channel height width"] | Recording,
    metric: Metric,
    scores: EdgeScores,
    *,
    shares: Sequence[float] = SHARES,
    search: str = "top",
    ranking: Ranking = "absolute",
    n_random: int = 3,
    seed: int = 0,
    groups: Groups | None = None,
    memory_limit: float | int | None = None,
) -> CircuitCurve:
    """Measure circuits of growing size, their complements, and random circuits of as many edges.

    Args:
        model: The model, without hooks.
        clean: As for `edge_attribution`; they may be other images than those of the scores.
        corrupt: As above.
        metric: As above; it needs no gradient.
        scores: The scores that the circuits are found from.
        shares: Shares of all edges.
        search: `"top"` (see `top_circuit`) or `"greedy"` (`greedy_circuit`).
        ranking: As for these.
        n_random: Number of random circuits of each size.
        seed: Their seed.
        groups: As for `edge_attribution`.
        memory_limit: Bytes that the runs may take at a time.

    Raises:
        ValueError: As `Circuit.run`; if the metric is the same for both runs, so that nothing can be kept of it.

    >>> from analyses.circuits import edge_attribution
    >>> from analyses.patching import logit_difference
    >>> model, metric = HookedViT.from_pretrained("emoji-vit"), logit_difference(3, against=14)
    >>> images = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    >>> curve = circuit_curve(model, *images, metric, edge_attribution(model, *images, metric), shares=(0.01, 1.0))
    >>> curve.n_edges[1], round(float(curve.faithfulness[1]), 4)
    (1997, 1.0)
    """
    graph, kept = scores.graph, corrupt_recording(model, clean, corrupt)
    members = checked_groups(model, graph, kept, len(clean), groups)
    circuits = sized_circuits(scores, shares, search, ranking)
    generator = torch.Generator().manual_seed(seed)
    random = [random_circuit(graph, circuit.n_edges, generator) for circuit in circuits for _ in range(n_random)]
    runs = [*circuits, *(circuit.complement() for circuit in circuits), *random]
    masks = torch.stack([circuit.mask for circuit in (*runs, Circuit.whole(graph))])
    found = torch.cat(list(run_circuits(model, graph, masks, clean, kept, members, memory_limit=memory_limit)))
    checked_metric(metric, found[-1], per_image=False)
    values = metric_values(metric, found, per_image=False)
    ends = float(values[-1]), float(checked_metric(metric, kept.logits.expand(len(clean), -1), per_image=False))
    if ends[0] == ends[1]:
        raise ValueError(
            f"the metric is {ends[0]:g} for both runs, so no share of its change is defined: choose another corrupt "
            "image or metric"
        )
    shares_kept = (values[:-1] - ends[1]) / (ends[0] - ends[1])
    n = len(circuits)
    at_random = shares_kept[2 * n :].unflatten(0, (n, n_random)).mean(dim=1) if n_random else shares_kept[:n] * math.nan
    sizes = tuple(circuit.n_edges for circuit in circuits)
    return CircuitCurve(
        sizes, tuple(shares), shares_kept[:n], shares_kept[n : 2 * n], at_random, *ends, tuple(circuits)
    )


@torch.no_grad()
def minimality(
    model: HookedViT,
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Float[Tensor, "batch channel height width"] | Recording,
    metric: Metric,
    circuit: Circuit,
    *,
    groups: Groups | None = None,
    memory_limit: float | int | None = None,
) -> pd.DataFrame:
    """What each edge of a circuit contributes to it: the metric of the circuit minus that without the edge.

    A minimal circuit has no edge whose `change` is near 0 (Wang et al. 2022, for edges).

    Args:
        model: The model, without hooks.
        clean: As for `edge_attribution`.
        corrupt: As above.
        metric: As above; it needs no gradient.
        circuit: The circuit.
        groups: As for `edge_attribution`.
        memory_limit: Bytes that the runs may take at a time.

    Returns:
        `circuit.table()` with the column `change`, and `share`: the change over that between the clean and the corrupt
        run.

    Raises:
        ValueError: As `Circuit.run`.

    >>> from analyses.circuits import circuit_graph, planted_model
    >>> planted = planted_model("copy")
    >>> circuit = Circuit(circuit_graph(planted.model), circuit_graph(planted.model).mask(planted.edges))
    >>> table = minimality(planted.model, planted.clean, planted.corrupt, planted.metric, circuit)
    >>> bool((table["change"] > 0.3).all())
    True
    """
    graph, kept = circuit.graph, corrupt_recording(model, clean, corrupt)
    members = checked_groups(model, graph, kept, len(clean), groups)
    at = circuit.mask.nonzero()
    masks = circuit.mask.repeat(len(at) + 2, 1, 1)
    masks[torch.arange(len(at)), at[:, 0], at[:, 1]] = False
    masks[-1] = graph.valid
    found = torch.cat(list(run_circuits(model, graph, masks, clean, kept, members, memory_limit=memory_limit)))
    values = metric_values(metric, found, per_image=False).cpu().double().numpy()
    corrupt_value = float(checked_metric(metric, kept.logits.expand(len(clean), -1), per_image=False))
    change = values[-2] - values[:-2]
    return circuit.table().assign(change=change, share=change / (values[-1] - corrupt_value))


def overlaps(circuits: Sequence[Circuit]) -> Float[np.ndarray, "circuit circuit"]:
    """The overlap of each circuit with each: of classes, pictures, or models trained from different seeds.

    Random circuits of these sizes overlap too: compare with `overlaps` of `random_circuit`.

    Raises:
        ValueError: If they are of different graphs.
    """
    return np.array([[overlap(a, b) for b in circuits] for a in circuits])

"""The cost of circuits on a ViT-B/32 pair, in forward passes; and how well edge attribution predicts exact patching.

    python benchmarks/circuits.py [--model vit_base_patch32_224] [--threads 2] [--seconds 60] [--markdown]
    python benchmarks/circuits.py --agreement 3 [--names emoji-vit,emoji-vit-gap,emoji-vit-context]

Cost: random weights; a forward pass is that of the clean image alone, and all ratios are of times measured alternately
in one run. Targets: scores of all edges in 4 forward passes, a circuit of any size in 3. There is no
row for TransformerLens's edge attribution: it takes tokens on a `TransformerBridge`, which loads its model from a hub.

Agreement: `edge_patching` of every edge (a run each) against `edge_attribution`, on scenes with one object swapped;
means over pairs of rank correlation, correlation, and the recall of the 50 largest edges.
"""

import statistics
from collections.abc import Callable
from typing import Any

import timm
import torch
from report import Report, options, parse
from timing import paired_seconds, ratio

from analyses.circuits import (
    Circuit,
    EdgeScores,
    edge_attribution,
    edge_patching,
    greedy_circuit,
    record,
    score_agreement,
)
from analyses.data import EmojiScenes
from analyses.patching import logit_difference
from hooked_vit import HookedViT, keep_freed_memory

METHODS: dict[str, dict[str, Any]] = {
    "EAP": {"method": "eap"},
    "EAP-IG, 5 steps": {"method": "eap-ig", "steps": 5},
    "EAP-IG, 20 steps, midpoints": {"method": "eap-ig", "steps": 20, "rule": "midpoint"},
    "EAP-GP, 5 steps": {"method": "eap-gp", "steps": 5},
}


def of_pictures(name: str) -> dict[str, Callable[[], Any]]:
    """What is timed on a pair of pictures; the first is a forward pass."""
    torch.manual_seed(0)
    model = HookedViT.from_timm(timm.create_model(name, pretrained=False).eval())
    clean, corrupt = (torch.randn(1, 3, *model.cfg.image_size) for _ in range(2))
    metric = logit_difference(3, against=14)
    scores = edge_attribution(model, clean, corrupt, metric)
    kept, graph = record(model, corrupt), scores.graph
    circuits = {
        "100 edges": greedy_circuit(scores, 100),
        "half of the edges": Circuit(graph, graph.valid & (torch.rand(graph.valid.shape) < 0.5)),
        "all edges": Circuit.whole(graph),
    }

    @torch.no_grad()
    def forward() -> Any:
        return model(clean)

    contenders: dict[str, Callable[[], Any]] = {
        "a forward pass": forward,
        f"EAP scores of {graph.n_edges} edges": lambda: edge_attribution(model, clean, corrupt, metric),
    }
    for size, circuit in circuits.items():
        contenders[f"circuit of {size}"] = lambda circuit=circuit: circuit.run(model, clean, corrupt)
        contenders[f"circuit of {size}, corrupt run known"] = lambda circuit=circuit: circuit.run(model, clean, kept)
    return contenders


def agreement(name: str, n_pairs: int, first: int = 0) -> dict[str, list[tuple[float, float, float, float]]]:
    """Rank correlation, correlation, recall of the top 50 and completeness, for each pair and method."""
    model = HookedViT.from_pretrained(name)
    scenes = EmojiScenes(100, seed=7)
    batches = scenes.batch(range(n_pairs)), scenes.swap_object().batch(range(n_pairs))
    found: dict[str, list[tuple[float, float, float, float]]] = {method: [] for method in METHODS}
    for pair in range(first, n_pairs):
        clean, corrupt = (batch.images[pair : pair + 1] for batch in batches)
        labels = [int(batch.labels[pair, 0]) for batch in batches]
        metric = logit_difference(labels[0], against=labels[1])
        exact = edge_patching(model, clean, corrupt, metric)
        for method, chosen in METHODS.items():
            scores: EdgeScores = edge_attribution(model, clean, corrupt, metric, **chosen)
            result = score_agreement(scores, exact, n=50)
            found[method].append((result.spearman, result.pearson, result.recall, float(scores.completeness)))
    return found


def main() -> None:
    """Measure and print the table."""
    quick = {"seconds": 10.0}
    parser = options(__doc__ or "", quick, model="vit_base_patch32_224", seconds=60.0, agreement=0, names="emoji-vit")
    arguments = parse(parser)
    keep_freed_memory()
    if not arguments.agreement:
        report = Report("circuits", ("what", "forward passes", "s"), arguments)
        found = paired_seconds(of_pictures(arguments.model), arguments.seconds)
        for what, times in found.items():
            report.row(what, f"{ratio(found, what, 'a forward pass'):.2f}", f"{statistics.median(times):.3f}")
        report.finish()
        return
    header = ("model", "scores", "rank correlation", "correlation", "recall of the top 50", "completeness")
    report = Report("circuits-agreement", header, arguments)
    for name in arguments.names.split(","):
        for method, results in agreement(name, arguments.agreement).items():
            means = [sum(numbers) / len(results) for numbers in zip(*results, strict=True)]
            report.row(name, method, *(f"{mean:.2f}" for mean in means))
    report.finish()


if __name__ == "__main__":
    main()

"""The cost of circuits on a ViT-B/32 pair, in forward passes; and how well edge attribution predicts exact patching.

    python benchmarks/circuits.py [--model vit_base_patch32_224] [--threads 2] [--seconds 60] [--lens] [--markdown]
    python benchmarks/circuits.py --agreement 4 [--names emoji-vit,emoji-vit-gap,emoji-vit-context]

Cost: random weights; a forward pass is that of the clean image alone, and all ratios are of times measured alternately
in one run. Targets: scores of all edges in 4 forward passes, a circuit of any size in 3. With --lens, TransformerLens's
edge attribution (`get_edge_attribution_scores` in its `hook_points` of a text model with the same width, depth and
number of tokens) is timed in the same rounds, if the installed version has one.

Agreement: `edge_patching` of every edge (a run each) against `edge_attribution`, on scenes with one object swapped;
means over pairs of rank correlation, correlation, and the recall of the 50 largest edges.
"""

import argparse
from collections.abc import Callable
from typing import Any

import timm
import torch
from tables import print_table
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
from hooked_vit import HookedViT

METHODS: dict[str, dict[str, Any]] = {
    "EAP": {"method": "eap"},
    "EAP-IG, 5 steps": {"method": "eap-ig", "steps": 5},
    "EAP-IG, 20 steps, midpoints": {"method": "eap-ig", "steps": 20, "rule": "midpoint"},
    "EAP-GP, 5 steps": {"method": "eap-gp", "steps": 5},
}


def cost(name: str, seconds: float, lens: bool) -> list[list[str]]:
    """Rows of the table of costs: time in forward passes, and seconds."""
    torch.manual_seed(0)
    model = HookedViT.from_timm(timm.create_model(name, pretrained=False).eval())
    clean, corrupt = (torch.randn(1, 3, *model.cfg.image_size) for _ in range(2))
    metric = logit_difference(3, against=14)
    scores = edge_attribution(model, clean, corrupt, metric)
    kept = record(model, corrupt)
    n_edges = scores.graph.n_edges
    half = Circuit(scores.graph, scores.graph.valid & (torch.rand(scores.graph.valid.shape) < 0.5))
    circuits = {
        "100 edges": greedy_circuit(scores, 100),
        "half of the edges": half,
        "all edges": Circuit.whole(scores.graph),
    }

    @torch.no_grad()
    def forward() -> Any:
        return model(clean)

    contenders: dict[str, Callable[[], Any]] = {
        "a forward pass": forward,
        f"EAP scores of all {n_edges} edges": lambda: edge_attribution(model, clean, corrupt, metric),
    }
    for size, circuit in circuits.items():
        contenders[f"circuit of {size}"] = lambda circuit=circuit: circuit.run(model, clean, corrupt)
        contenders[f"circuit of {size}, corrupt run known"] = lambda circuit=circuit: circuit.run(model, clean, kept)
    if lens:
        contenders["TransformerLens, EAP of a text model of the same size"] = text_model(model)
    found = paired_seconds(contenders, seconds)
    return [
        [what, f"{ratio(found, what, 'a forward pass'):.2f}", f"{sorted(times)[len(times) // 2]:.3f}"]
        for what, times in found.items()
    ]


def text_model(model: HookedViT) -> Callable[[], Any]:
    """TransformerLens's edge attribution on a text model with this model's width, depth and number of tokens."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.patching import get_edge_attribution_scores  # pyright: ignore

    cfg = HookedTransformerConfig(
        n_layers=model.cfg.n_layers, d_model=model.cfg.d_model, n_heads=model.cfg.n_heads, d_head=model.cfg.d_head,
        d_mlp=model.cfg.d_mlp, n_ctx=model.cfg.n_ctx, d_vocab=model.cfg.n_classes, act_fn="gelu", seed=0,
    )  # fmt: skip
    text = HookedTransformer(cfg)
    clean, corrupt = torch.randint(0, model.cfg.n_classes, (2, 1, model.cfg.n_ctx))
    return lambda: get_edge_attribution_scores(text, clean, corrupt, lambda logits: logits[:, -1, 3].sum())


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
        for method, options in METHODS.items():
            scores: EdgeScores = edge_attribution(model, clean, corrupt, metric, **options)
            result = score_agreement(scores, exact, n=50)
            found[method].append((result.spearman, result.pearson, result.recall, float(scores.completeness)))
            print(name, pair, method, *(f"{number:.3f}" for number in found[method][-1]), flush=True)
    return found


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch32_224")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--lens", action="store_true")
    parser.add_argument("--agreement", type=int, default=0, metavar="PAIRS")
    parser.add_argument("--names", default="emoji-vit")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.agreement:
        rows = cost(arguments.model, arguments.seconds, arguments.lens)
        print_table(("what", "forward passes", "s"), rows, f"one pair, {arguments.model}", arguments.markdown)
        return
    rows = []
    for name in arguments.names.split(","):
        for method, results in agreement(name, arguments.agreement).items():
            means = [sum(numbers) / len(results) for numbers in zip(*results, strict=True)]
            rows.append([name, method, *(f"{mean:.2f}" for mean in means)])
    columns = ("model", "scores", "rank correlation", "correlation", "recall of the top 50", "completeness")
    print_table(
        columns, rows, f"edge attribution against exact path patching, {arguments.agreement} pairs", arguments.markdown
    )


if __name__ == "__main__":
    main()

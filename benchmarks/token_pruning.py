"""What fewer tokens really save: accuracy and time of pruned and merged runs, against the whole model.

    python benchmarks/token_pruning.py [--model emoji-vit] [--n 500] [--batch 50] [--threads 2] [--seconds 60]

Times are shares of the whole model's on the same images, measured alternately in one run, and include the scores.
"tokens" is the mean over blocks of the share of tokens that a block's MLP computes on.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from report import Report, options, parse
from timing import paired_seconds, ratio
from torch import Tensor

from analyses.data import EmojiScenes
from analyses.token_pruning import fused_logits, merged_logits, pruned_logits
from hooked_vit import HookedViT, keep_freed_memory

Run = Callable[[Tensor], Tensor]


def runs_of(model: HookedViT) -> dict[str, tuple[Run, float]]:
    """What is compared, and the share of tokens that each computes on."""
    n_layers, layout = model.cfg.n_layers, model.token_layout
    n, early, middle = layout.n_patches, n_layers // 4, n_layers // 2
    quarter = n // 4

    def share(block: int, kept: int) -> float:
        return (block * layout.n_tokens + (n_layers - block) * (layout.n_prefix + kept)) / (n_layers * layout.n_tokens)

    def merged(r: int) -> float:
        left = [max(n - r * (layer + 1), 1) + layout.n_prefix for layer in range(n_layers)]
        return sum(left) / (n_layers * layout.n_tokens)

    scores = ["class_space", "norm", "random", "importance"]
    scores += ["cls_attention"] if layout.cls is not None else []
    found: dict[str, tuple[Run, float]] = {"whole model": (model, 1.0)}
    for block in (early, middle):
        for score in scores:
            run = partial(_pruned, model, {block: quarter}, score)
            found[f"a quarter from block {block}, {score}"] = (run, share(block, quarter))
    fused = partial(_fused, model, {middle: quarter})
    found[f"a quarter from block {middle}, class_space, the rest fused"] = (fused, share(middle, quarter + 1))
    for r in (n // 16, n // 8):
        found[f"ToMe, {r} a block"] = (partial(merged_logits, model, r=r), merged(r))
    return found


def _pruned(model: HookedViT, keep: dict[int, int], score: Any, images: Tensor) -> Tensor:
    return pruned_logits(model, images, keep, score).class_logits


def _fused(model: HookedViT, keep: dict[int, int], images: Tensor) -> Tensor:
    return fused_logits(model, images, keep)


@torch.no_grad()
def _all(run: Run, batches: list[Tensor]) -> Tensor:
    return torch.cat([run(images) for images in batches])


def main() -> None:
    """Measure and print the table."""
    quick = {"seconds": 10.0, "n": 100}
    arguments = parse(options(__doc__ or "", quick, model="emoji-vit", n=500, batch=50, seconds=60.0))
    keep_freed_memory()
    model = HookedViT.from_pretrained(arguments.model)
    scenes = EmojiScenes(arguments.n, seed=2).batch(range(arguments.n))
    batches = list(scenes.images.split(arguments.batch))
    runs = runs_of(model)
    report = Report("token-pruning", ("run", "accuracy", "tokens", "time / whole model"), arguments)
    found = paired_seconds(
        {name: partial(_all, run, batches[:2]) for name, (run, _) in runs.items()}, arguments.seconds
    )
    for name, (run, tokens) in runs.items():
        correct = _all(run, batches).argmax(dim=-1) == scenes.labels[:, 0]
        accuracy = 100 * float(correct.double().mean())
        report.row(name, f"{accuracy:.1f}", f"{tokens:.2f}", f"{ratio(found, name, 'whole model'):.2f}")
    report.finish()


if __name__ == "__main__":
    main()

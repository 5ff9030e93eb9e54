"""The cost of explanations, as ratios to plain forward passes measured alternately in the same run.

    python benchmarks/explanations.py [--models B/32,B/16] [--batch 32] [--threads 2] [--seconds 60] [--quick]

Importance of one class (and of ten and a hundred), all blocks and heads, over one forward pass (target: 1.15); a curve
of 49 removals over as many full passes (target at B/32, 32 images: 0.65). For comparison, the cost of the same
importance by autograd, one local gradient per block for the sum over images, and of Chefer's relevance.
Random weights, 1000 classes. On a machine with a GPU: --device cuda.
"""

import statistics
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from report import Report, options, parse
from timing import paired_seconds, ratio
from torch import Tensor

from analyses.faithfulness import removal_curve
from analyses.feature_importance import feature_importance, relevance
from hooked_vit import HookedViT, keep_freed_memory

ARCHITECTURES = {"B/32": "vit_base_patch32_224", "B/16": "vit_base_patch16_224", "L/16": "vit_large_patch16_224"}
N_STEPS = 49


def importance_by_autograd(model: HookedViT, images: Tensor, classes: Tensor) -> list[Tensor]:
    """The same numbers by one gradient for each block, on the block's own attention."""
    with torch.no_grad():
        _, cache = model.run_with_cache(images, names_filter=["pattern", "v"])
    importance = []
    for layer, block in enumerate(model.blocks):
        with torch.enable_grad():
            pattern = cache["pattern", layer][:, :, :1].clone().requires_grad_()
            z = (pattern @ cache["v", layer].transpose(1, 2)).transpose(1, 2)
            out = block.attn.project(z)[:, 0]
            loss = F.cross_entropy(model.class_logits(out), classes, reduction="sum")
            importance.append(-torch.autograd.grad(loss, pattern)[0])
    return importance


def contenders(name: str, batch: int, device: str) -> dict[str, tuple[float, float | None, dict[str, Callable]]]:
    """For each task: the number of plain passes that it is compared with, the target, our run and the base run."""
    model = HookedViT.from_timm(timm.create_model(name).eval()).to(device)
    images = torch.randn(batch, 3, 224, 224, device=device)
    chosen = torch.randint(1000, (batch, 100), device=device)
    labels, n_patches = chosen[:, 0], model.token_layout.n_patches
    order = torch.rand(batch, n_patches, device=device).argsort(dim=1)
    steps = torch.linspace(0, n_patches, N_STEPS + 1).round().int().tolist()[1:]

    def plain() -> Tensor:
        return model(images)

    def task(ours: Callable[[], object], n_passes: float = 1, target: float | None = None) -> tuple:
        return n_passes, target, {"ours": ours, "base": plain}

    by_autograd = {"one class, by autograd": task(lambda: importance_by_autograd(model, images, labels))}
    return {
        "importance, one class": task(lambda: feature_importance(model, images, labels), 1, 1.15),
        "importance, 10 classes": task(lambda: feature_importance(model, images, chosen[:, :10])),
        "importance, 100 classes": task(lambda: feature_importance(model, images, chosen)),
        **by_autograd,
        "Chefer's relevance": task(lambda: relevance(model, images, labels)),
        f"curve of {N_STEPS} removals": task(
            lambda: removal_curve(model, images, labels, order, steps), N_STEPS, 0.65 if n_patches == N_STEPS else None
        ),
    }


def main() -> None:
    """Measure and print the table."""
    quick = {"models": "B/32", "batch": 4, "seconds": 3.0}
    parser = options(__doc__ or "", quick, models="B/32,B/16", batch=32, seconds=60.0)
    arguments = parse(parser)
    keep_freed_memory()
    header = ("task", "model", "ms per image", "plain pass, ms per image", "ratio", "target")
    report = Report("explanations", header, arguments)
    for model in arguments.models.split(","):
        tasks = contenders(ARCHITECTURES[model], arguments.batch, arguments.device)
        for name, (n_passes, target, runs) in tasks.items():
            with torch.no_grad():
                seconds = paired_seconds(runs, arguments.seconds)
            each = [1000 * statistics.median(seconds[who]) / arguments.batch for who in ("ours", "base")]
            relative = ratio(seconds, "ours", "base") / n_passes
            goal = "–" if target is None else target
            report.row(name, model, f"{each[0]:.1f}", f"{each[1]:.1f}", f"{relative:.3f}", goal)
    report.finish()


if __name__ == "__main__":
    main()

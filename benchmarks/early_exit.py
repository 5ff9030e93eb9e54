"""What early exit really saves: time against depth, each as a share of the whole model's.

    python benchmarks/early_exit.py [--model emoji-vit] [--n 500] [--threads 2] [--seconds 60] [--markdown]

Thresholds are calibrated on other scenes than those that are timed, for a loss of one point of accuracy. A row gives
the accuracy, the mean depth as a share of all blocks, and the time as a share of the whole model's on the same images;
times are measured alternately in one run. "never" is a threshold that no image passes: what the readouts and the steps
block by block cost. Batches differ in what is left of them: few images in a step use the processor badly.
"""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import torch
from report import Report, options, parse
from timing import paired_seconds, ratio
from torch import Tensor

from analyses.data import EmojiScenes
from analyses.early_exit import (
    ClassSpaceReadout,
    ExitRule,
    Readout,
    calibrate,
    early_exit_logits,
    fit_exit_probes,
    margin,
)
from analyses.tuned_lens import fit_tuned_lens
from hooked_vit import HookedViT, keep_freed_memory


@torch.no_grad()
def calibrated(model: HookedViT, readout: Readout, scenes: EmojiScenes) -> ExitRule:
    """The rule by margin that costs a point of accuracy on these scenes."""
    batch = scenes.batch(range(len(scenes)))
    logits, cache = model.run_with_cache(batch.images, names_filter="resid_post")
    last = model.cfg.n_layers - 1
    outputs = [readout.class_logits(model, cache["resid_post", layer], layer) for layer in range(last)]
    class_logits = torch.stack([*outputs, logits])
    correct = class_logits.argmax(dim=-1) == batch.labels[:, 0]
    return ExitRule(calibrate(margin(class_logits), correct), readout=readout)


@torch.no_grad()
def whole(model: HookedViT, batches: list[Tensor]) -> Tensor:
    """The logits of the whole model."""
    return torch.cat([model(images) for images in batches])


def main() -> None:
    """Measure and print the table."""
    quick = {"seconds": 5.0, "n": 100}
    arguments = parse(options(__doc__ or "", quick, model="emoji-vit", n=500, seconds=60.0))
    keep_freed_memory()
    model = HookedViT.from_pretrained(arguments.model)
    fitted, held_out = EmojiScenes(arguments.n, seed=1), EmojiScenes(arguments.n, seed=3)
    scenes = EmojiScenes(arguments.n, seed=2).batch(range(arguments.n))
    labels = scenes.labels[:, 0]
    readouts: dict[str, Readout] = {
        "class space": ClassSpaceReadout(),
        "tuned lens": ClassSpaceReadout(fit_tuned_lens(model, fitted, tokens="read")),
        "linear probes": fit_exit_probes(model, fitted),
    }
    rules = {name: calibrated(model, readout, held_out) for name, readout in readouts.items()}
    rules["class space, never"] = ExitRule(inf)
    report = Report(
        "early-exit", ("batch", "exit by", "accuracy", "depth / all blocks", "time / whole model"), arguments
    )
    for size in (1, 32, arguments.n):
        timed = scenes.images[: min(arguments.n, 20 if size == 1 else 32 if size == 32 else arguments.n)]
        batches = list(timed.split(size))
        contenders: dict[str, Callable[[], Any]] = {"whole model": partial(whole, model, batches)}
        for name, rule in rules.items():
            contenders[name] = partial(_all, model, batches, rule)
        found = paired_seconds(contenders, arguments.seconds / 3)
        for name in contenders:
            run = None if name == "whole model" else early_exit_logits(model, scenes.images, rules[name])
            logits = whole(model, [scenes.images]) if run is None else run.class_logits
            accuracy = 100 * float((logits.argmax(dim=-1) == labels).double().mean())
            depth = 1.0 if run is None else early_exit_logits(model, timed, rules[name]).mean_depth / model.cfg.n_layers
            report.row(size, name, f"{accuracy:.1f}", f"{depth:.2f}", f"{ratio(found, name, 'whole model'):.2f}")
    report.finish()


def _all(model: HookedViT, batches: list[Tensor], rule: ExitRule) -> None:
    for images in batches:
        early_exit_logits(model, images, rule)


if __name__ == "__main__":
    main()

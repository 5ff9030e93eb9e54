"""Activation patching against TransformerLens's `generic_activation_patch`, one full pass per patch, on the same model.

    python benchmarks/patching.py [--models B/32] [--sweeps resid_pre,z] [--threads 2] [--seconds 120] [--quick]

One pair of images, random weights, 1000 classes: layer × token of `resid_pre`, and layer × head of `z`. Ratios are of
times measured alternately in one run; the results of both are compared, too. Attribution patching, which estimates
the same numbers, is timed as well. On a machine with a GPU: --device cuda. Targets: 3 on two cores, 20 on a GPU.
"""

import itertools
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import timm
import torch
from report import Report, options, parse
from timing import paired_seconds, ratio
from torch import Tensor
from transformer_lens import patching

from analyses.patching import PatchStream, activation_patching, attribution_patching, logit_difference
from hooked_vit import HookedViT, keep_freed_memory

ARCHITECTURES = {"B/32": "vit_base_patch32_224", "B/16": "vit_base_patch16_224"}
SETTERS = {
    "resid_pre": patching.layer_pos_patch_setter, "z": patching.layer_head_vector_patch_setter,
}  # fmt: skip


def contenders(
    name: str, stream: PatchStream, device: str, memory_limit: float | None, layers: list[int], every: int
) -> dict[str, Callable[[], Any]]:
    """The contenders: functions that return the values of the sweep, [layer token] or [layer head]."""
    patching.tqdm = lambda rows: rows  # no bar between the table's rows
    torch.manual_seed(0)
    model: Any = HookedViT.from_timm(timm.create_model(name).eval()).to(device)
    clean, corrupt = (torch.randn(1, 3, 224, 224, device=device) for _ in range(2))
    metric = logit_difference(3, against=14)
    places = list(range(0, model.cfg.n_ctx if stream == "resid_pre" else model.cfg.n_heads, every))
    choice: Any = {"layers": layers, ("tokens" if stream == "resid_pre" else "heads"): places}

    def loop() -> Tensor:
        cache = model.run_with_cache(clean, names_filter=stream)[1]
        # without an index it would take the image's width for the number of tokens
        index = pd.DataFrame(list(itertools.product(layers, places)), columns=["layer", "place"])
        patch: Any = patching.generic_activation_patch
        return patch(model, corrupt, cache, metric, SETTERS[stream], stream, index_df=index).unflatten(
            0, (len(layers), -1)
        )

    return {
        "TransformerLens": loop,
        "hooked_vit": lambda: (
            activation_patching(model, clean, corrupt, metric, stream, memory_limit=memory_limit, **choice).values
        ),
        "attribution": lambda: attribution_patching(model, clean, corrupt, metric, stream, **choice).values,
    }


def _keep(name: str, run: Callable[[], Tensor], results: dict[str, Tensor]) -> None:
    results[name] = run()


def main() -> None:
    """Measure and print the table."""
    quick = {"layers": "1,7", "every": 6, "seconds": 4.0, "rounds": 1}
    parser = options(__doc__ or "", quick, models="B/32", sweeps="resid_pre,z", seconds=120.0, rounds=3, every=1,
                     layers=",".join(map(str, range(12))), memory_limit=0.0)  # fmt: skip
    arguments = parse(parser)
    keep_freed_memory()
    header = ("sweep", "model", "patches", "TransformerLens, s", "hooked_vit, s", "times faster", "largest difference",
              "attribution, s")  # fmt: skip
    report = Report("patching", header, arguments)
    layers, limit = [int(layer) for layer in arguments.layers.split(",")], arguments.memory_limit or None
    for model in arguments.models.split(","):
        for stream in arguments.sweeps.split(","):
            runs = contenders(ARCHITECTURES[model], stream, arguments.device, limit, layers, arguments.every)
            results: dict[str, Tensor] = {}
            kept: dict[str, Callable[[], object]] = {
                name: partial(_keep, name, run, results) for name, run in runs.items()
            }
            with torch.no_grad():
                seconds = paired_seconds(kept, arguments.seconds, rounds=(arguments.rounds, 60))
            expected, found = results["TransformerLens"], results["hooked_vit"]
            times = {name: f"{statistics.median(one):.2f}" for name, one in seconds.items()}
            faster = f"{ratio(seconds, 'TransformerLens', 'hooked_vit'):.2f}"
            difference = f"{(expected - found).abs().max().item():.1e}"
            report.row(stream, model, expected.numel(), times["TransformerLens"], times["hooked_vit"], faster,
                       difference, times["attribution"])  # fmt: skip
    report.finish()


if __name__ == "__main__":
    main()

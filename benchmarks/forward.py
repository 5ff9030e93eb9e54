"""Forward passes, with and without a cache, as ratios to timm's own fused forward pass measured in the same run.

    python benchmarks/forward.py [--models B/32,B/16] [--batches 1,8,32] [--threads 2] [--seconds 10] [--markdown]

Medians of interleaved pairs of runs. Freed memory is kept (see `hooked_vit.keep_freed_memory`) for all contenders;
`fresh memory` is hooked_vit and timm without that. `GB held` is what hooked_vit's cache keeps alive.

Peers (`pip install -e .[bench]`): TransformerLens's ViT bridge (on the Hugging Face ViT of the same size) and nnsight
(on the timm module). On a machine with a GPU: --device cuda --batches 1,32,256 --dtype float32 or bfloat16.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from report import Report, options, parse
from timing import paired_seconds, ratio

from hooked_vit import HookedViT, keep_freed_memory

ARCHITECTURES = {"B/32": "vit_base_patch32_224", "B/16": "vit_base_patch16_224"}
TARGETS = {"forward": 1.02, "everything cached": 1.10, "lean cache": 1.03, "12 residual streams": 1.02}


def transformer_lens_bridge(name: str, device: str, dtype: torch.dtype) -> Any:
    """TransformerLens's bridge over a randomly initialised Hugging Face ViT of the same size."""
    try:
        from transformer_lens import TransformerBridge
        from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
    except ImportError:
        return None
    config: Any = ViTConfig(patch_size=32 if "32" in name else 16)
    config.num_labels, config.architectures = 1000, ["ViTForImageClassification"]
    module: Any = ViTForImageClassification(config).eval()
    module.to(device, dtype)
    # a folder with config and processor: by a name, it would ask the hub for them
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        ViTImageProcessor().save_pretrained(folder)
        return TransformerBridge.boot_transformers(folder, hf_model=module, device=device, dtype=dtype)


def nnsight_model(module: torch.nn.Module) -> object | None:
    """nnsight around the timm module."""
    try:
        from nnsight import NNsight  # pyright: ignore[reportMissingImports]  (in the extra [bench])
    except ImportError:
        return None
    return NNsight(module)


def nnsight_streams(model: object, images: torch.Tensor) -> list[torch.Tensor]:
    """The output of each block, saved by nnsight."""
    with model.trace(images):  # type: ignore[attr-defined]
        streams = list().save()  # type: ignore[attr-defined]  # noqa: C408  (nnsight saves what was made within)
        for block in model.blocks:  # type: ignore[attr-defined]
            streams.append(block.output)
    return streams


def nnsight_forward(model: object, images: torch.Tensor) -> object:
    """A forward pass under nnsight that saves the logits alone."""
    with model.trace(images):  # type: ignore[attr-defined]
        logits = model.output.save()  # type: ignore[attr-defined]
    return logits


def contenders(name: str, batch: int, device: str, dtype: torch.dtype) -> dict[str, dict[str, Callable[[], object]]]:
    """For each task, its contenders."""
    module = timm.create_model(name).eval().to(device, dtype)
    ours = HookedViT.from_timm(module)
    images = torch.randn(batch, 3, 224, 224, device=device, dtype=dtype)
    bridge, sight = transformer_lens_bridge(name, device, dtype), nnsight_model(module)
    tasks: dict[str, dict[str, Callable[[], object]]] = {
        "forward": {"timm": lambda: module(images), "hooked_vit": lambda: ours(images)},
        "everything cached": {"timm": lambda: module(images), "hooked_vit": lambda: ours.run_with_cache(images)},
        "lean cache": {"timm": lambda: module(images), "hooked_vit": lambda: ours.run_with_cache(images, lean=True)},
        "12 residual streams": {
            "timm": lambda: module(images),
            "hooked_vit": lambda: ours.run_with_cache(images, names_filter="resid_post"),
        },
    }
    if bridge is not None:
        streams = [f"blocks.{layer}.hook_resid_post" for layer in range(12)]
        tasks["forward"]["TransformerLens"] = lambda: bridge(images)
        tasks["everything cached"]["TransformerLens"] = lambda: bridge.run_with_cache(images)
        tasks["12 residual streams"]["TransformerLens"] = lambda: bridge.run_with_cache(images, names_filter=streams)
    if sight is not None:
        tasks["forward"]["nnsight"] = lambda: nnsight_forward(sight, images)
        tasks["12 residual streams"]["nnsight"] = lambda: nnsight_streams(sight, images)
    return tasks


def import_seconds(statement: str, repeats: int = 5) -> float:
    """Median seconds that a fresh interpreter takes for an import statement."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measured(runs: dict[str, Callable[[], object]], budget: float) -> tuple[dict[str, list[float]], float]:
    """Seconds of all contenders with memory kept, and the ratio of hooked_vit to timm without."""
    with torch.no_grad():
        with keep_freed_memory():
            seconds = paired_seconds(runs, 0.7 * budget)
        fresh = paired_seconds({name: runs[name] for name in ("timm", "hooked_vit")}, 0.3 * budget)
    return seconds, ratio(fresh, "hooked_vit", "timm")


def bytes_held(run: Callable[[], Any]) -> str:
    """Gigabytes that a run's cache keeps alive; a dash without a cache."""
    with torch.no_grad():
        result = run()
    return f"{result[1].nbytes / 1e9:.2f}" if isinstance(result, tuple) else "–"


def main() -> None:
    """Measure and print the tables."""
    quick = {"models": "B/32", "batches": "8", "seconds": 5.0, "skip_import": True}
    parser = options(__doc__ or "", quick, models="B/32,B/16", batches="1,8,32", seconds=10.0, dtype="float32")
    parser.add_argument("--skip-import", action="store_true")
    arguments = parse(parser)
    columns = ("hooked_vit", "TransformerLens", "nnsight")
    header = ("task", "model", "batch", "timm, images/s", "target", *columns, "fresh memory", "GB held")
    report = Report("forward", header, arguments)
    for model in arguments.models.split(","):
        for batch in map(int, arguments.batches.split(",")):
            tasks = contenders(ARCHITECTURES[model], batch, arguments.device, getattr(torch, arguments.dtype))
            for task, runs in tasks.items():
                seconds, fresh = measured(runs, arguments.seconds)
                ratios = [f"{ratio(seconds, name, 'timm'):.3f}" if name in seconds else "–" for name in columns]
                speed = batch / statistics.median(seconds["timm"])
                held = bytes_held(runs["hooked_vit"])
                report.row(task, model, batch, f"{speed:.1f}", TARGETS[task], *ratios, f"{fresh:.3f}", held)
            del tasks
    report.finish()
    if not arguments.skip_import:
        for statement in ("import hooked_vit", "import timm, transformer_lens"):
            print(f"{statement}: {import_seconds(statement):.1f} s", flush=True)


if __name__ == "__main__":
    main()

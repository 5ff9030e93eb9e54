"""Forward passes, with and without a cache, as ratios to timm's own fused forward pass measured in the same run.

    python benchmarks/forward.py [--models B/32,B/16] [--batches 1,8,32] [--threads 2] [--seconds 60] [--markdown]

Peers (`pip install -e .[bench]`): TransformerLens's ViT bridge (on the Hugging Face ViT of the same size) and nnsight
(on the timm module). On a machine with a GPU: --device cuda --batches 1,32,256 --dtype float32 or bfloat16.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from rich.console import Console
from tables import print_table
from timing import paired_seconds, ratio

from hooked_vit import HookedViT

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # TransformerLens would ask the hub about a model that does not exist
ARCHITECTURES = {"B/32": "vit_base_patch32_224", "B/16": "vit_base_patch16_224"}
TARGETS = {"forward": 1.02, "everything cached": 1.10, "12 residual streams": 1.02}


def distinct_bytes(cache: object) -> int:
    """Bytes of memory that the tensors of a cache keep alive, shared storage counted once."""
    storages = [tensor.untyped_storage() for tensor in cache.values()]  # type: ignore[attr-defined]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def transformer_lens_bridge(name: str, device: str, dtype: torch.dtype) -> Any:
    """TransformerLens's bridge over a randomly initialised Hugging Face ViT of the same size."""
    try:
        from transformer_lens import TransformerBridge
        from transformers import ViTConfig, ViTForImageClassification
    except ImportError:
        return None
    config: Any = ViTConfig(patch_size=32 if "32" in name else 16)
    config.num_labels, config.architectures = 1000, ["ViTForImageClassification"]
    module: Any = ViTForImageClassification(config).eval()
    module.to(device, dtype)
    return TransformerBridge.boot_transformers(
        "a-randomly-initialised-vit", hf_model=module, device=device, dtype=dtype
    )


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


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="B/32,B/16")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60, help="time for each row of the table, at least 3 rounds")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--skip-import", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    columns = ("hooked_vit", "TransformerLens", "nnsight")
    header, rows = ("task", "model", "batch", "timm, images/s", "target", *columns), []
    for model in arguments.models.split(","):
        for batch in map(int, arguments.batches.split(",")):
            tasks = contenders(ARCHITECTURES[model], batch, arguments.device, getattr(torch, arguments.dtype))
            for task, runs in tasks.items():
                with torch.no_grad():
                    seconds = paired_seconds(runs, arguments.seconds)
                ratios = [f"{ratio(seconds, name, 'timm'):.3f}" if name in seconds else "–" for name in columns]
                speed = batch / statistics.median(seconds["timm"])
                rows.append((task, model, str(batch), f"{speed:.1f}", str(TARGETS[task]), *ratios))
                Console(stderr=True).print(task, model, batch, *ratios)
            if model == "B/32" and batch == 32:
                with torch.no_grad():
                    _, cache = tasks["everything cached"]["hooked_vit"]()  # type: ignore[misc]
                Console().print(
                    f"everything cached, B/32 batch 32: {distinct_bytes(cache) / 1e9:.2f} GB of distinct storage"
                )
                del cache
            del tasks
    print_table(header, rows, "time over timm's fused forward pass", arguments.markdown)
    if not arguments.skip_import:
        both, ours = import_seconds("import timm, transformer_lens"), import_seconds("import hooked_vit")
        Console().print(f"import timm, transformer_lens: {both:.2f} s; import hooked_vit: {ours:.2f} s")


if __name__ == "__main__":
    main()

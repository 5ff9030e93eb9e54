"""A sweep against timm's plain forward pass, the projection against its matrix product, and memory over a dataset.

    python benchmarks/sweep.py [--models B/32,B/16] [--batch 16] [--threads 2] [--seconds 60] [--quick]

Ratios are of times measured alternately in one run, with random weights and 1000 classes (targets: 1.6 and 1.15).
`a batch` is what each batch costs: the forward pass with its cache, every analysis, and their totals. `all of it` is
the sweep of `--images` images from the first to the last line, tables and their bootstrap intervals included.
On a machine with a GPU: --device cuda.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable

import timm
import torch
from report import Report, options, parse
from timing import paired_seconds, ratio
from torch import Tensor

from analyses.analysis import Analysis
from analyses.categorical_updates import CategoricalUpdates
from analyses.data import ItemReader
from analyses.identifiability import Identifiability
from analyses.projection import project
from analyses.sweep import Accuracy, sweep
from analyses.sweep.run import run_batch
from analyses.sweep.share import Share
from hooked_vit import HookedViT, keep_freed_memory

ARCHITECTURES = {"B/32": "vit_base_patch32_224", "B/16": "vit_base_patch16_224"}
TARGETS = {"a batch": 1.6, "all of it": 1.6, "projection with rank": 1.15, "with rank and top class": "–"}
MEMORY_TARGET = 50


class NoiseImages(torch.utils.data.Dataset):
    """Any number of images, none of which is kept."""

    def __init__(self, n: int, n_made: int = 0):
        self.n = n
        self.made = torch.randn(n_made, 3, 224, 224)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        if len(self.made):
            image = self.made[index % len(self.made)]
        else:
            image = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(index))
        return image, index % 1000, image[0] > 0


def analyses() -> dict[str, Analysis]:
    """Identifiability, categorical updates and composition, over every block."""
    return {"accuracy": Accuracy(), "identifiability": Identifiability(), "updates": CategoricalUpdates()}


def contenders(name: str, batch: int, n_images: int, device: str) -> dict[str, dict[str, Callable[[], object]]]:
    """For each task, our run and the base run."""
    module = timm.create_model(name).eval().to(device)
    model = HookedViT.from_timm(module)
    dataset = NoiseImages(n_images, batch)
    read = ItemReader(dataset, model.cfg, model.data_config).__getitems__(range(batch))
    assert read.images is not None
    images = read.images.to(device)
    named = {key: one.to(device) for key, one in analyses().items()}
    names = model.hook_names([point for one in named.values() for point in one.names(model.cfg)])

    def one_batch() -> None:
        of_batch = run_batch(model, names, read)
        for one in named.values():
            one.update(of_batch)
        Share().add_batch(0, named, ())

    def whole_sweep() -> None:
        mine = {key: one for key, one in analyses().items() if key != "accuracy"}
        sweep(model, dataset, mine, batch, progress=False)

    def plain(n_batches: int) -> None:
        for _ in range(n_batches):
            module(images)

    _, cache = model.run_with_cache(images, names_filter="resid_post")
    labels, W_U = read.labels.to(device), model.W_U
    rows = [cache["resid_post", layer].flatten(0, 1) for layer in range(model.cfg.n_layers)]
    product = {"base": lambda: [of_layer @ W_U for of_layer in rows]}
    return {
        "a batch": {"ours": one_batch, "base": lambda: plain(1)},
        "all of it": {"ours": whole_sweep, "base": lambda: plain(-(-n_images // batch))},
        "projection with rank": {"ours": lambda: project(model, cache, "resid_post", labels, k=0), **product},
        "with rank and top class": {"ours": lambda: project(model, cache, "resid_post", labels, k=1), **product},
    }


def memory_growth(name: str, batch: int, threads: int, few: int, many: int) -> float:
    """Growth in MB of a process's peak memory, from a sweep of few images to one of many."""
    code = f"""
import resource, sys, tempfile
sys.path.insert(0, {sys.path[0]!r})
import timm, torch
from sweep import HookedViT, NoiseImages, analyses, sweep
torch.set_num_threads({threads})
model = HookedViT.from_timm(timm.create_model({name!r}))
def peak(n):
    mine = {{key: one for key, one in analyses().items() if key != "accuracy"}}
    with tempfile.TemporaryDirectory() as out:
        sweep(model, NoiseImages(n), mine, {batch}, out, progress=False, checkpoint_every=2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
first = peak({few}); print((peak({many}) - first) / 1024)
"""
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure and print the tables."""
    quick = {"models": "B/32", "images": 64, "seconds": 4.0, "memory": ""}
    parser = options(__doc__ or "", quick, models="B/32,B/16", batch=16, images=512, seconds=60.0, memory="200,2000")
    arguments = parse(parser)
    keep_freed_memory()
    header = ("task", "model", "ours, ms per image", "base, ms per image", "ratio", "target")
    report = Report("sweep", header, arguments)
    for model in arguments.models.split(","):
        tasks = contenders(ARCHITECTURES[model], arguments.batch, arguments.images, arguments.device)
        for task, runs in tasks.items():
            with torch.no_grad():
                # a whole sweep is long enough to be measured once, next to one of plain passes
                rounds = (1, 3) if task == "all of it" else (3, 60)
                seconds = paired_seconds(runs, arguments.seconds, rounds)
            n_images = arguments.images if task == "all of it" else arguments.batch
            each = [f"{1000 * statistics.median(seconds[who]) / n_images:.1f}" for who in ("ours", "base")]
            report.row(task, model, *each, f"{ratio(seconds, 'ours', 'base'):.3f}", TARGETS[task])
        del tasks
    if arguments.memory:
        few, many = map(int, arguments.memory.split(","))
        growth = memory_growth(ARCHITECTURES["B/32"], arguments.batch, arguments.threads, few, many)
        task = f"peak memory, {few} to {many} images"
        report.row(task, "B/32", "–", "–", f"{growth:+.0f} MB", f"{MEMORY_TARGET} MB")
    report.finish()


if __name__ == "__main__":
    main()

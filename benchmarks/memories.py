"""Key-value memories against the published loops, and what they add to a sweep, as ratios measured in one run.

    python benchmarks/memories.py [--model B/32] [--batch 16] [--threads 2] [--seconds 60] [--quick]

`one layer` is agreement and compositionality of one MLP, coefficients and projected outputs given, against loops over
images, tokens and memories as in the published code (targets: a twelfth of their time, 0.3 ms per image). `added to a
sweep` is what KeyValueAgreement and Compositionality add to a batch, over a plain forward pass of timm's model:
alone, and next to CategoricalUpdates, which projects the same outputs (target: 0.3). Weights are random, with 1000
classes. On a machine with a GPU: --device cuda.
"""

import statistics
from collections.abc import Callable

import timm
import torch
from report import Report, options, parse
from sweep import NoiseImages
from timing import paired_seconds
from torch import Tensor

from analyses.analysis import Analysis
from analyses.categorical_updates import CategoricalUpdates
from analyses.data import ItemReader
from analyses.memory_pairs import Compositionality, KeyValueAgreement, MemoryTables, first_match
from analyses.sweep.run import run_batch
from hooked_vit import HookedViT, keep_freed_memory

ARCHITECTURES = {"B/32": "vit_base_patch32_224", "B/16": "vit_base_patch16_224"}
Contenders = dict[str, Callable[[], object]]


def loops(coefficients: Tensor, logits: Tensor, labels: list[int], predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Agreement, and whether one memory predicts the output, one image at a time as in the published code."""
    of_class, class_of = logits.topk(5, dim=0).indices.T, logits.topk(1, dim=1).indices.squeeze()
    agreement = []
    for image, label in enumerate(labels):
        called = coefficients[image : image + 1].topk(5, dim=-1).indices
        agreement.append(torch.isin(called, of_class[label]).any(dim=-1))
    match = []
    called = coefficients.topk(5, dim=-1).indices
    for image in range(len(called)):
        for token in range(called.shape[1]):
            for place in range(5):
                called[image, token, place] = class_of[called[image, token, place]]
    for image in range(len(called)):
        for token in range(called.shape[1]):
            match.append(torch.isin(called[image, token], predicted[image, token]))
    return torch.cat(agreement), torch.stack(match).view(called.shape).any(dim=-1)


def one_layer(model: HookedViT, images: Tensor, labels: Tensor) -> Contenders:
    """Agreement and compositionality of the MLP of block 10, by look-up and by loops; both must agree."""
    _, cache = model.run_with_cache(images, names_filter=["blocks.10.mlp.hook_pre", "blocks.10.hook_mlp_out"])
    coefficients = cache["blocks.10.mlp.hook_pre"]
    predicted = model.class_logits(cache["blocks.10.hook_mlp_out"]).argmax(dim=-1)
    tables, logits = MemoryTables(model, "mlp"), model.class_logits(model.blocks[10].mlp.W_out, False, False)

    def look_up() -> tuple[Tensor, Tensor]:
        called = coefficients.topk(5, dim=-1).indices
        return tables.agrees(10, called, labels), first_match(tables, 10, called, predicted) < 5

    def by_loops() -> tuple[Tensor, Tensor]:
        return loops(coefficients, logits, labels.tolist(), predicted)

    for ours, theirs in zip(look_up(), by_loops(), strict=True):
        assert torch.equal(ours, theirs)
    return {"ours": look_up, "loops": by_loops}


def added(module: torch.nn.Module, model: HookedViT, batch: int) -> Contenders:
    """A plain forward pass, and a batch of sweeps with different analyses."""
    read = ItemReader(NoiseImages(batch, batch), model.cfg, model.data_config).__getitems__(range(batch))
    assert read.images is not None
    images = read.images.to(model.cfg.device)

    def of(analyses: list[Analysis]) -> Callable[[], object]:
        for analysis in analyses:
            analysis.to(model.cfg.device)
        names = [point for analysis in analyses for point in analysis.names(model.cfg)]

        def one_batch() -> None:
            of_batch = run_batch(model, names, read)
            for analysis in analyses:
                analysis.update(of_batch)
                analysis.reset()

        return one_batch

    pairs = {
        "": list,
        " before f": lambda: [KeyValueAgreement(coefficients=["pre"]), Compositionality(coefficients=["pre"])],
        " both": lambda: [KeyValueAgreement(), Compositionality()],
    }
    runs: Contenders = {"forward": lambda: module(images)}
    for name, make in pairs.items():
        runs[f"alone{name}"] = of(make())
        runs[f"with updates{name}"] = of([CategoricalUpdates(), *make()])
    return runs


def main() -> None:
    """Measure and print."""
    parser = options(__doc__ or "", {"batch": 4, "seconds": 4.0}, model="B/32", batch=16, seconds=60.0)
    arguments = parse(parser)
    keep_freed_memory()
    report = Report("memories", ("what", f"{arguments.model}, batch {arguments.batch}", "target"), arguments)

    module = timm.create_model(ARCHITECTURES[arguments.model]).eval().to(arguments.device)
    model, batch = HookedViT.from_timm(module), arguments.batch
    labels = torch.arange(batch, device=arguments.device) * 7 % 1000
    with torch.no_grad():
        images = torch.randn(batch, 3, 224, 224, device=arguments.device)
        seconds = paired_seconds(one_layer(model, images, labels), arguments.seconds, (3, 60))
        ours, theirs = (1000 * statistics.median(seconds[name]) / batch for name in ("ours", "loops"))
        times = statistics.median(b / a for a, b in zip(seconds["ours"], seconds["loops"], strict=True))
        report.row("one layer, ms per image", f"{ours:.3f}; loops {theirs:.2f}", "0.3; 2.9")
        report.row("one layer, times faster than the loops", f"{times:.0f}", "12")
        seconds = paired_seconds(added(module, model, batch), arguments.seconds, (3, 60))
        for base in ("alone", "with updates"):
            for kind, words in ((" before f", "coefficients before f"), (" both", "before and after f")):
                rounds = zip(seconds[base + kind], seconds[base], seconds["forward"], strict=True)
                share = statistics.median((a - b) / plain for a, b, plain in rounds)
                where = "alone in a sweep" if base == "alone" else "next to CategoricalUpdates"
                report.row(f"added {where}, {words}, forward passes", f"{share:.2f}", "0.3")
    report.finish()


if __name__ == "__main__":
    main()

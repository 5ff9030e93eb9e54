"""Training dictionaries against the bare forward pass, its memory, and what a spliced dictionary costs.

    python benchmarks/dictionaries.py [--threads 2] [--batch 64] [--rounds 5] [--kinds batch_topk,topk] [--quick]

`training` is pictures per second of `train_dictionary` once it has started, over those of the model's forward pass up
to the same layer on the same pictures in the same batches (target: 0.7), for emoji-vit and for a ViT-B/32 of random
weights, with 16 d_model latents. Starting is given in seconds: the weights of the model are hashed for the record, and
the first activations measured. Pictures are tensors in memory, so neither side reads files. `memory` is the largest
resident size of the process after training on four times as many pictures, over that after the first training (target:
1). `spliced` is a run with the latents of one layer cached, over a plain run plus the dictionary's own products on the
same activations (target: 1.1); with the error kept, with an edit of the latents, and with the error dropped.
"""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from report import Report, options, parse
from timing import paired_seconds, synchronise
from torch import Tensor

from analyses.dictionaries import Dictionary, DictionaryConfig, random_dictionary, train_dictionary
from hooked_vit import HookedViT, keep_freed_memory
from hooked_vit.splicing import ErrorTerm

LAYERS = {"emoji-vit": (3, 5, 7), "B/32": (5, 11)}


class Tensors:
    """Pictures of noise in memory, repeated: `n` items from a few tensors."""

    def __init__(self, images: Tensor, n: int):
        self._images, self._n = images, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._images[index % len(self._images)], 0


def loaded(name: str, device: str) -> HookedViT:
    """A model by its name here."""
    if name == "B/32":
        return HookedViT.from_timm(timm.create_model("vit_base_patch32_224").eval()).to(device)
    return HookedViT.from_pretrained(name, device=device)


def stamped(times: list[float]) -> Callable[[object], None]:
    """A function that notes when it is called."""
    return lambda losses: times.append(time.perf_counter())


def training(
    model: HookedViT, images: Tensor, layer: int, kind: Any, n: int, batch: int, rounds: int
) -> tuple[float, float, float]:
    """Seconds per picture of the forward pass and of training, and seconds that training takes to start.

    Training fills its buffer four times with `n` pictures each; what is timed is from the end of the first filling to
    the end of the last. In between, the forward pass alone runs on as many pictures.
    """
    forward: list[float] = []
    steady: list[float] = []
    start_up: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        for first in range(0, 2 * n, batch):
            model(images[[i % len(images) for i in range(first, min(first + batch, 2 * n))]], stop_at_layer=layer + 1)
        synchronise()
        forward.append((time.perf_counter() - start) / (2 * n))
        times: list[float] = []
        start = time.perf_counter()
        with torch.enable_grad():
            train_dictionary(
                model, Tensors(images.cpu(), 4 * n), "resid_post", layer, kind=kind, batch_size=batch, progress=False,
                buffer_size=n * model.cfg.n_ctx, on_chunk=stamped(times),
            )  # fmt: skip
        steady.append((times[-1] - times[0]) / (3 * n))
        start_up.append(times[0] - start - n * steady[-1])
    share = statistics.median(a / b for a, b in zip(forward, steady, strict=True))
    return share, 1 / statistics.median(steady), statistics.median(start_up)


def spliced(model: HookedViT, images: Tensor, layer: int) -> dict[str, Callable[[], object]]:
    """A plain run, the dictionary's products, and spliced runs."""
    point, width = f"blocks.{layer}.hook_resid_post", model.cfg.d_model
    like = Dictionary(DictionaryConfig("topk", width, width, 16 * width, point, point, k=32))
    dictionary = random_dictionary(like).to(images.device)
    _, cache = model.run_with_cache(images, names_filter=[point])
    x, latents = cache[point], f"{point}.dictionary.hook_latents"

    def within(error: ErrorTerm, run: Callable[[], object]) -> Callable[[], object]:
        def wrapped() -> object:
            with model.spliced({point: dictionary}, error=error):
                return run()

        return wrapped

    def edited() -> object:
        return model.run_with_hooks(images, fwd_hooks=[(latents, lambda value, hook: value.mul_(0.5))])

    return {
        "plain": lambda: model(images),
        "encode": lambda: dictionary.encode(x),
        "decode": lambda: dictionary.decode(dictionary.encode(x)),
        "two decodes": lambda: [dictionary.decode(dictionary.encode(x)), dictionary.decode(cache_of(dictionary, x))],
        "kept, latents cached": within("keep", lambda: model.run_with_cache(images, names_filter=[latents])),
        "kept, latents edited": within("keep", edited),
        "dropped": within("drop", lambda: model(images)),
        "kept, nothing looked at": within("keep", lambda: model(images)),
    }


_LATENTS: dict[int, Tensor] = {}


def cache_of(dictionary: Dictionary, x: Tensor) -> Tensor:
    """The latents of x, encoded once."""
    if id(x) not in _LATENTS:
        _LATENTS[id(x)] = dictionary.encode(x)
    return _LATENTS[id(x)]


def over_sum(seconds: dict[str, list[float]], name: str, parts: list[str]) -> float:
    """Median over rounds of a contender's time over the sum of others' in the same round."""
    sums = [sum(times) for times in zip(*(seconds[part] for part in parts), strict=True)]
    return statistics.median(a / b for a, b in zip(seconds[name], sums, strict=True))


def resident_megabytes() -> float:
    """The largest resident size that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    quick = {"batch": 16, "seconds": 3.0, "models": "emoji-vit", "pictures": 64, "rounds": 2}
    parser = options(
        __doc__ or "",
        quick,
        models="emoji-vit,B/32",
        kinds="batch_topk,topk",
        batch=64,
        seconds=60.0,
        rounds=5,
        pictures=512,
    )
    arguments = parse(parser)
    keep_freed_memory()
    report = Report("dictionaries", ("what", "model", "layer", "measured", "target"), arguments)
    with torch.no_grad():
        for name in arguments.models.split(","):
            model, n = loaded(name, arguments.device), arguments.pictures
            size = model.cfg.image_size
            images = torch.randn(min(n, 256), 3, *size, device=arguments.device)
            n = n if name == "emoji-vit" else max(64, n // 4)
            layers = LAYERS[name][:1] if arguments.quick else LAYERS[name]
            for layer in layers:
                for kind in arguments.kinds.split(","):
                    share, rate, start_up = training(model, images, layer, kind, n, arguments.batch, arguments.rounds)
                    measured = f"{share:.2f} ({rate:,.0f}/s; {start_up:.1f} s to start)"
                    report.row(f"training, {kind}, of the forward pass", name, layer, measured, "0.7")
            first = resident_megabytes()
            with torch.enable_grad():
                train_dictionary(
                    model, Tensors(images.cpu(), 4 * n), "resid_post", layers[0], batch_size=arguments.batch,
                    buffer_size=min(65536, n * model.cfg.n_ctx), progress=False,
                )  # fmt: skip
            report.row("memory, four times the pictures", name, layers[0], f"{resident_megabytes() / first:.2f}", "1")
            layer = model.cfg.n_layers // 2
            seconds = paired_seconds(spliced(model, images[: arguments.batch], layer), arguments.seconds, (3, 30))
            for run, products in (
                ("kept, nothing looked at", []),
                ("kept, latents cached", ["encode"]),
                ("dropped", ["decode"]),
                ("kept, latents edited", ["two decodes"]),
            ):
                share = over_sum(seconds, run, ["plain", *products])
                plain = over_sum(seconds, run, ["plain"])
                report.row(f"spliced, {run}", name, layer, f"{share:.2f} ({plain:.2f} plain runs)", "1.1")
    report.finish()


if __name__ == "__main__":
    main()

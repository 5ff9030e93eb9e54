"""Training dictionaries on the activations of a model, several layers in one forward pass; resumable."""

from collections.abc import Callable, Mapping, Sequence
from operator import index as whole_number
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import torch

from analyses.data.dataset import LabelledImages
from analyses.dictionaries.dictionary import Dictionary, DictionaryConfig, Kind
from analyses.dictionaries.scores.fidelity import mean_l0
from analyses.dictionaries.training.checkpoints import TrainingFolder, settings_of
from analyses.dictionaries.training.fitting import DictionaryFit, FitOptions
from analyses.dictionaries.training.streaming import ActivationStream, Chunk
from analyses.progress import progress_bar
from hooked_vit import HookedViT, keep_freed_memory
from hooked_vit.splicing import activation_width

__all__ = ["train_dictionary"]

_WITH_K = ("topk", "batch_topk", "matryoshka")
_WIDER = 16


def train_dictionary(
    model: HookedViT,
    dataset: LabelledImages,
    stream: str,
    layers: SupportsIndex | Sequence[SupportsIndex],
    *,
    writes: str | None = None,
    kind: Kind = "topk",
    d_dict: int | None = None,
    k: int = 32,
    group_sizes: Sequence[int] = (),
    tokens: str = "any",
    options: FitOptions | None = None,
    seed: int = 0,
    epochs: int = 1,
    batch_size: int = 64,
    step_size: int = 2048,
    buffer_size: int = 65536,
    out: str | Path | None = None,
    resume: bool = True,
    checkpoint_seconds: float | int = 60,
    on_error: Literal["raise", "skip"] = "raise",
    on_chunk: Callable[[Mapping[str, Any]], object] | None = None,
    progress: bool | None = None,
) -> Any:
    """Train a sparse dictionary, or one per layer, on the activations of a model.

    The forward pass stops after the last layer that is needed. Its activations go through a shuffled buffer of bounded
    size to Adam, and never to the disk. The kinds and their losses are in `objective`; dead latents get the auxiliary
    loss of TopK (`auxiliary_loss`) in every kind.

    Args:
        model: The model.
        dataset: Items are `(image, label)` or `(image, label, mask)`; labels and masks play no part.
        stream: The activation, by its short name: `"resid_post"`, `"mlp_out"`, `"post"`, `"z"`.
        layers: The block, or several, all trained on the same forward passes.
        writes: For a transcoder, the short name of what is reconstructed in the same block: `stream="mlp_in"`,
            `writes="mlp_out"`.
        kind: `"relu"`, `"topk"`, `"batch_topk"`, `"jump_relu"` or `"matryoshka"`.
        d_dict: Number of latents; by default 16 times the width that is read.
        k: Active latents per token, for `topk`, `batch_topk` and `matryoshka`; others follow `options.penalty`.
        group_sizes: The sizes of a matryoshka's prefixes; by default d_dict divided by 16, 8, 4, 2 and 1.
        tokens: The tokens to train on, a group of `hooked_vit.interventions`: `"any"`, `"patch"`, `"cls"`, ...
        options: Learning rate, penalty, treatment of dead latents.
        seed: Seed of the first weights, and of the order of pictures and activations.
        epochs: Passes over the dataset.
        batch_size: Pictures per forward pass.
        step_size: Activations per step of Adam.
        buffer_size: Activations in the buffer.
        out: A folder for the dictionaries, one file per layer, and for checkpoints. A training that was killed
            continues from its last checkpoint and ends with the same weights, bit for bit; a finished one is read.
        resume: Whether to do that; `False` deletes what an earlier training left in the folder.
        checkpoint_seconds: A checkpoint is written at the end of a buffer if the last one is as old as this.
        on_error: `"skip"` leaves out pictures that cannot be read, and counts them in the record.
        on_chunk: Called after each buffer with its mean losses (see `DictionaryFit.step`), `layer` and `pictures`.
        progress: Whether to show a progress bar; by default on a terminal.

    Returns:
        The dictionary, or a list in the order of `layers`. `record` says how it was trained: model, data, options,
        seed, the losses by number of pictures, and `active_as_encoded`, the latents per token that the finished
        dictionary has on the last activations: those of `batch_topk` and `matryoshka` follow from a threshold.

    Raises:
        ValueError: If the model has no such layer or activation, the dataset is empty, the loss is not finite, all
            latents are dead, a picture cannot be read, the folder holds another training, a number is outside its
            range, or a transcoder would write before it reads. Files of an earlier training are deleted only after all
            arguments were checked.

    >>> from analyses.data import EmojiScenes
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> dictionary = train_dictionary(model, EmojiScenes(8, seed=0), "resid_post", 2, d_dict=256, step_size=64)
    >>> dictionary.config.point, dictionary.config.kind, dictionary.record["losses"][-1]["active"]
    ('blocks.2.hook_resid_post', 'topk', 32.0)
    """
    chosen = _layers(layers)
    for name, number in {"epochs": epochs, "batch_size": batch_size, "step_size": step_size}.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if not len(dataset):
        raise ValueError("no activations to train on: the dataset is empty")
    options = options or FitOptions()
    configs = [_config(model, stream, writes, n, kind, d_dict, k, tuple(group_sizes), tokens) for n in chosen]
    if len({config.writes for config in configs}) < len(configs):
        raise ValueError(f"expected one or several layers, each once, got {layers} of {model.cfg.n_layers} blocks")
    _check_order(model, configs[0])
    points = list(dict.fromkeys(name for config in configs for name in (config.reads, config.writes)))
    last = max(layer % model.cfg.n_layers for layer in chosen)
    streamed = ActivationStream(model, dataset, points, last, tokens, epochs, batch_size, buffer_size, seed, on_error)
    settings = settings_of(
        model, dataset, configs, options, {"seed": seed, "epochs": epochs, "batch_size": batch_size,
        "step_size": step_size, "buffer_size": buffer_size, "on_error": on_error},
    )  # fmt: skip
    folder = None if out is None else TrainingFolder(out, [config.writes for config in configs], settings, resume)
    finished = None if folder is None else folder.finished()
    if finished is None:
        fits = [DictionaryFit(config, options, seed, model.cfg.device) for config in configs]
        training = _Training(streamed, fits, settings, folder, step_size, checkpoint_seconds, on_chunk)
        finished = training.run(progress)
    return finished[0] if isinstance(layers, SupportsIndex) else finished


def _layers(layers: SupportsIndex | Sequence[SupportsIndex]) -> list[int]:
    try:
        chosen = [whole_number(layer) for layer in ([layers] if isinstance(layers, SupportsIndex) else layers)]
    except TypeError:
        raise ValueError(f"expected one or several layers as whole numbers, got {layers!r}") from None
    if not chosen:
        raise ValueError(f"expected one or several layers, each once, got {layers}")
    return chosen


@torch.no_grad()
def _check_order(model: HookedViT, config: DictionaryConfig) -> None:
    """That a transcoder reads before it writes, as the model itself runs: it could not be spliced in otherwise."""
    if not config.is_transcoder:
        return
    size, like = model.cfg.image_size, model.embed.weight
    images = torch.zeros(1, model.cfg.n_channels, *size, dtype=like.dtype, device=like.device)
    names = [config.reads, config.writes]
    cache = model.run_with_cache(images, names_filter=names, return_cache_object=False)[1]
    if list(cache) != names:
        raise ValueError(
            f"a transcoder reads before it writes, but '{config.reads}' comes after '{config.writes}': swap the two"
        )


def _config(
    model: HookedViT, stream: str, writes: str | None, layer: int, kind: Kind, d_dict: int | None, k: int,
    group_sizes: tuple[int, ...], tokens: str,
) -> DictionaryConfig:  # fmt: skip
    (reads,) = model.hook_names([(stream, layer)])
    (written,) = (reads,) if writes is None else model.hook_names([(writes, layer)])
    d_in, d_out = activation_width(reads, model), activation_width(written, model)
    n_latents = _WIDER * d_in if d_dict is None else d_dict
    if kind == "matryoshka" and not group_sizes:
        group_sizes = tuple(dict.fromkeys(max(1, n_latents // share) for share in (16, 8, 4, 2, 1)))
    return DictionaryConfig(
        kind, d_in, d_out, n_latents, reads, written, tokens, k if kind in _WITH_K else None,
        group_sizes, "mean_and_scale",
    )  # fmt: skip


class _Training:
    """The loop: chunks of activations, steps on each, checkpoints between them."""

    def __init__(
        self,
        stream: ActivationStream,
        fits: list[DictionaryFit],
        settings: Mapping[str, Any],
        folder: TrainingFolder | None,
        step_size: int,
        checkpoint_seconds: float | int,
        on_chunk: Callable[[Mapping[str, Any]], object] | None,
    ):
        self._stream, self._fits, self._settings, self._folder = stream, fits, settings, folder
        self._step_size, self._checkpoint_seconds, self._on_chunk = step_size, checkpoint_seconds, on_chunk
        self._losses: list[list[dict[str, Any]]] = [[] for _ in fits]
        self._n_skipped = 0

    def run(self, progress: bool | None) -> list[Dictionary]:
        done, last = 0, None
        if self._folder is not None:
            found = self._folder.read_state()
            if found is not None:
                tensors, done, self._losses, self._n_skipped = found
                for number, fit in enumerate(self._fits):
                    fit.load_state(_part(tensors, number))
        bar = progress_bar(self._stream.n_pictures, done, progress, "pictures", lines=True)
        with keep_freed_memory(), bar as advance:
            for chunk in self._stream.chunks(done, advance):
                self._learn(chunk, is_first=done == 0)
                done = chunk.end
                is_due = self._folder is not None and self._folder.age >= self._checkpoint_seconds
                if self._folder is not None and is_due and done < self._stream.n_pictures:
                    self._folder.write_state(self._state(), done, self._losses, self._n_skipped)
                last = chunk
        dictionaries = [
            fit.dictionary({**self._settings, "n_skipped": self._n_skipped, "n_dead": fit.n_dead, "losses": losses})
            for fit, losses in zip(self._fits, self._losses, strict=True)
        ]
        for dictionary in dictionaries:
            if last is not None and len(shown := last.activations[dictionary.config.reads][: self._step_size]):
                with torch.no_grad():
                    dictionary.record["active_as_encoded"] = float(mean_l0(dictionary.encode(shown)))
        if self._folder is not None:
            self._folder.finish(dictionaries)
        return dictionaries

    def _learn(self, chunk: Chunk, is_first: bool) -> None:
        self._n_skipped += len(chunk.skipped)
        n_rows = len(next(iter(chunk.activations.values())))
        if n_rows == 0 and not is_first:
            return
        steps = torch.arange(n_rows).tensor_split(max(1, round(n_rows / self._step_size)))
        for number, fit in enumerate(self._fits):
            x, y = chunk.activations[fit.config.reads], chunk.activations[fit.config.writes]
            if is_first:
                fit.measure(x, y)
            found = []
            for index, rows in enumerate(steps):
                part = slice(int(rows[0]), int(rows[-1]) + 1)
                shown = chunk.start + (chunk.end - chunk.start) * index / len(steps)
                found.append(fit.step(x[part], y[part], shown / self._stream.n_pictures))
            layer = int(fit.config.writes.split(".")[1])
            means = {name: sum(step[name] for step in found) / len(found) for name in found[0]}
            self._losses[number].append({"pictures": chunk.end, **means})
            if self._on_chunk is not None:
                self._on_chunk({"layer": layer, **self._losses[number][-1]})

    def _state(self) -> dict[str, torch.Tensor]:
        return {f"{n}.{name}": tensor for n, fit in enumerate(self._fits) for name, tensor in fit.state().items()}


def _part(tensors: Mapping[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    prefix = f"{number}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

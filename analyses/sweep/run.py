"""One pass over a dataset, one forward pass a batch, for any number of analyses."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch.utils.data import DataLoader, Sampler

from analyses.analysis.base import Analysis, AnalysisBatch, analysis_name
from analyses.data.dataset import LabelledImages
from analyses.data.reading import ItemReader, ReadBatch
from analyses.progress import progress_bar
from analyses.sweep.accuracy import Accuracy
from analyses.sweep.processes import join_processes
from analyses.sweep.record import make_record
from analyses.sweep.share import Checkpoints, Share, what_is_there
from analyses.sweep.store import Store, as_read
from hooked_vit import HookedViT, ViTActivationCache
from hooked_vit.running import Hooks

__all__ = ["run_batch", "sweep"]

_OWN_TABLES = ("accuracy", "skipped")


def sweep(
    model: HookedViT,
    dataset: LabelledImages,
    analyses: Sequence[Analysis] | Mapping[str, Analysis],
    batch_size: int = 32,
    out: str | Path | None = None,
    *,
    limit: int | None = None,
    on_error: Literal["skip", "raise"] = "skip",
    resume: bool = True,
    fwd_hooks: Hooks = (),
    num_workers: int = 0,
    checkpoint_every: float | int = 30,
    progress: bool | None = None,
) -> dict[str, pd.DataFrame]:
    """Run a model over a dataset once and ask every analysis; tables by name, the model's accuracy among them.

    Each batch passes through the model once, with the hook points in its cache that any of the analyses names.
    Memory does not grow with the number of images (but for analyses that keep a row an image).

    With `out`, tables go there as Parquet files beside `record.json`, which says what they follow from. A sweep that
    was killed, in whatever way, goes on from its last checkpoint when it is called again, and ends as if nothing had
    happened, to the bit; one that is finished is read, not repeated.

    Under `accelerate launch` or torchrun (on CPUs torchrun: accelerate starts one process there, unless through MPI),
    or in a process group that is there already, the processes divide the batches, and all return the tables of the
    whole. Batches are the same images whatever the number of processes, and sums are taken along a fixed tree (see
    `analyses.sweep.totals`), so the tables are those of one process to the bit, provided that each process
    computes as that one does: same device, same number of threads (torchrun gives each process one, unless
    OMP_NUM_THREADS says otherwise). An analysis that draws at random must draw from `batch.index`.

    Args:
        model: The model; it is left as it is.
        dataset: Any torch dataset of `(image, label)` or `(image, label, mask)`; see
            `analyses.data.dataset.LabelledImages` for what these may be.
        analyses: Named by their classes (`CategoricalUpdates`: `categorical_updates`), or by the keys of a dict.
            Their state is reset; afterwards it is that of the whole dataset.
        batch_size: Images a forward pass.
        out: The folder to write to; nothing is written without.
        limit: Only the first `limit` images.
        on_error: `"skip"` leaves out images that cannot be read or hold NaN, and lists them in the table `skipped`;
            `"raise"` stops at the first one.
        resume: False deletes what a sweep left in `out`, and starts over.
        fwd_hooks: Interventions that are on throughout, as for `model.hooks`.
        num_workers: Processes that read images ahead, as for torch's `DataLoader`.
        checkpoint_every: Seconds between checkpoints; 0 for one after each batch.
        progress: Whether to show a bar; by default, if standard error is a terminal.

    Returns:
        A table for each analysis; `accuracy` (`n_images`, `top1` and `top5` in percent); `skipped` (`index`, `reason`).

    Raises:
        ValueError: If `out` holds another sweep (the message says what differs), an option or name does not fit, a
            label is no class of the model, or no image can be read; with `on_error="raise"`, if one cannot.
        TypeError: If the dataset's items are no images and labels.

    >>> from analyses.data import EmojiScenes
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> tables = sweep(model, EmojiScenes(8, seed=7), [], batch_size=4)
    >>> tables["accuracy"].columns.tolist(), len(tables["skipped"])
    (['n_images', 'top1', 'top5'], 0)
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(f"batch_size and limit must be at least 1, got {batch_size} and {limit}")
    if on_error not in ("skip", "raise"):
        raise ValueError(f"on_error is 'skip' or 'raise', not {on_error!r}")
    if not isinstance(dataset, LabelledImages):
        raise TypeError(f"a dataset needs __len__ and __getitem__, {type(dataset).__name__} has not")
    named = {"accuracy": Accuracy(), **_named(analyses)}
    n_images = len(dataset) if limit is None else min(len(dataset), limit)
    if n_images == 0 or model.cfg.n_classes == 0:
        raise ValueError(f"expected images and classes, got {n_images} images and {model.cfg.n_classes} classes")
    device, processes = model.cfg.device, join_processes()
    store = None if out is None else Store(out)
    if store is not None and not resume:
        if processes.rank == 0:
            store.clear()
        processes.gather(None)
    with model.hooks(fwd_hooks=fwd_hooks):
        options = {"batch_size": batch_size, "on_error": on_error}
        record = make_record(model, dataset, n_images, named, options, processes.count)
        share = what_is_there(store, record, processes, device)
        if not isinstance(share, Share):
            return share
        if store is not None and processes.rank == 0:
            store.write_record({**record, "finished": False})
        reader = ItemReader(dataset, model.cfg, model.data_config, skip=on_error == "skip")
        batches = _Batches(n_images, batch_size, processes.share(-(-n_images // batch_size)))
        checkpoints = Checkpoints(store, record, processes, checkpoint_every)
        _run(model, named, reader, batches, share, checkpoints, num_workers, progress)
    whole = Share.merged(Share.unpack(one, device) for one in processes.gather(share.pack()))
    tables = _tables(named, whole)
    if store is not None:
        tables = as_read(tables)
        if processes.rank == 0:
            store.write_tables(tables, record)
        processes.gather(None)
        store.clear_checkpoints()
    return tables


def _named(analyses: Sequence[Analysis] | Mapping[str, Analysis]) -> dict[str, Analysis]:
    if isinstance(analyses, Mapping):
        pairs = list(analyses.items())
    else:
        pairs = [(analysis_name(type(analysis)), analysis) for analysis in analyses]
    for name, one in pairs:
        if not isinstance(one, Analysis):
            kind = one.__name__ + " itself: pass an instance" if isinstance(one, type) else type(one).__name__
            raise TypeError(f"'{name}' must be an analysis, got {kind}")
        if not re.fullmatch(r"\w[\w.-]*", name) or name in _OWN_TABLES:
            raise ValueError(f"'{name}' cannot name a table: take letters, digits and _, and not {_OWN_TABLES}")
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or len({id(one) for _, one in pairs}) < len(pairs):
        raise ValueError(f"several analyses are called {twice}, or are the same object: pass a dict from names to each")
    return dict(pairs)


class _Batches(Sampler[list[int]]):
    """The indices of some batches. Which images are in a batch follows from the dataset, whoever runs it."""

    def __init__(self, n_images: int, batch_size: int, places: range):
        self.n_images, self.batch_size, self.places = n_images, batch_size, places

    def __iter__(self) -> Iterator[list[int]]:
        for place in self.places:
            yield list(range(place * self.batch_size, min((place + 1) * self.batch_size, self.n_images)))

    def __len__(self) -> int:
        return len(self.places)

    def starting_at(self, place: int | None) -> "_Batches":
        start = self.places.start if place is None else place
        return _Batches(self.n_images, self.batch_size, range(start, self.places.stop))

    @property
    def n_images_in_all(self) -> int:
        first, last = (min(place * self.batch_size, self.n_images) for place in (self.places.start, self.places.stop))
        return last - first


def _run(
    model: HookedViT,
    named: Mapping[str, Analysis],
    reader: ItemReader,
    batches: _Batches,
    share: Share,
    checkpoints: Checkpoints,
    num_workers: int,
    progress: bool | None,
) -> None:
    """Do what is left of a process's batches."""
    wanted = [name for analysis in named.values() for name in analysis.names(model.cfg)]
    names = model.hook_names(wanted) if wanted else []
    for analysis in named.values():
        analysis.to(model.cfg.device).reset()
    rest = batches.starting_at(share.next_batch)
    # a generator of its own, since the loader draws from it even where nothing is shuffled
    loader = DataLoader(
        reader, batch_sampler=rest, collate_fn=_as_it_is, num_workers=num_workers, generator=torch.Generator()
    )
    n_images = batches.n_images_in_all
    with progress_bar(n_images, n_images - rest.n_images_in_all, progress) as advance:
        for place, read in zip(rest.places, loader, strict=True):
            if read.images is not None:
                batch = run_batch(model, names, read)
                for analysis in named.values():
                    analysis.update(batch)
            share.take(named, place, read.failures)
            checkpoints.after_batch(share)
            advance(read.n_asked)
    checkpoints.write(share)


def _as_it_is(batch: Any) -> Any:
    return batch


@torch.no_grad()
def run_batch(model: HookedViT, names: list[str], read: ReadBatch) -> AnalysisBatch:
    """The one forward pass of a batch."""
    weight = model.embed.patch.weight
    assert read.images is not None
    images = read.images.to(weight)
    if names:
        logits, cache = model.run_with_cache(images, names_filter=names)
    else:
        logits, cache = model(images), ViTActivationCache({}, model)
    return AnalysisBatch(
        model=model,
        cache=cache,
        logits=logits,
        labels=read.labels.to(weight.device),
        index=read.index.to(weight.device),
        object_mask=None if read.object_mask is None else read.object_mask.to(weight.device),
        images=images,
    )


def _tables(named: Mapping[str, Analysis], whole: Share) -> dict[str, pd.DataFrame]:
    if whole.totals["accuracy"].n_updates == 0:
        index, reason = whole.skipped[0]
        raise ValueError(f"none of the {len(whole.skipped)} images could be read; of image {index}: {reason}")
    for name, analysis in named.items():
        whole.totals[name].put_into(analysis)
    tables = {name: analysis.compute() for name, analysis in named.items()}
    return {**tables, "skipped": whole.skipped_table()}

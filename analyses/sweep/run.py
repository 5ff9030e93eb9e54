"""One pass over a dataset, one forward pass per batch, for any number of analyses."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch.utils.data import DataLoader, Sampler

from analyses.analysis.base import Analysis, AnalysisBatch, analysis_name
from analyses.data.dataset import LabelledImages
from analyses.data.reading import ItemReader, ReadBatch
from analyses.progress import progress_bar, stated
from analyses.sweep.accuracy import Accuracy
from analyses.sweep.processes import join_processes
from analyses.sweep.record import make_record
from analyses.sweep.share import Checkpoints, Share, resume_state
from analyses.sweep.store import Store, as_read
from hooked_vit import HookedViT, ViTActivationCache, keep_freed_memory
from hooked_vit.running import Hooks

__all__ = ["run_batch", "sweep"]

_OWN_TABLES = ("accuracy", "skipped")
_MANY_PASSES = 20  # per image: such a sweep says what it costs


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
    """Run a model over a dataset once, for all analyses; returns tables by name, the model's accuracy among them.

    Each batch passes through the model once, and its cache holds the hook points that any of the analyses names.
    Memory does not grow with the number of images (except for analyses that keep a row per image).

    With `out`, tables are written there as Parquet files, next to `record.json`, which describes what they were
    computed from. A sweep that was killed resumes from its last checkpoint when it is called again, and its tables
    are bit-identical to those of an uninterrupted sweep; a finished sweep is read, not repeated.

    Under `accelerate launch` or torchrun (on CPUs torchrun: accelerate starts one process there, unless through MPI),
    or in an existing process group, the processes divide the batches, and all of them return the tables of the whole
    dataset. A batch holds the same images whatever the number of processes, and sums are taken along a fixed tree (see
    `analyses.sweep.totals`), so the tables are bit-identical to those of one process, provided that each process
    computes as that one does: same device, same number of threads (torchrun gives each process one, unless
    OMP_NUM_THREADS is set). An analysis that draws at random must draw from `batch.index`.

    Args:
        model: The model, which is not changed.
        dataset: Any torch dataset of `(image, label)` or `(image, label, mask)`; see
            `analyses.data.dataset.LabelledImages` for the accepted types.
        analyses: Named after their classes (`CategoricalUpdates`: `categorical_updates`), or by the keys of a dict.
            Their state is reset; afterwards it is that of the whole dataset.
        batch_size: Images per forward pass.
        out: The folder to write to; `None` writes nothing.
        limit: Only the first `limit` images.
        on_error: `"skip"` leaves out images that cannot be read or hold NaN, and lists them in the table `skipped`;
            `"raise"` stops at the first such image.
        resume: False deletes the files of an earlier sweep in `out`, and starts over.
        fwd_hooks: Interventions that are applied throughout, as for `model.hooks`.
        num_workers: Processes that read images ahead, as for torch's `DataLoader`.
        checkpoint_every: Seconds between checkpoints, which each process writes after the batch that it is running
            then; 0 for one after each batch. An interruption loses the work since the last checkpoint.
        progress: Whether to show a bar; by default, if standard error is a terminal. Where an analysis takes many
            forward passes per image, such as `Faithfulness`, a line says so before the start, and elsewhere than on a
            terminal a line says every half minute how much time is left; False silences all.

    Returns:
        A table for each analysis; `accuracy` (`n_images`, `top1` and `top5` in percent); `skipped` (`index`, `reason`).

    Raises:
        ValueError: If `out` holds another sweep (the message lists the differences), an option or name is invalid, a
            label is not a class of the model, the model has a single class, or no image can be read; with
            `on_error="raise"`, if any image cannot; if a lens or probes of an analysis were fitted to these images or
            to another model.
        TypeError: If the dataset's items are not images and labels.

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
    by_name = {"accuracy": Accuracy(), **_by_name(analyses)}
    n_images = len(dataset) if limit is None else min(len(dataset), limit)
    if n_images == 0:
        raise ValueError("expected at least one image, got an empty dataset")
    model.require_several_classes("a sweep, which measures accuracy,")
    for analysis in by_name.values():
        analysis.before_sweep(model, dataset)
    device, processes = model.cfg.device, join_processes()
    store = None if out is None else Store(out)
    if store is not None and not resume:
        if processes.rank == 0:
            store.clear([*by_name, "skipped"])
        processes.gather(None)
    with model.hooks(fwd_hooks=fwd_hooks):
        options = {"batch_size": batch_size, "on_error": on_error}
        record = make_record(model, dataset, n_images, by_name, options, processes.count)
        share = resume_state(store, record, processes, device)
        if not isinstance(share, Share):
            return share  # the tables of a finished sweep
        if store is not None and processes.rank == 0:
            store.write_record({**record, "finished": False})
        reader = ItemReader(dataset, model.cfg, model.data_config, skip=on_error == "skip")
        batches = _Batches(n_images, batch_size, processes.share(-(-n_images // batch_size)))
        checkpoints = Checkpoints(store, record, processes, checkpoint_every)
        _run(model, by_name, reader, batches, share, checkpoints, num_workers, progress)
    whole = Share.merged(Share.unpack(packed, device) for packed in processes.gather(share.pack()))
    tables = _tables(by_name, whole)
    if store is not None:
        tables = as_read(tables)
        if processes.rank == 0:
            store.write_tables(tables, record)
            store.clear_temporaries(list(tables))
        processes.gather(None)
        store.clear_checkpoints()
    return tables


def _by_name(analyses: Sequence[Analysis] | Mapping[str, Analysis]) -> dict[str, Analysis]:
    if isinstance(analyses, Mapping):
        pairs = list(analyses.items())
    else:
        pairs = [(analysis_name(type(analysis)), analysis) for analysis in analyses]
    for name, analysis in pairs:
        if not isinstance(analysis, Analysis):
            is_class = isinstance(analysis, type)
            kind = f"the class {analysis.__name__}: pass an instance" if is_class else type(analysis).__name__
            raise TypeError(f"'{name}' must be an analysis, got {kind}")
        if not re.fullmatch(r"\w[\w.-]*", name) or name in _OWN_TABLES:
            raise ValueError(f"'{name}' cannot name a table: take letters, digits and _, and not {_OWN_TABLES}")
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or len({id(analysis) for _, analysis in pairs}) < len(pairs):
        raise ValueError(f"several analyses are called {twice}, or are the same object: pass a dict from names to each")
    return dict(pairs)


class _Batches(Sampler[list[int]]):
    """The image indices of some batches. The images of a batch depend on its number alone, not on the processes."""

    def __init__(self, n_dataset: int, batch_size: int, numbers: range):
        self.n_dataset, self.batch_size, self.numbers = n_dataset, batch_size, numbers

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.numbers:
            yield list(range(batch * self.batch_size, min((batch + 1) * self.batch_size, self.n_dataset)))

    def __len__(self) -> int:
        return len(self.numbers)

    def starting_at(self, batch: int | None) -> "_Batches":
        start = self.numbers.start if batch is None else batch
        return _Batches(self.n_dataset, self.batch_size, range(start, self.numbers.stop))

    @property
    def n_images(self) -> int:
        """Images in these batches."""
        ends = self.numbers.start, self.numbers.stop
        first, last = (min(batch * self.batch_size, self.n_dataset) for batch in ends)
        return last - first


def _run(
    model: HookedViT,
    analyses: Mapping[str, Analysis],
    reader: ItemReader,
    batches: _Batches,
    share: Share,
    checkpoints: Checkpoints,
    num_workers: int,
    progress: bool | None,
) -> None:
    """Run the remaining batches of this process."""
    wanted = [name for analysis in analyses.values() for name in analysis.names(model.cfg)]
    names = model.hook_names(wanted) if wanted else []
    for analysis in analyses.values():
        analysis.to(model.cfg.device).reset()
    remaining = batches.starting_at(share.next_batch)
    # a generator of its own: the loader draws from it even without shuffling, and torch's global one stays untouched
    loader = DataLoader(
        reader, batch_sampler=remaining, collate_fn=_unchanged, num_workers=num_workers, generator=torch.Generator()
    )
    passes = {name: analysis.passes(model.cfg) for name, analysis in analyses.items()}
    n_passes = 1 + sum(passes.values())
    is_long = n_passes >= _MANY_PASSES
    if is_long and progress is not False and len(remaining):
        stated(_statement(remaining.n_images, passes, n_passes))
    bar = progress_bar(batches.n_images, batches.n_images - remaining.n_images, progress, lines=is_long)
    with keep_freed_memory(), bar as advance:
        for number, read in zip(remaining.numbers, loader, strict=True):
            left = float(read.n_asked)

            def passed(n: float | int, images: int = read.n_asked) -> None:
                nonlocal left
                step = min(left, images * n / n_passes)
                left -= step
                advance(step)

            if read.images is not None:
                batch = run_batch(model, names, read, passed)
                passed(1)
                for analysis in analyses.values():
                    analysis.update(batch)
            share.add_batch(number, analyses, read.failures)
            checkpoints.after_batch(share)
            advance(left)
    checkpoints.write(share)


def _statement(n_images: int, passes: Mapping[str, float], n_passes: float) -> str:
    """What a long sweep costs, before it starts."""
    costly = ", ".join(f"{name} {n:,.0f}" for name, n in passes.items() if n >= 1)
    return (
        f"each of {n_images:,} images takes about as long as {n_passes:,.0f} forward passes ({costly}): "
        f"{n_images * n_passes:,.0f} in all"
    )


def _unchanged(batch: Any) -> Any:
    return batch


@torch.no_grad()
def run_batch(
    model: HookedViT, names: list[str], read: ReadBatch, passed: Callable[[float], None] | None = None
) -> AnalysisBatch:
    """The forward pass of a batch, with these hook points in its cache."""
    weight = model.embed.weight
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
        **({} if passed is None else {"passed": passed}),
    )


def _tables(analyses: Mapping[str, Analysis], whole: Share) -> dict[str, pd.DataFrame]:
    if whole.totals["accuracy"].n_updates == 0:
        index, reason = whole.skipped[0]
        raise ValueError(f"none of the {len(whole.skipped)} images could be read; image {index}: {reason}")
    for name, analysis in analyses.items():
        whole.totals[name].put_into(analysis)
    tables = {name: analysis.compute() for name, analysis in analyses.items()}
    return {**tables, "skipped": whole.skipped_table()}

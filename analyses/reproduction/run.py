"""Run a study: load its model and data, sweep it and its null control, and resume where a run was interrupted."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.data.dataset import LabelledImages
from analyses.data.open import open_dataset
from analyses.data.reading import ItemReader
from analyses.feature_importance import ProbeOrder
from analyses.linear_probe import fit_ridge_probe, probe_features
from analyses.reproduction.cost import Cost, measure_cost
from analyses.reproduction.studies import Study
from analyses.sweep.output import read_sweep
from analyses.sweep.run import sweep
from hooked_vit import HookedViT
from hooked_vit.initialisation import freshly_initialised

__all__ = ["Outcome", "estimate_study", "run_study"]

_NOT_AT_HAND = (OSError, RuntimeError, ValueError)  # what hubs, timm, files and datasets raise


@dataclass(frozen=True)
class Outcome:
    """What became of a study.

    Attributes:
        study: The study.
        folder: Where its sweep is; `None` if it could not be run.
        reason: Why it could not be run; "" if it was.
        cost: The expected cost, if it was measured.
    """

    study: Study
    folder: Path | None = None
    reason: str = ""
    cost: Cost | None = None


def estimate_study(study: Study, out: str | Path, batch_size: int = 32) -> Outcome:
    """Find out whether a study can be run, and what it will cost, from one batch of its images.

    A study that is finished in `out` costs nothing, and is not loaded.

    >>> from analyses.reproduction import rehearsal_studies
    >>> str(estimate_study(rehearsal_studies(2, n_steps=1)[1], "nowhere", batch_size=2).cost)[:8]
    '2 images'
    """
    folder = Path(out) / study.key
    if _is_finished(folder) and _is_finished(folder / "null"):
        return Outcome(study, folder, cost=Cost(0, 0.0, 0))
    loaded = _load(study)
    if isinstance(loaded, Outcome):
        return loaded
    model, dataset = loaded
    cost = measure_cost(model, dataset, [study.analyses(), study.null_analyses()], batch_size)
    if study.probe_data is not None:
        cost = _with_probes(cost, model, study.probe_shots * model.cfg.n_classes, dataset, batch_size)
    return Outcome(study, None, cost=cost)


def _with_probes(cost: Cost, model: HookedViT, n_fitted: int, dataset: LabelledImages, batch_size: int) -> Cost:
    """The cost with that of the probes added: a forward pass for each image, and the features in memory."""
    forward = measure_cost(model, dataset, [[]], batch_size)
    n_bytes = 4 * n_fitted * model.cfg.n_layers * (model.cfg.n_ctx + 1) * model.cfg.d_model
    seconds = cost.seconds + forward.seconds * n_fitted / forward.n_images
    return dataclasses.replace(cost, seconds=seconds, peak_bytes=cost.peak_bytes + n_bytes)


def run_study(
    study: Study,
    out: str | Path,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run a study into the folder of its key: the model's sweep, and in `null` that of the untrained model.

    A run that was interrupted resumes; what is finished is not repeated.

    Args:
        study: The study.
        out: The folder of all studies.
        batch_size: Images per forward pass.
        num_workers: Processes that read images ahead.
        progress: Whether to show progress; by default, if standard error is a terminal.
        say: Called with a line about what is being done.

    Returns:
        The outcome; a study whose weights or images are not at hand has a reason instead of a folder.

    Raises:
        ValueError: If the folder holds another sweep.

    >>> import tempfile
    >>> from analyses.reproduction import rehearsal_studies
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run_study(rehearsal_studies(2, n_steps=1)[1], folder, batch_size=2).folder.name
    'emoji-vit-gap'
    """
    folder = Path(out) / study.key
    if _is_finished(folder) and _is_finished(folder / "null"):
        return Outcome(study, folder)
    loaded = _load(study)
    if isinstance(loaded, Outcome):
        return loaded
    model, dataset = loaded
    options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "progress": progress}
    if not _is_finished(folder):
        methods: dict[str, Any] = {}
        if study.probe_data is not None:
            say(f"{study.title}: fitting probes")
            try:
                methods["probe"] = _probe_order(model, study.probe_data, study.probe_shots, batch_size)
            except _NOT_AT_HAND as error:
                return Outcome(study, reason=f"the probes' images, {_sentence(error)}")
        say(f"{study.title}: the model")
        sweep(model, dataset, study.analyses(methods), out=folder, **options)
    say(f"{study.title}: the untrained model")
    sweep(freshly_initialised(model, seed=0), dataset, study.null_analyses(), out=folder / "null", **options)
    return Outcome(study, folder)


def _load(study: Study) -> tuple[HookedViT, LabelledImages] | Outcome:
    """The model and its dataset, or the outcome that says what is missing."""
    if study.needs:
        return Outcome(study, reason=f"it needs {study.needs}")
    try:
        model = HookedViT.from_pretrained(study.model, **study.load_options)
    except _NOT_AT_HAND as error:
        return Outcome(study, reason=f"its weights cannot be loaded: {_sentence(error)}")
    try:
        return model, open_dataset(study.data, model.class_names)
    except _NOT_AT_HAND as error:
        return Outcome(study, reason=f"its images cannot be opened: {_sentence(error)}")


def _probe_order(model: HookedViT, data: str, shots: int, batch_size: int) -> ProbeOrder:
    """Probes fitted to the first images of each class; images after them are not read."""
    dataset = open_dataset(data, model.class_names)
    reader = ItemReader(dataset, model.cfg, model.data_config)
    starts = range(0, len(dataset), batch_size)
    read = (reader.__getitems__(range(start, min(start + batch_size, len(dataset)))) for start in starts)
    features = probe_features(model, ((batch.images, batch.labels) for batch in read if batch.images is not None))
    few = features.shots(shots)
    return ProbeOrder(fit_ridge_probe(few.features, few.labels, model.cfg.n_classes))


def _is_finished(folder: Path) -> bool:
    try:
        read_sweep(folder)
    except ValueError:
        return False
    return True


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__

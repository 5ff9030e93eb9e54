"""The folder of a training: its checkpoint, its finished dictionaries, and whether they belong to it."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analyses.data.dataset import LabelledImages
from analyses.dictionaries.dictionary import Dictionary, DictionaryConfig
from analyses.dictionaries.files import read_tensors, write_tensors
from analyses.dictionaries.loading import load_dictionary
from analyses.dictionaries.training.fitting import FitOptions
from analyses.sweep.describe import describe, differences, hash_tensors
from hooked_vit import HookedViT

__all__ = ["TrainingFolder", "settings_of"]

_STATE = "state.safetensors"


def settings_of(
    model: HookedViT,
    dataset: LabelledImages,
    configs: Sequence[DictionaryConfig],
    options: FitOptions,
    numbers: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that determines the weights of a training, as JSON."""
    cfg = {name: value for name, value in describe(model.cfg).items() if name != "device"}
    return {
        "model": {"cfg": cfg, "weights_sha256": hash_tensors(model.state_dict())},
        "preprocessing": describe(model.data_config),
        "dataset": {"n_images": len(dataset), "description": describe(dataset)},
        "dictionaries": [json.loads(config.to_json()) for config in configs],
        "options": {**asdict(options), **numbers},
        "arithmetic": {
            "device": model.embed.weight.device.type, "torch": version("torch"), "threads": torch.get_num_threads(),
        },
    }  # fmt: skip


class TrainingFolder:
    """A folder with the checkpoint of a training, or with its finished dictionaries, one file per hook point.

    Args:
        path: The folder.
        points: The hook points that the dictionaries write, which their files are named after.
        settings: What determines the training (see `settings_of`).
        resume: Whether to continue from what is there; otherwise it is deleted.
    """

    def __init__(self, path: str | Path, points: Sequence[str], settings: Mapping[str, Any], resume: bool):
        self._path, self._settings = Path(path), json.loads(json.dumps(settings))
        self._files = [self._path / f"{point}.safetensors" for point in points]
        self._last_written = time.monotonic()
        if not resume:
            for file in (self._path / _STATE, *self._files):
                file.unlink(missing_ok=True)

    def finished(self) -> list[Dictionary] | None:
        """The dictionaries, if the training has ended.

        Raises:
            ValueError: If one that is there is that of another training, which this one would overwrite.
        """
        found = [load_dictionary(file) for file in self._files if file.is_file()]
        for dictionary in found:
            self._check(dictionary.record)
        if (self._path / _STATE).is_file() or len(found) < len(self._files):
            return None
        return found

    def read_state(self) -> tuple[dict[str, Tensor], int, list[list[Any]], int] | None:
        """The last checkpoint: tensors, pictures shown, losses so far, pictures skipped; `None` if there is none.

        Raises:
            ValueError: If it is that of another training, or damaged.
        """
        if not (self._path / _STATE).is_file():
            return None
        tensors, metadata = read_tensors(self._path / _STATE)
        if "settings" not in metadata:
            raise ValueError(f"'{self._path / _STATE}' is not the checkpoint of a training: choose another folder")
        self._check(json.loads(metadata["settings"]))
        return tensors, int(metadata["done"]), json.loads(metadata["losses"]), int(metadata["n_skipped"])

    @property
    def age(self) -> float:
        """Seconds since the last checkpoint, or since the start."""
        return time.monotonic() - self._last_written

    def write_state(self, tensors: Mapping[str, Tensor], done: int, losses: Sequence[Any], n_skipped: int) -> None:
        """Write a checkpoint."""
        metadata = {"settings": json.dumps(self._settings), "losses": json.dumps(losses)}
        metadata |= {"done": str(done), "n_skipped": str(n_skipped)}
        write_tensors(self._path / _STATE, tensors, metadata)
        self._last_written = time.monotonic()

    def finish(self, dictionaries: Sequence[Dictionary]) -> None:
        """Write the dictionaries and remove the checkpoint."""
        for file, dictionary in zip(self._files, dictionaries, strict=True):
            dictionary.save(file)
        (self._path / _STATE).unlink(missing_ok=True)

    def _check(self, then: Mapping[str, Any]) -> None:
        found = [
            line for section, now in self._settings.items() for line in differences(then.get(section), now, section)
        ]
        if found:
            shown = "\n  ".join(found[:8]) + (f"\n  and {len(found) - 8} more" if len(found) > 8 else "")
            raise ValueError(
                f"'{self._path}' holds another training; they differ in\n  {shown}\nChoose another folder, use the "
                "earlier settings, or start over with resume=False, which deletes the files of the earlier training."
            )

"""Files of tensors with a record: written whole, read without running code."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["read_tensors", "write_tensors"]


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a `.safetensors` file whole: a run that is killed leaves the earlier file, or none.

    Raises:
        ValueError: If the file is called otherwise.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"dictionaries are written to a .safetensors file, got '{path}'")
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    descriptor, temporary = tempfile.mkstemp(suffix=".safetensors", dir=path.parent)
    os.close(descriptor)
    try:
        save_file(plain, temporary, dict(metadata))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a `.safetensors` file, and its metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file '{path}'")
    try:
        with safe_open(path, "pt") as opened:
            tensors: dict[str, torch.Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ValueError(f"'{path}' cannot be read as safetensors: {error}") from error

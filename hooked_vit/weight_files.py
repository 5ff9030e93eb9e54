"""Reading weight files without running the code in them, and matching them to a module."""

import argparse
import pickle
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_PICKLED = (".pt", ".pth", ".bin")
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def read_weight_file(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.safetensors`, `.pt`, `.pth` or `.bin` file, without wrappers and prefixes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another format, is damaged, references code, or holds no state dict.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at '{path}'")
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        elif path.suffix in _PICKLED:
            # a checkpoint often includes its command line; a Namespace runs no code
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            kinds = ", ".join((".safetensors", *_PICKLED))
            raise ValueError(f"'{path}' is not a weights file: expected one of {kinds}")
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"'{path}' cannot be read as weights (truncated, damaged, or holding more than tensors): {_reason(error)}"
        ) from error
    return _without_prefixes(_unwrap(content, path))


def _reason(error: Exception) -> str:
    """The first line of the message; torch adds paragraphs about how to load unsafe files."""
    wanted = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    if wanted and isinstance(error, pickle.UnpicklingError):
        return f"it references {wanted[1]}, which is not loaded for safety"
    return str(error).partition("\n")[0] or type(error).__name__


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        kind = (
            f"a dict with {sorted(map(str, content))[:5]}" if isinstance(content, Mapping) else type(content).__name__
        )
        raise ValueError(f"'{path}' holds no state dict but {kind}: expected a dict from parameter names to tensors")
    return {str(name): tensor for name, tensor in content.items()}


def _without_prefixes(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES * 2:
        if all(name.startswith(prefix) for name in state_dict):
            state_dict = {name.removeprefix(prefix): tensor for name, tensor in state_dict.items()}
    return state_dict


def fit_state_dict(
    state_dict: Mapping[str, Tensor], module: nn.Module, ignore_keys: Sequence[str], path: Path
) -> dict[str, Tensor]:
    """The tensors of a file for every parameter of `module`.

    Args:
        state_dict: The content of the file.
        module: The module; it is left unchanged.
        ignore_keys: Keys of the file that may be ignored (`*` and `?` match).
        path: The file, for messages.

    Raises:
        ValueError: If keys are surplus and not in `ignore_keys`, missing, or of another shape; or if a name in
            `ignore_keys` matches nothing.
    """
    expected = module.state_dict()
    useless = [pattern for pattern in ignore_keys if not any(fnmatchcase(name, pattern) for name in state_dict)]
    if useless:
        raise ValueError(f"ignore_keys {useless} match nothing in '{path}'")
    ignored = {name for name in state_dict if any(fnmatchcase(name, pattern) for pattern in ignore_keys)}
    surplus = sorted(state_dict.keys() - expected.keys() - ignored)
    missing = sorted(expected.keys() - (state_dict.keys() - ignored))
    misshapen = [
        f"{name} is {tuple(state_dict[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state_dict.keys() - ignored)
        if state_dict[name].shape != expected[name].shape
    ]
    if not (surplus or missing or misshapen):
        return {name: state_dict[name] for name in expected}
    problems = []
    if surplus:
        problems.append(
            f"it has keys that the model does not have (list them in ignore_keys to ignore them): {surplus}"
        )
    if missing:
        problems.append(f"it lacks {missing}")
    if misshapen:
        hint = (
            " (load with the img_size it was trained at)"
            if any("pos_embed" in problem for problem in misshapen)
            else ""
        )
        problems.append("; ".join(misshapen) + hint)
    raise ValueError(f"'{path}' does not fit {type(module).__name__}: " + "; ".join(problems))

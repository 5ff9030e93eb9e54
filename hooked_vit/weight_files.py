"""Reading weight files without running the code in them, and matching them to a module."""

import argparse
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".tar")
_TIMM_CHOICE = ("state_dict_ema", "model_ema", "state_dict", "model")  # in timm's order, which prefers averages
_PREFIXES = ("module.", "_orig_mod.", "model.")
_SHOWN = 5
_BY_TRANSFORMERS = (
    "Hugging Face transformers: put the file as model.safetensors or pytorch_model.bin into a folder with the model's "
    "config.json, and load `HookedViT.from_pretrained('folder')`"
)
_LAYOUTS = {
    "embeddings.patch_embeddings.projection.weight": _BY_TRANSFORMERS,
    "embeddings.patch_embedding.weight": _BY_TRANSFORMERS,
    "embeddings.patch_embeddings.weight": _BY_TRANSFORMERS,
    "visual.conv1.weight": "OpenAI CLIP or open_clip, for another architecture: name one of timm's with 'clip' in it, "
    "or make the model with open_clip and pass it to `HookedViT.from_module`",
    "visual.trunk.patch_embed.proj.weight": "open_clip around a timm model: name the architecture of its trunk",
    "conv_proj.weight": "torchvision, which timm does not read: rename the keys as timm does",
}
"""A key that gives a layout away -> whose layout it is, and what to do."""


def read_weight_file(path: Path, weights_key: str | None = None) -> dict[str, Tensor]:
    """The state dict in a `.safetensors`, `.pt`, `.pth`, `.bin`, `.ckpt` or `.pth.tar` file.

    Args:
        path: The file.
        weights_key: Which state dict, in a file that holds several, such as `"teacher"`; with dots for nested ones.
            By default the one that timm takes: `state_dict_ema`, `model_ema`, `state_dict` or `model`, in this order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another format, is damaged, references code, or holds no state dict, or several of
            which none is timm's choice; the message names them.
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
            kinds = ", ".join((".safetensors", *_PICKLED[:-1], ".pth.tar"))
            raise ValueError(f"'{path}' is not a weights file: expected one of {kinds}")
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise ValueError(
                f"'{path}' is a TorchScript archive, which holds code: load it with the library that made it (OpenAI's "
                "files: `open_clip.create_model('ViT-B-32', 'openai')`), and pass the model to `HookedViT.from_module`"
            ) from error
        raise ValueError(unreadable_message(path, error)) from error
    except (SafetensorError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise ValueError(unreadable_message(path, error)) from error
    return _unwrap(content, path, weights_key)


def unreadable_message(path: Path | str, error: Exception) -> str:
    """The message for a file that torch or safetensors cannot read, without torch's paragraphs on unsafe loading.

    >>> unreadable_message("x.pt", EOFError("Ran out of input"))
    "'x.pt' cannot be read as weights (truncated, damaged, or holding more than tensors): Ran out of input"
    """
    return f"'{path}' cannot be read as weights (truncated, damaged, or holding more than tensors): {_reason(error)}"


def _reason(error: Exception) -> str:
    """The first line of the message; torch adds paragraphs about how to load unsafe files."""
    wanted = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    if wanted and isinstance(error, pickle.UnpicklingError):
        return f"it references {wanted[1]}, which is not loaded for safety"
    return str(error).partition("\n")[0] or type(error).__name__


def _unwrap(content: object, path: Path, weights_key: str | None) -> dict[str, Tensor]:
    for key in weights_key.split(".") if weights_key else ():
        if not isinstance(content, Mapping) or key not in content:
            found = sorted(map(str, content)) if isinstance(content, Mapping) else [type(content).__name__]
            raise ValueError(f"'{path}' has no '{key}' (weights_key={weights_key!r}): it holds {', '.join(found[:20])}")
        content = content[key]
    while isinstance(content, Mapping):
        inner = [str(key) for key, value in content.items() if isinstance(value, Mapping) and _holds_weights(value)]
        chosen = next((key for key in _TIMM_CHOICE if key in inner), None)
        if chosen is None and len(inner) > 1:
            raise ValueError(
                f"'{path}' holds several state dicts, {', '.join(inner)}: choose one with weights_key={inner[0]!r}"
            )
        if not inner:
            break
        content = content[chosen or inner[0]]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        kind = (
            f"a dict with {sorted(map(str, content))[:5]}" if isinstance(content, Mapping) else type(content).__name__
        )
        raise ValueError(f"'{path}' holds no state dict but {kind}: expected a dict from parameter names to tensors")
    return {str(name): tensor for name, tensor in content.items()}


def _holds_weights(value: Mapping[Any, Any]) -> bool:
    """Whether this is a state dict, or holds one: optimisers hold tensors under numbers, not names."""
    return any(
        (isinstance(key, str) and isinstance(inner, Tensor) and inner.ndim > 0)
        or (isinstance(inner, Mapping) and key in _TIMM_CHOICE and _holds_weights(inner))
        for key, inner in value.items()
    )


def select_keys(
    state_dict: Mapping[str, Tensor], ignore_keys: Sequence[str], prefix: str | None, path: Path
) -> dict[str, Tensor]:
    """The entries of a file that are meant for the model, under the model's own names.

    Args:
        state_dict: The content of the file.
        ignore_keys: Keys to leave out (`*` and `?` match), with or without the prefix.
        prefix: What the model's keys begin with; keys without it are left out. By default the prefixes that wrappers
            add (`module.`, `_orig_mod.`, `model.`) go where every key that is not ignored has them.
        path: The file, for messages.

    Raises:
        ValueError: If no key has the prefix, or a name in `ignore_keys` matches nothing.
    """
    if prefix is not None:
        selected = {name.removeprefix(prefix): w for name, w in state_dict.items() if name.startswith(prefix)}
        if not selected:
            raise ValueError(f"no key in '{path}' begins with prefix={prefix!r}: it has {_summary(state_dict)}")
        useless = _unmatched(ignore_keys, [*state_dict, *selected])
        remaining = {name: w for name, w in selected.items() if not _matches(name, ignore_keys)}
    else:
        remaining = {name: w for name, w in state_dict.items() if not _matches(name, ignore_keys)}
        for common in _PREFIXES * 2:
            if remaining and all(name.startswith(common) for name in remaining):
                remaining = {name.removeprefix(common): w for name, w in remaining.items()}
        useless = _unmatched(ignore_keys, [*state_dict, *remaining])
        remaining = {name: w for name, w in remaining.items() if not _matches(name, ignore_keys)}
    if useless:
        raise ValueError(f"ignore_keys {useless} match nothing in '{path}'")
    return remaining


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _unmatched(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]


def fit_state_dict(state_dict: Mapping[str, Tensor], module: nn.Module, path: Path) -> dict[str, Tensor]:
    """The tensors of a file for every parameter of `module`, which is left unchanged.

    Raises:
        ValueError: If keys are surplus, missing, or of another shape. The message sums them up, and says what to do
            where the keys give away a prefix or the layout of another library.
    """
    expected = module.state_dict()
    surplus, missing = sorted(state_dict.keys() - expected.keys()), sorted(expected.keys() - state_dict.keys())
    misshapen = [
        f"{name} is {tuple(state_dict[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state_dict.keys())
        if state_dict[name].shape != expected[name].shape
    ]
    if not (surplus or missing or misshapen):
        return {name: state_dict[name] for name in expected}
    problems = []
    if surplus:
        problems.append(
            f"it has keys that the model does not have (list them in ignore_keys to ignore them): {_summary(surplus)}"
        )
    if missing:
        problems.append(f"it lacks {_summary(missing)}")
    if misshapen:
        hint = (
            " (load with the img_size it was trained at, or any other: its positions are then resampled)"
            if any("pos_embed" in text for text in misshapen)
            else ""
        )
        problems.append("; ".join(misshapen[:_SHOWN]) + hint)
    hint = _hint(state_dict, expected)
    raise ValueError(f"'{path}' does not fit {type(module).__name__}: " + "; ".join(problems) + hint)


def _summary(names: Iterable[str]) -> str:
    names = list(names)
    return f"{names[:_SHOWN]}" + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _hint(state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What would help, as far as the keys show it."""
    for key, owner in _LAYOUTS.items():
        if any(name.endswith(key) for name in state_dict):
            return f". Its keys are in the layout of {owner}"
    prefixes = Counter(
        name.removesuffix(own) for name in state_dict for own in (name.split(".", n)[-1] for n in range(1, 4))
        if own in expected and own != name
    )  # fmt: skip
    if prefixes:
        prefix, count = prefixes.most_common(1)[0]
        if count > len(expected) / 2:
            return f". {count} of its keys begin with {prefix!r}: pass prefix={prefix!r}, which drops the others"
    return ""

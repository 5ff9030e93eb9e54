"""Any object as plain JSON that is the same in every process, so that two runs can be held against each other."""

import dataclasses
import functools
import hashlib
import inspect
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

__all__ = ["describe", "differences", "hash_tensors"]

_LONG = 64  # entries of a list, characters of a line: what is longer is told by its hash


def describe(value: Any) -> Any:
    """What `value` is, from its type and what it holds, as numbers, strings, lists and dicts.

    Tensors, arrays, pictures and whatever is long are told by their SHA-256; functions by their names; objects by
    their attributes.

    >>> describe({"k": 5, "path": Path("a"), "dtype": torch.int64})
    {'k': 5, 'path': 'a', 'dtype': 'torch.int64'}
    """
    return _described(value, ())


def _described(value: Any, inside: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return _described(value.item(), inside)
    if isinstance(value, Path | torch.dtype | torch.device | re.Pattern):
        return str(value)
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": hash_tensors({"": value})}
    if isinstance(value, np.ndarray):
        sha256 = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
        return {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": sha256}
    if isinstance(value, Image.Image):
        return {"size": list(value.size), "mode": value.mode, "sha256": hashlib.sha256(value.tobytes()).hexdigest()}
    if isinstance(value, torch.Generator):
        return {"type": "torch.Generator", "seed": value.initial_seed()}
    if isinstance(value, functools.partial):
        return {"function": _name(value.func), "arguments": _described([*value.args, value.keywords], inside)}
    if inspect.isfunction(value) and "<" in value.__qualname__ and id(value) not in inside:
        return _function_without_a_name(value, (*inside, id(value)))
    if isinstance(value, type) or inspect.isroutine(value) or inspect.ismodule(value):
        return _name(value)
    if id(value) in inside:
        return "itself"
    inside = (*inside, id(value))
    if isinstance(value, Mapping):
        return _short({str(key): _described(one, inside) for key, one in value.items()})
    if isinstance(value, set | frozenset):
        return _short(sorted((_described(one, inside) for one in value), key=json.dumps))
    if isinstance(value, list | tuple | range):
        return _short([_described(one, inside) for one in value])
    return _object(value, inside)


def _function_without_a_name(function: Any, inside: tuple[int, ...]) -> Any:
    """A lambda or a local function: others of its name may do something else, so its code is told, and what it uses."""
    used: dict[str, Any] = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    with suppress(ValueError):  # a cell may be empty as yet
        used = {name: cell.cell_contents for name, cell in used.items()}
    used |= {"defaults": [function.__defaults__, function.__kwdefaults__]} if function.__defaults__ else {}
    told = {"function": _name(function), "code": hashlib.sha256(_code(function.__code__).encode()).hexdigest()}
    return told | ({"uses": _described(used, inside)} if used else {})


def _code(code: CodeType) -> str:
    """Instructions, names and constants, the same in every process."""
    constants = [_code(one) if isinstance(one, CodeType) else _described(one, ()) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _object(value: Any, inside: tuple[int, ...]) -> Any:
    kind = {"type": _name(type(value))}
    if isinstance(value, nn.Module):
        return {**kind, "sha256": hash_tensors(value.state_dict())}
    if dataclasses.is_dataclass(value):
        return {**kind, **{f.name: _described(getattr(value, f.name), inside) for f in dataclasses.fields(value)}}
    if hasattr(value, "__dict__"):
        return {**kind, **{name: _described(one, inside) for name, one in vars(value).items()}}
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _name(value: Any) -> str:
    """Its qualified name; without its module if it is ours, so that moving a file does not change a description."""
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", getattr(value, "__name__", ""))
    return name if str(module).partition(".")[0] in ("analyses", "hooked_vit") else f"{module}.{name}"


def _short(value: list[Any] | dict[str, Any]) -> Any:
    if len(value) <= _LONG:
        return value
    return {"length": len(value), "sha256": hashlib.sha256(json.dumps(value).encode()).hexdigest()}


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, whatever device they are on.

    >>> hash_tensors({"a": torch.zeros(2)}) == hash_tensors({"a": torch.zeros(2)})
    True
    """
    sha256 = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # as bytes: numpy has no bfloat16
        sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def differences(then: Any, now: Any, path: str = "") -> Iterator[str]:
    """Where two descriptions differ, each as `path: what it was then, what it is now`.

    >>> list(differences({"k": 5, "m": {"a": 1}}, {"k": 3, "m": {"a": 1}}))
    ['k: 5 then, 3 now']
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            yield from differences(then.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif then != now:
        yield f"{path}: {_line(then)} then, {_line(now)} now"


def _line(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."

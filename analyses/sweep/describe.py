"""Any object as plain JSON that is the same in every process, so that two runs can be compared."""

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

_LONG = 64  # entries of a list or dict: a longer one is described by its hash; characters shown of a difference


def describe(value: Any) -> Any:
    """`value` as numbers, strings, lists and dicts, from its type and content.

    Tensors, arrays, pictures and long lists are described by their SHA-256, functions by their names, objects by
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
        function = _described(value.func, inside)
        return {"function": function, "arguments": _described([*value.args, value.keywords], inside)}
    if isinstance(value, functools._lru_cache_wrapper):
        return _described(value.__wrapped__, inside)
    if inspect.isfunction(value) and "<" in value.__qualname__ and id(value) not in inside:
        return _local_function(value, (*inside, id(value)))
    if isinstance(value, type) or inspect.isroutine(value) or inspect.ismodule(value):
        return _name(value)
    if id(value) in inside:
        return "itself"
    inside = (*inside, id(value))
    if isinstance(value, Mapping):
        return _short({str(key): _described(entry, inside) for key, entry in value.items()})
    if isinstance(value, set | frozenset):
        return _short(sorted((_described(entry, inside) for entry in value), key=json.dumps))
    if isinstance(value, list | tuple | range):
        return _short([_described(entry, inside) for entry in value])
    return _object(value, inside)


def _local_function(function: Any, inside: tuple[int, ...]) -> dict[str, Any]:
    """A lambda or local function: its name, a hash of its compiled code, and the variables and defaults it uses.

    Two such functions may share a name, and their source is not always available (in `python -c`, for instance):
    only the compiled code distinguishes them. Another version of Python compiles differently, and is taken for a
    different function.
    """
    uses: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # the variable has no value yet
            uses[name] = cell.cell_contents
    if function.__defaults__ or function.__kwdefaults__:
        uses["defaults"] = [function.__defaults__, function.__kwdefaults__]
    sha256 = hashlib.sha256(_code_text(function.__code__).encode()).hexdigest()
    description = {"function": _name(function), "code": sha256}
    return {**description, "uses": _described(uses, inside)} if uses else description


def _code_text(code: CodeType) -> str:
    """Instructions, names and constants; functions within the function are among its constants."""
    constants = [_code_text(item) if isinstance(item, CodeType) else describe(item) for item in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _object(value: Any, inside: tuple[int, ...]) -> Any:
    kind = {"type": _name(type(value))}
    if isinstance(value, nn.Module):
        return {**kind, "sha256": hash_tensors(value.state_dict())}
    if dataclasses.is_dataclass(value):
        return {**kind, **{f.name: _described(getattr(value, f.name), inside) for f in dataclasses.fields(value)}}
    if hasattr(value, "__dict__"):
        return {**kind, **{name: _described(attribute, inside) for name, attribute in vars(value).items()}}
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _name(value: Any) -> str:
    """The qualified name, without the module for this package's own, whose files may move."""
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", getattr(value, "__name__", ""))
    return name if str(module).partition(".")[0] in ("analyses", "hooked_vit") else f"{module}.{name}"


def _short(value: list[Any] | dict[str, Any]) -> Any:
    if len(value) <= _LONG:
        return value
    return {"length": len(value), "sha256": hashlib.sha256(json.dumps(value).encode()).hexdigest()}


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, on any device (of meta tensors, which have no bytes, all
    but those).

    >>> hash_tensors({"a": torch.zeros(2)}) == hash_tensors({"a": torch.zeros(2)})
    True
    """
    sha256 = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.is_meta:
            continue
        # as bytes: numpy has no bfloat16
        sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def differences(then: Any, now: Any, path: str = "") -> Iterator[str]:
    """The differences between two descriptions, each as `path: earlier value then, current value now`.

    >>> list(differences({"k": 5, "m": {"a": 1}}, {"k": 3, "m": {"a": 1}}))
    ['k: 5 then, 3 now']
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            yield from differences(then.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif _are_alike(then, now):
        for number, (earlier, current) in enumerate(zip(then, now, strict=True)):
            yield from differences(earlier, current, f"{path}[{number}]")
    elif then != now:
        yield f"{path}: {_line(then)} then, {_line(now)} now"


def _are_alike(then: Any, now: Any) -> bool:
    """Whether both are lists of equally many descriptions, of which the one that differs can be named."""
    lists = isinstance(then, list) and isinstance(now, list)
    return lists and len(then) == len(now) and all(isinstance(one, dict) for one in [*then, *now])


def _line(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."

"""Descriptions are the same in every process, distinguish different objects, and list their differences."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sweep_toys import ToyImages, in_a_process

from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.sweep.describe import describe, differences, hash_tensors


@dataclass(frozen=True)
class Options:
    k: int = 5
    name: str = "a"


class Holder:
    def __init__(self, held: object):
        self.held = held


def adder(k: int) -> Callable[[int], int]:
    """A function that uses the variable `k`."""
    return lambda x: x + k


PAIRS = {
    "numbers": (3, 4),
    "not a number": (float("nan"), float("inf")),
    "numpy numbers": (np.int64(3), np.int64(4)),
    "tensors": (torch.zeros(3), torch.zeros(3, dtype=torch.bfloat16)),
    "arrays": (np.zeros(3), np.ones(3)),
    "long lists": (list(range(100)), list(range(1, 101))),
    "sets": ({"a", "b"}, {"a"}),
    "paths": (Path("a"), Path("b")),
    "pictures": (Image.new("L", (2, 2)), Image.new("L", (2, 2), 1)),
    "dataclasses": (Options(), Options(k=6)),
    "objects": (Holder([1]), Holder([2])),
    "functions": (torch.sum, torch.mean),
    "lambdas": (lambda x: x in {"a", "b"}, lambda x: x in {"a", "c"}),
    "variables of lambdas": (adder(1), adder(2)),
    "defaults of lambdas": (lambda x=1: x, lambda x=2: x),
    "keyword defaults of lambdas": (lambda *, x=1: x, lambda *, x=2: x),
    "cached functions": (functools.cache(adder(1)), functools.cache(adder(2))),
    "partials": (functools.partial(max, 1), functools.partial(max, 2)),
    "partials of lambdas": (functools.partial(lambda x: x + 1, 1), functools.partial(lambda x: x + 2, 1)),
    "types": (int, float),
    "generators": (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
    "modules": (torch.nn.LayerNorm(2), torch.nn.LayerNorm(2, bias=False)),
    "subsets": (torch.utils.data.Subset(ToyImages(), [1]), torch.utils.data.Subset(ToyImages(), [2])),
    "tensor datasets": (torch.utils.data.TensorDataset(torch.zeros(2)), torch.utils.data.TensorDataset(torch.ones(2))),
    "emoji scenes": (EmojiScenes(9, seed=1), EmojiScenes(9, seed=1).swap_object()),
}


@pytest.mark.parametrize("name", PAIRS)
def test_different_objects_have_different_descriptions(name: str) -> None:
    first, second = (describe(value) for value in PAIRS[name])
    assert first != second
    assert json.loads(json.dumps(first)) == first == describe(PAIRS[name][0])
    assert list(differences(first, second))
    assert not list(differences(first, first))


def test_a_function_may_use_itself_or_a_variable_without_a_value() -> None:
    def recursive(n: int) -> int:
        return recursive(n - 1) + later if n else 0

    before = describe(recursive)
    later = 1
    assert before["uses"].keys() == {"recursive"}
    assert describe(recursive)["uses"]["later"] == 1


def test_descriptions_do_not_depend_on_the_process() -> None:
    code = (
        "import json; from analyses.sweep.describe import describe;"
        "print(json.dumps(describe([{'b', 'a', 'c'}, object(), print, iter([]), lambda x: x in {'a', 'b', 'c'}])))"
    )
    found = [in_a_process("-c", code, PYTHONHASHSEED=seed).stdout for seed in ("1", "2")]
    assert found[0] == found[1]
    assert "0x" not in found[0]


def test_an_object_may_contain_itself() -> None:
    holder = Holder([])
    holder.held.append(holder)  # type: ignore[attr-defined]
    assert "itself" in json.dumps(describe(holder))


def test_differences_are_listed_with_their_paths() -> None:
    then, now = {"a": {"b": [1, 2], "c": 3}}, {"a": {"b": [1, 3]}, "d": "x" * 200}
    assert list(differences(then, now)) == [
        "a.b: [1, 2] then, [1, 3] now",
        "a.c: 3 then, nothing now",
        f"d: nothing then, {'x' * 61}... now",
    ]


def test_differences_within_lists_of_descriptions_are_named() -> None:
    then, now = [{"k": 4, "long": "x" * 200}, {"k": 4}], [{"k": 4, "long": "x" * 200}, {"k": 8}]
    assert list(differences({"all": then}, {"all": now})) == ["all[1].k: 4 then, 8 now"]
    assert len(list(differences(then, now[:1], "all"))) == 1


def test_a_hash_depends_on_names_shapes_and_types() -> None:
    zeros = torch.zeros(4)
    different = [{"a": zeros}, {"b": zeros}, {"a": zeros.reshape(2, 2)}, {"a": zeros.int()}, {"a": -zeros}]
    assert len({hash_tensors(tensors) for tensors in different}) == 5
    assert hash_tensors({"a": torch.ones(3, 2).T}) == hash_tensors({"a": torch.ones(2, 3)})

"""Every example in a docstring runs and has the given output."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
import torch

import analyses
import hooked_vit


def modules() -> list[str]:
    """Names of all modules of the two packages."""
    return [
        module.name
        for package in (hooked_vit, analyses)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.endswith("__main__")
    ]


@pytest.mark.parametrize("name", modules())
def test_examples(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    names = {**vars(module), "torch": torch, "np": np, "HookedViT": hooked_vit.HookedViT}
    result = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0, (
        f"{result.failed} of {result.attempted} examples in {name} failed; see the captured output"
    )

"""For tests of explorer pages: the data of a page for each kind of small model, and its unpacked arrays."""

import base64
import functools
import zlib
from typing import Any

import numpy as np
import torch
from conftest import ported

from analyses.pages.explorer.content import explorer_data
from analyses.pages.explorer.run import explorer_names
from hooked_vit import HookedViT, ViTActivationCache

ASKED = (5, 2)


def unpacked(part: dict[str, Any]) -> torch.Tensor:
    """The array that `packed`, `packed_linear` or `packed_rows` stored, unpacked as by the page's script."""
    stored = np.frombuffer(zlib.decompress(base64.b64decode(part["data"])), f"<{part['type']}")
    numbers = torch.tensor(stored.astype(np.float64 if "step" in part or "levels" in part else stored.dtype))
    numbers = numbers.reshape(part["shape"])
    if "step" in part:
        return part["low"] + part["step"] * numbers
    if "levels" in part:
        relative = numbers / part["levels"]
        return unpacked(part["largest"])[..., None] * relative * relative.abs()
    return numbers.long() if part["type"] != "f4" else numbers


def an_image() -> torch.Tensor:
    """One image for the models of `conftest.make_timm`."""
    return torch.randn(1, 3, 32, 24, generator=torch.Generator().manual_seed(1))


@functools.cache
def explored(kind: str) -> tuple[HookedViT, ViTActivationCache, dict[str, Any]]:
    """A small model, a run of it, and the data of its page, its run's included, whose first classes are `ASKED`."""
    model = ported(kind)
    with torch.no_grad():
        _, cache = model.run_with_cache(an_image(), names_filter=explorer_names(model))
    data = explorer_data(model, an_image(), ASKED)
    [run] = data["runs"]
    return model, cache, {**data, **run}

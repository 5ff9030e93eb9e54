"""Arrays as text inside a page: with few bits per number, and compressed; the page's script unpacks them."""

import base64
import zlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["packed", "packed_linear", "packed_rows", "text_length"]

Packed = dict[str, Any]


def packed(values: Int[Tensor, "*axes"] | Float[Tensor, "*axes"]) -> Packed:
    """Pack non-negative whole numbers exactly, others as float32.

    `{"type", "shape", "data"}`: little-endian numbers in the order of the axes, compressed by zlib, in base64.

    >>> packed(torch.tensor([[1, 2, 300]]))["type"], packed(torch.tensor([0.5]))["type"]
    ('u2', 'f4')
    """
    if values.is_floating_point():
        return _packed(values.detach().float().cpu().numpy(), "f4")
    largest = int(values.max()) if values.numel() else 0
    kind = "u1" if largest < 2**8 else "u2" if largest < 2**16 else "u4"
    return _packed(values.detach().cpu().numpy(), kind)


def packed_linear(values: Float[Tensor, "*axes"]) -> Packed:
    """Pack in 65,536 equal steps from the smallest to the largest number: `low + step * stored`, error half a step.

    >>> stored = packed_linear(torch.tensor([-1.0, 0.0, 9.0]))
    >>> stored["low"], round(stored["step"] * 65535, 6)
    (-1.0, 10.0)
    """
    numbers = values.detach().double().cpu().numpy()
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 0.0)
    step = (high - low) / 65535 or 1.0
    return {**_packed(np.rint((numbers - low) / step), "u2"), "low": low, "step": step}


def packed_rows(values: Float[Tensor, "*axes column"], levels: int) -> Packed:
    """Pack each row relative to its largest magnitude: `largest * sign(stored) * (stored / levels)²`.

    Steps are finer near zero, where most attention is; the error is at most `largest / levels` everywhere.

    Args:
        values: Numbers, with rows along the last axis.
        levels: Number of steps, up to 255, or up to 127 with negative numbers.

    >>> stored = packed_rows(torch.tensor([[0.0, 0.25, 1.0]]), levels=4)
    >>> stored["levels"], stored["largest"]["shape"]
    (4, [1])
    """
    values = values.float()
    largest = values.abs().amax(dim=-1)
    relative = values / largest[..., None].clamp_min(torch.finfo(values.dtype).tiny)
    stored = (relative.sign() * relative.abs().sqrt() * levels).round()
    kind = "i1" if bool((values < 0).any()) else "u1"
    return {**_packed(stored.cpu().numpy(), kind), "levels": levels, "largest": packed(largest)}


def text_length(part: Packed) -> int:
    """The approximate number of characters of a packed array in the page.

    >>> text_length(packed(torch.zeros(1000))) < 200
    True
    """
    return len(part["data"]) + 100 + (text_length(part["largest"]) if "largest" in part else 0)


def _packed(values: np.ndarray, kind: str) -> Packed:
    numbers = np.ascontiguousarray(values.astype(f"<{kind}"))
    data = base64.b64encode(zlib.compress(numbers.tobytes(), 6)).decode()
    return {"type": kind, "shape": list(values.shape), "data": data}

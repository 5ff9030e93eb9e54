"""Every way to name tokens, with the mask [batch token] that it means: of a model with CLS and 12 patches."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

MASK = torch.arange(13) % 4 == 1
MASK_PER_IMAGE = torch.stack([torch.arange(13) < 3, torch.arange(13) == 7])
NONE_IN_ONE_IMAGE = torch.stack([torch.arange(13) == 5, torch.arange(13) < 0])

TOKEN_CHOICES: dict[str, Any] = {
    "an index": 3,
    "an index from the end": -1,
    "indices": [0, 4, 12],
    "a range": range(2, 5),
    "a tensor of indices": torch.tensor([6, 2]),
    "a slice": slice(1, 9, 3),
    "a group": "patch",
    "CLS": "cls",
    "a mask": MASK,
    "a list of bools": MASK.tolist(),
    "a mask for all images": MASK[None],
    "a mask per image": MASK_PER_IMAGE,
    "a mask that is empty in one image": NONE_IN_ONE_IMAGE,
    "an array of indices": np.array([1, 3]),
    "an array as a mask": MASK.numpy(),
    "an array as a mask per image": MASK_PER_IMAGE.numpy(),
}


def chosen_tokens(chosen: Any) -> Tensor:
    """True at the chosen tokens of each of two images, read entry by entry."""
    groups = {"patch": list(range(1, 13)), "cls": [0]}
    expected = torch.zeros(2, 13, dtype=torch.bool)
    if isinstance(chosen, str):
        chosen = groups[chosen]
    if isinstance(chosen, slice):
        chosen = list(range(13))[chosen]
    values = torch.as_tensor(chosen if not isinstance(chosen, range) else list(chosen))
    if values.dtype == torch.bool:
        return values.expand(2, 13)
    for index in values.flatten().tolist():
        expected[:, index] = True
    return expected

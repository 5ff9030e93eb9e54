"""The classes of an explorer page: those that were asked for and those predicted most, or all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

__all__ = ["ClassChoice", "choose_classes"]

_ALL_UP_TO = 100
_PREDICTED = 10


@dataclass(frozen=True)
class ClassChoice:
    """Classes by index.

    Attributes:
        shown: Classes with rank and logit at every token: first those asked for, then by the model's logit.
        leading: The first of them, which also have feature importance and logit attribution, which take more room.
        asked: How many of them were asked for.
    """

    shown: tuple[int, ...]
    leading: tuple[int, ...]
    asked: int


def choose_classes(logits: Float[Tensor, "n_classes"], asked: Sequence[int], room_for: int) -> ClassChoice:
    """The classes asked for and the ten that the model predicts most; all classes, if there are at most a hundred.

    Args:
        logits: The model's logits for the picture.
        asked: By index.
        room_for: The number of leading classes; those asked for always lead.

    >>> import torch
    >>> choose_classes(torch.tensor([0.5, 2.0, 1.0]), [0], room_for=7)
    ClassChoice(shown=(0, 1, 2), leading=(0, 1, 2), asked=1)
    """
    first = dict.fromkeys(asked)
    n_classes = len(logits)
    predicted = logits.argsort(descending=True, stable=True).tolist()
    shown = tuple(dict.fromkeys([*first, *(predicted if n_classes <= _ALL_UP_TO else predicted[:_PREDICTED])]))
    return ClassChoice(shown, shown[: max(room_for, len(first), 1)], len(first))

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
        shown: Classes with rank and logit at every token: first those asked for, then by the model's logits.
        leading: The first of them, which also have feature importance and logit attribution, which take more room.
        remembered: The first of them, which also have the memories that add most to them.
        asked: How many of them were asked for.
    """

    shown: tuple[int, ...]
    leading: tuple[int, ...]
    remembered: tuple[int, ...]
    asked: int


def choose_classes(
    logits: Float[Tensor, "picture n_classes"],
    asked: Sequence[int],
    room_for: int,
    room_for_leading: int,
    room_for_remembered: int,
) -> ClassChoice:
    """The classes asked for and the ten that the model predicts most; all classes, if there are at most a hundred.

    The two pictures of a page take turns. Where there is little room there are fewer classes, but those asked for and
    the predicted ones are always among them.

    Args:
        logits: The model's logits for each picture.
        asked: By index.
        room_for: The number of classes.
        room_for_leading: The number of leading classes.
        room_for_remembered: The number of classes with memories.

    >>> import torch
    >>> choose_classes(torch.tensor([[0.5, 2.0, 1.0]]), [0], 7, 2, 0)
    ClassChoice(shown=(0, 1, 2), leading=(0, 1), remembered=(0, 1), asked=1)
    """
    first = dict.fromkeys(asked)
    n_classes = logits.shape[-1]
    n_predicted = n_classes if n_classes <= _ALL_UP_TO else _PREDICTED
    predicted = logits.argsort(dim=-1, descending=True, stable=True)[:, :n_predicted].T.flatten().tolist()
    ordered = tuple(dict.fromkeys([*first, *predicted]))
    needed = len(dict.fromkeys([*first, *predicted[: len(logits)]]))
    shown, leading, remembered = (
        ordered[: max(room, needed)] for room in (room_for, room_for_leading, room_for_remembered)
    )
    return ClassChoice(shown, leading[: len(shown)], remembered[: min(len(leading), len(shown))], len(first))

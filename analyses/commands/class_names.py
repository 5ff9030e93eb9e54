"""Classes that a user named or numbered."""

from collections.abc import Sequence

from analyses.commands.errors import USAGE, user_errors
from hooked_vit import HookedViT

__all__ = ["class_index", "class_indices"]


def class_index(model: HookedViT, text: str) -> int:
    """The index of a class, given its name or its index, or the end of the command with a line that suggests names.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> class_index(model, "pizza") == class_index(model, "69")
    True
    """
    with user_errors(ValueError, status=USAGE):
        return model.class_index(int(text) if text.isdecimal() else text)


def class_indices(model: HookedViT, texts: Sequence[str] | None) -> list[int]:
    """The indices of several classes; none, if an option was not given."""
    return [class_index(model, text) for text in texts or ()]

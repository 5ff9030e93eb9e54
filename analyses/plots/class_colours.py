"""Colours of classes that stay the same from one figure to the next."""

from collections import Counter
from collections.abc import Sequence

__all__ = ["ClassColours"]

# from Paul Tol's light and muted colours: colour-blind readers can tell them apart, and from vermilion
_LIGHT = ("#77AADD", "#EEDD88", "#44BB99", "#FFAABB", "#99DDFF", "#BBCC33", "#AAAA00")
_DARK = ("#332288", "#117733", "#882255", "#AA4499")
_COLOURS = (*_LIGHT, *_DARK)


class ClassColours:
    """Gives each class a colour when it first occurs, and the same colour in later figures.

    There are eleven colours, so after that many classes different ones may have the same colour. Within a figure
    colours never repeat: if two of its classes have the same colour, the less frequent one gets another colour there.

    >>> colours = ClassColours()
    >>> first, second = colours.of([4, 2]), colours.of([9, 2])
    >>> first[2] == second[2], second[9] in first.values()
    (True, False)
    """

    n_colours = len(_COLOURS)
    """The largest number of classes in one figure."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def of(self, classes: Sequence[int]) -> dict[int, str]:
        """A colour for each class of a figure, in the order given.

        Args:
            classes: By index, the most frequent first; at most `n_colours`.

        Raises:
            ValueError: If there are too many.
        """
        if len(classes) > self.n_colours:
            raise ValueError(f"at most {self.n_colours} classes can have a colour, got {len(classes)}")
        chosen: dict[int, str] = {}
        for index in classes:
            if index in self._known and self._known[index] not in chosen.values():
                chosen[index] = self._known[index]
        for index in classes:
            if index not in chosen:
                uses = Counter(self._known.values())
                free = [colour for colour in _COLOURS if colour not in chosen.values()]
                chosen[index] = min(free, key=lambda colour: uses[colour])
                self._known.setdefault(index, chosen[index])
        return {index: chosen[index] for index in classes}

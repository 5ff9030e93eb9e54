"""A class keeps its colour from figure to figure, and no two classes of a figure have the same."""

import pytest

from analyses.plots.class_colours import ClassColours


def test_a_class_keeps_its_colour_in_later_figures() -> None:
    colours = ClassColours()
    first = colours.of([3, 1, 4])
    second = colours.of([1, 5, 3])
    assert {index: second[index] for index in (1, 3)} == {index: first[index] for index in (1, 3)}
    assert second[5] not in first.values()
    assert list(second) == [1, 5, 3]


def test_colours_never_repeat_within_a_figure() -> None:
    colours = ClassColours()
    n = ClassColours.n_colours
    for start in range(0, 40, 3):
        assert len(set(colours.of(range(start, start + n)).values())) == n
    before = colours.of([0, 1])
    assert colours.of([1, 0]) == before


def test_too_many_classes_are_an_error() -> None:
    with pytest.raises(ValueError, match="at most 11 classes can have a colour, got 12"):
        ClassColours().of(range(12))

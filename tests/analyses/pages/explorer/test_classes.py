"""A page tells of the classes asked for first, then of those predicted most; of all, where they are few."""

import torch

from analyses.pages.explorer.classes import choose_classes


def test_few_classes_are_all_shown() -> None:
    choice = choose_classes(torch.arange(100.0), [7, 3, 7], room_for=200)
    assert choice.shown[:4] == (7, 3, 99, 98)
    assert sorted(choice.shown) == list(range(100))
    assert choice.leading == choice.shown
    assert choice.asked == 2


def test_with_little_room_only_some_lead() -> None:
    choice = choose_classes(torch.arange(100.0), [7, 99], room_for=5)
    assert len(choice.shown) == 100
    assert choice.leading == choice.shown[:5] == (7, 99, 98, 97, 96)
    assert choose_classes(torch.arange(100.0), [7, 99], room_for=0).leading == (7, 99)
    assert choose_classes(torch.arange(100.0), [], room_for=0).leading == (99,)


def test_of_many_classes_ten_and_those_asked_for() -> None:
    choice = choose_classes(torch.arange(101.0), [7], room_for=200)
    assert choice.shown == choice.leading == (7, *range(100, 90, -1))

"""A page tells of the classes asked for first, then of those predicted most; of all, where they are few."""

import torch

from analyses.pages.explorer.classes import choose_classes

LOGITS = torch.arange(100.0)[None]


def test_few_classes_are_all_shown() -> None:
    choice = choose_classes(LOGITS, [7, 3, 7], 200, 200, 200)
    assert choice.shown[:4] == (7, 3, 99, 98)
    assert sorted(choice.shown) == list(range(100))
    assert choice.remembered == choice.leading == choice.shown
    assert choice.asked == 2


def test_with_little_room_only_some_lead() -> None:
    choice = choose_classes(LOGITS, [7, 99], 200, 5, 4)
    assert len(choice.shown) == 100
    assert choice.leading == choice.shown[:5] == (7, 99, 98, 97, 96)
    assert choice.remembered == (7, 99, 98, 97)
    assert choose_classes(LOGITS, [7], 200, 0, 0).leading == (7, 99)
    assert choose_classes(LOGITS, [], 200, 0, 0).leading == (99,)
    assert choose_classes(LOGITS, [], 3, 50, 60) == choose_classes(LOGITS, [], 3, 3, 3)


def test_of_many_classes_ten_and_those_asked_for() -> None:
    choice = choose_classes(torch.arange(101.0)[None], [7], 200, 200, 200)
    assert choice.shown == choice.leading == (7, *range(100, 90, -1))


def test_two_pictures_take_turns() -> None:
    logits = torch.stack([torch.arange(101.0), -torch.arange(101.0)])
    choice = choose_classes(logits, [7], 200, 0, 0)
    assert choice.shown[:5] == (7, 100, 0, 99, 1)
    assert len(choice.shown) == 20  # 7 is among the ten of the second picture
    assert choice.remembered == (7, 100, 0)

"""A page tells of the classes asked for first, then of those predicted most; of all, where they are few."""

import torch

from analyses.exploring.class_choice import choose_classes


def test_few_classes_are_all_shown() -> None:
    logits = torch.arange(100.0)
    choice = choose_classes(logits, [7, 3, 7], roomy=True)
    assert choice.shown[:4] == (7, 3, 99, 98)
    assert sorted(choice.shown) == list(range(100))
    assert choice.leading == choice.shown
    assert choice.asked == 2


def test_without_room_only_some_lead() -> None:
    choice = choose_classes(torch.arange(100.0), [7, 99], roomy=False)
    assert len(choice.shown) == 100
    assert choice.leading == (7, 99, *range(98, 89, -1))
    assert choice.shown[: len(choice.leading)] == choice.leading


def test_of_many_classes_ten_and_those_asked_for() -> None:
    choice = choose_classes(torch.arange(101.0), [7], roomy=True)
    assert choice.shown == choice.leading == (7, *range(100, 90, -1))

"""Scores of maps against counts one patch at a time, and against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from analyses.faithfulness.localisation import (
    average_precision,
    mask_iou,
    pointing_game,
    two_object_scores,
    two_object_test,
)

GENERATOR = torch.Generator().manual_seed(2)
MAPS = torch.rand(6, 11, generator=GENERATOR).mul(5).round()  # with ties
ON_OBJECT = torch.rand(6, 11, generator=GENERATOR) < 0.4


def test_matches_one_map_at_a_time() -> None:
    points, iou, precision = (score(MAPS, ON_OBJECT) for score in (pointing_game, mask_iou, average_precision))
    for image in range(6):
        values, inside = MAPS[image].tolist(), ON_OBJECT[image].tolist()
        highest = [place for place, value in enumerate(values) if value == max(values)]
        assert points[image].item() == pytest.approx(sum(inside[place] for place in highest) / len(highest))
        best = set(sorted(range(11), key=lambda place: -values[place])[: sum(inside)])
        mask = {place for place in range(11) if inside[place]}
        assert iou[image].item() == pytest.approx(len(best & mask) / len(best | mask))
        assert precision[image].item() == pytest.approx(average_precision_score(inside, values), rel=1e-6)


def test_without_an_object_there_is_no_score() -> None:
    nothing = torch.zeros(1, 11, dtype=torch.bool)
    assert math.isnan(mask_iou(MAPS[:1], nothing))
    assert math.isnan(average_precision(MAPS[:1], nothing))


def test_two_objects() -> None:
    first, second = torch.arange(11) < 3, torch.arange(11) > 8
    on_objects = torch.stack([first, second]).expand(2, -1, -1)
    noise = torch.rand(11, generator=GENERATOR)
    class_specific = torch.stack([noise + 2 * first, noise + 2 * second])
    class_agnostic = torch.stack([noise + 2 * first, noise + 2 * first])
    test = two_object_test(torch.stack([class_specific, class_agnostic]), on_objects)
    assert test.right.tolist() == [[True, True], [True, False]]
    assert test.both_right.tolist() == [True, False]
    assert test.points_to_own.tolist() == [[1, 1], [1, 0]]
    assert test.points_to_other.tolist() == [[0, 0], [0, 1]]
    map_of_second = class_specific[1]
    scaled = (map_of_second - map_of_second.mean()) / map_of_second.std(correction=0)
    torch.testing.assert_close(test.own[0, 1], scaled[second].mean())
    torch.testing.assert_close(test.other[0, 1], scaled[first].mean())
    flat = two_object_test(torch.ones(1, 2, 11), on_objects[:1])
    assert flat.right.tolist() == [[False, False]]


def test_scores_of_two_objects_have_intervals_over_images() -> None:
    on_objects = torch.stack([torch.arange(11) < 3, torch.arange(11) > 8]).expand(400, -1, -1)
    noise = torch.rand(400, 2, 11, generator=torch.Generator().manual_seed(0))
    tests = {
        "noise": two_object_test(noise, on_objects),
        "agnostic": two_object_test(noise[:, :1].expand(-1, 2, -1), on_objects),
    }
    table = two_object_scores(tests, seed=4).set_index(["method", "metric"])
    right = tests["noise"].right.double().mean(1).numpy()
    row = table.loc[("noise", "right")]
    assert row["value"] == pytest.approx(right.mean())
    drawn = right[np.random.default_rng(0).integers(0, 400, size=(2000, 400))].mean(1)
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist(), abs=0.01)
    # random maps score at chance, and a map that ignores the class is never right for both
    assert table.loc[("noise", "both_right"), "low"] < 0.25 < table.loc[("noise", "both_right"), "high"]
    assert table.loc[("agnostic", "right"), ["value", "low", "high"]].tolist() == [0.5, 0.5, 0.5]
    assert table.loc[("agnostic", "both_right"), "value"] == 0
    assert table["n_images"].eq(400).all()


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    with pytest.raises(ValueError, match=r"one bool per patch of the maps, \(6, 11\), got torch.int64"):
        pointing_game(MAPS, ON_OBJECT.long())
    with pytest.raises(ValueError, match="maps contain NaN, so their patches cannot be ranked"):
        mask_iou(MAPS * torch.nan, ON_OBJECT)
    with pytest.raises(ValueError, match="object 1 of image 0 covers no patch"):
        two_object_test(MAPS[:1, None].expand(1, 2, 11), torch.stack([ON_OBJECT[:1], ON_OBJECT[:1] & False], dim=1))

"""Directions of two dictionaries: cosines and matches equal a search over all permutations."""

from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

from analyses.dictionaries import decoder_stability


def test_matches_are_the_best_of_all_permutations() -> None:
    first, second = torch.randn(5, 7), torch.randn(5, 7)
    found = decoder_stability(first, second)
    cosines = F.normalize(first.double(), dim=-1) @ F.normalize(second.double(), dim=-1).T
    best = max(permutations(range(5)), key=lambda order: sum(cosines[i, j] for i, j in enumerate(order)))
    assert found.match.tolist() == list(best)
    assert found.matched_cosine.tolist() == pytest.approx([float(cosines[i, j]) for i, j in enumerate(best)])
    assert found.max_cosine.tolist() == pytest.approx(cosines.amax(dim=1).tolist())
    assert found.mean_max_cosine == pytest.approx(float(cosines.amax(dim=1).mean()))
    assert found.share_above(0.2) == pytest.approx(sum(float(cosines[i, j]) > 0.2 for i, j in enumerate(best)) / 5)


def test_a_shuffled_scaled_dictionary_is_the_same() -> None:
    first, order = torch.randn(9, 4), torch.randperm(9)
    found = decoder_stability(first, 3 * first[order])
    assert found.mean_matched_cosine == pytest.approx(1)
    assert torch.equal(order[found.match], torch.arange(9))


def test_dead_latents_are_left_out_and_indices_stay_those_of_all() -> None:
    first, second = torch.eye(4)[:3], torch.eye(4)[[3, 2, 1, 0]]
    live = torch.tensor([True, True, False, True])
    found = decoder_stability(first, second, second_live=live)
    assert (int(found.match[0]), int(found.match[2])) == (3, 1)
    assert found.max_cosine.tolist() == [1, 0, 1]
    fewer = decoder_stability(first, second, second_live=torch.tensor([True, False, False, True]))
    assert int(fewer.matched_cosine.isnan().sum()) == 1
    assert (fewer.match == -1).tolist() == fewer.matched_cosine.isnan().tolist()


def test_errors_say_what_came(bad_input: None) -> None:
    with pytest.raises(ValueError, match="one width, got 3 and 4"):
        decoder_stability(torch.eye(3), torch.eye(4))
    with pytest.raises(ValueError, match="are all latents dead"):
        decoder_stability(torch.eye(3), torch.eye(3), first_live=torch.zeros(3, dtype=torch.bool))

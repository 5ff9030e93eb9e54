"""Choices of memories, against sums written out; controls match norms and differ from the chosen memories."""

import pytest
import torch

from analyses.memory_pairs.choices import ChoiceDraws, contributing_memories, norm_matched_memories


def test_contributions_are_summed_over_tokens():
    generator = torch.Generator().manual_seed(0)
    coefficients, logits = torch.randn(3, 5, 11, generator=generator), torch.randn(3, 11, generator=generator)
    found = contributing_memories(coefficients, logits, 4)
    for image in range(3):
        written = [sum(coefficients[image, t, m].item() * logits[image, m].item() for t in range(5)) for m in range(11)]
        assert found[image].tolist() == sorted(range(11), key=lambda m: -written[m])[:4]


def test_matched_memories_have_similar_norms_and_are_distinct():
    generator = torch.Generator().manual_seed(1)
    norms = torch.rand(200, generator=generator) + 0.5
    chosen = torch.stack([torch.randperm(200, generator=generator)[:8] for _ in range(6)])
    matched = norm_matched_memories(chosen, norms, torch.rand(6, 200, generator=generator))
    order = norms.argsort().argsort()
    for image in range(6):
        assert len(set(matched[image].tolist())) == 8
        assert not set(matched[image].tolist()) & set(chosen[image].tolist())
        assert ((order[matched[image]] - order[chosen[image]]).abs() <= 16).all()
    again = norm_matched_memories(chosen, norms, torch.rand(6, 200, generator=generator))
    assert not torch.equal(matched, again)


def test_without_a_free_neighbour_the_nearest_memory_is_taken():
    norms = torch.arange(100.0)
    chosen = torch.arange(30, 80)[None]
    matched = norm_matched_memories(chosen, norms, torch.rand(1, 100))
    assert sorted(matched[0].tolist()) == [*range(30), *range(80, 100)]
    with pytest.raises(ValueError, match="expected at most half of the 100 memories to be chosen, got k = 51"):
        norm_matched_memories(torch.arange(51)[None], norms, torch.rand(1, 100))


def test_draws_depend_only_on_the_images_index():
    labels = torch.tensor([4, 0, 6, 2])
    whole = ChoiceDraws.of_images(torch.tensor([3, 8, 9, 5]), labels, 7, 3, 11, seed=2)
    part = ChoiceDraws.of_images(torch.tensor([9, 3]), labels[[2, 0]], 7, 3, 11, seed=2)
    assert whole.other[[2, 0]].tolist() == part.other.tolist()
    assert torch.equal(whole.priority[[2, 0]], part.priority)
    assert not (whole.other == labels).any()
    other_seed = ChoiceDraws.of_images(torch.tensor([3]), labels[:1], 7, 3, 11, seed=3)
    assert not torch.equal(other_seed.priority[0], whole.priority[0])
    others = ChoiceDraws.of_images(torch.arange(300), torch.zeros(300, dtype=torch.long), 7, 1, 1, seed=0).other
    assert set(others.tolist()) == {1, 2, 3, 4, 5, 6}

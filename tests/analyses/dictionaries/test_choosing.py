"""Active latents against loops."""

import torch

from analyses.dictionaries.choosing import above_threshold, largest, largest_of_batch


def test_the_choices_equal_loops() -> None:
    pre = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    for k in (1, 3, 11):
        kept = largest(pre, k)
        for row, found in zip(pre.tolist(), kept.tolist(), strict=True):
            top = sorted(row, reverse=True)[:k]
            assert found == [value if value in top and value > 0 else 0.0 for value in row]
        top = sorted(pre.flatten().tolist(), reverse=True)[: 7 * k]
        expected = [[value if value in top and value > 0 else 0.0 for value in row] for row in pre.tolist()]
        assert largest_of_batch(pre, k).tolist() == expected
    threshold = torch.linspace(0, 1, 11)
    expected = [[v if v > float(t) else 0.0 for v, t in zip(row, threshold, strict=True)] for row in pre.tolist()]
    assert above_threshold(pre, threshold).tolist() == expected

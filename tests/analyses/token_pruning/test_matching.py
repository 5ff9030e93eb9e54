"""ToMe's matching and merging against loops over tokens, as the paper's section 3.2 describes them."""

import pytest
import torch
from merging_by_hand import by_loop

from analyses.token_pruning import TokenGroups, bipartite_matching


@pytest.mark.parametrize("n_prefix", [0, 1, 2])
@pytest.mark.parametrize("r", [1, 3, 5])
def test_it_merges_as_the_loop_does(n_prefix: int, r: int) -> None:
    generator = torch.Generator().manual_seed(10 * n_prefix + r)
    n_tokens = n_prefix + 10
    metric, x = (torch.randn(2, n_tokens, width, generator=generator) for width in (5, 4))
    groups = TokenGroups.single(2, n_prefix, 10, x)
    sizes = groups.size
    for _ in range(2):  # the second time, tokens already stand for several patches
        r_now = min(r, (metric.shape[1] - n_prefix) // 2)
        target, n_after = bipartite_matching(metric, r_now, n_prefix)
        expected = [by_loop(metric[i], x[i], groups.size[i], r_now, n_prefix) for i in range(2)]
        x, groups = groups.merge(x, target, n_after)
        for i, (rows, sizes) in enumerate(expected):
            torch.testing.assert_close(x[i], rows)
            torch.testing.assert_close(groups.size[i], sizes)
        assert groups.size.sum(dim=1).tolist() == [n_tokens, n_tokens]
        metric = torch.randn(2, n_after, 5, generator=generator)
    # every patch knows its token
    for i in range(2):
        counts = torch.ones(x.shape[1])
        counts[n_prefix:] = groups.token_of_patch[i].bincount(minlength=x.shape[1])[n_prefix:].float()
        torch.testing.assert_close(groups.size[i], counts)
    everything = groups.unmerge(x, n_prefix)
    for patch in range(10):
        assert torch.equal(everything[1, n_prefix + patch], x[1, groups.token_of_patch[1, patch]])
    assert torch.equal(everything[:, :n_prefix], x[:, :n_prefix])


def test_at_most_half_of_the_patches_merge_and_r_is_checked() -> None:
    metric = torch.randn(1, 8, 3)
    assert bipartite_matching(metric, 100, 1)[1] == 5
    assert torch.equal(bipartite_matching(metric, 0, 1)[0], torch.arange(8)[None])
    assert bipartite_matching(metric[:, :2], 5, 1)[1] == 2
    with pytest.raises(ValueError, match="at least 0, got -1"):
        bipartite_matching(metric, -1)

"""Groups of tokens compared with the layout's types and a mask read patch by patch."""

import torch
from analysis_batches import batch_of, model_of

from analyses.analysis.groups import TOKEN_GROUPS, count_ranks, sum_by_group, token_groups
from analyses.identifiability import Identifiability


def test_each_token_is_in_the_groups_of_its_type(kind):
    batch = batch_of(kind, [Identifiability()])
    layout, groups = model_of(kind).token_layout, token_groups(batch)
    assert batch.object_mask is not None
    for image in range(3):
        for token, token_type in enumerate(layout.token_types):
            expected = {token_type}
            if token_type == "patch":
                row, column = layout.positions[token - layout.n_prefix].tolist()
                # the patch's top left pixel, as nearest-neighbour resizing takes it
                expected.add("object" if batch.object_mask[image, 8 * row, 8 * column] else "context")
            members = {name for name, member in zip(TOKEN_GROUPS, groups[image, :, token], strict=True) if member}
            assert members == expected


def test_without_masks_there_are_no_regions():
    groups = token_groups(batch_of("cls", [Identifiability()], masks=False))
    assert not groups[:, list(TOKEN_GROUPS).index("object")].any()
    assert not groups[:, list(TOKEN_GROUPS).index("context")].any()


def test_sums_and_counts_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    rank = torch.randint(0, 7, (2, 3, 5), generator=generator)  # layer batch token
    values = torch.randn(4, 2, 3, 5, generator=generator)
    groups = torch.rand(3, 6, 5, generator=generator) < 0.5
    counts = torch.zeros(2, 6, 7, dtype=torch.int64)
    sums = torch.zeros(3, 4, 2, 6, dtype=torch.float64)
    for image in range(3):
        for group in range(6):
            for token in range(5):
                if not groups[image, group, token]:
                    continue
                for layer in range(2):
                    counts[layer, group, rank[layer, image, token]] += 1
                    sums[image, :, layer, group] += values[:, layer, image, token]
    assert torch.equal(count_ranks(rank, groups, n_classes=7), counts)
    assert torch.allclose(sum_by_group(values, groups), sums)
    assert torch.equal(sum_by_group(rank, groups).sum(dim=0), (counts * torch.arange(7)).sum(dim=-1).double())


def test_an_image_has_the_same_sums_in_any_batch():
    generator = torch.Generator().manual_seed(1)
    values, groups = torch.randn(3, 5, 13, generator=generator), torch.rand(5, 6, 13, generator=generator) < 0.5
    alone = torch.cat([sum_by_group(values[:, [i]], groups[[i]]) for i in range(5)])
    assert torch.equal(sum_by_group(values, groups), alone)

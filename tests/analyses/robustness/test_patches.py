"""Hidden and shuffled patches equal loops over patches, and depend on the image's index alone."""

import pytest
import torch
from perturbed_batches import perturbed_batch
from torch import Tensor

from analyses.robustness import Occlusion, PatchShuffle


def piece(image: Tensor, index: int, side: tuple[int, int] = (8, 8), columns: int = 3) -> Tensor:
    """One piece of an image."""
    row, column = divmod(index, columns)
    return image[:, side[0] * row : side[0] * (row + 1), side[1] * column : side[1] * (column + 1)]


def test_the_share_of_patches_is_hidden_and_the_others_are_unchanged() -> None:
    batch = perturbed_batch("cls")
    assert batch.images is not None
    for share, expected in ((0.25, 3), (0.01, 1), (1.0, 12)):
        found = Occlusion(share)(batch)
        for image, clean in zip(found, batch.images, strict=True):
            hidden = [index for index in range(12) if not piece(image, index).any()]
            assert len(hidden) == expected
            for index in set(range(12)) - set(hidden):
                assert torch.equal(piece(image, index), piece(clean, index))


@pytest.mark.parametrize(("grid", "side", "n"), [(None, (8, 8), 12), ((2, 2), (16, 12), 4)])
def test_pieces_are_permuted(grid: tuple[int, int] | None, side: tuple[int, int], n: int) -> None:
    batch = perturbed_batch("cls", (0, 1, 2, 3))
    assert batch.images is not None
    found, columns = PatchShuffle(grid, seed=1)(batch), 24 // side[1]
    orders = set()
    for image, clean in zip(found, batch.images, strict=True):
        pieces = [piece(clean, index, side, columns) for index in range(n)]
        shown = [piece(image, index, side, columns) for index in range(n)]
        order = [next(j for j, other in enumerate(pieces) if torch.equal(other, one)) for one in shown]
        assert sorted(order) == list(range(n))
        orders.add(tuple(order))
    assert len(orders) > 1


@pytest.mark.parametrize("kind", [Occlusion, PatchShuffle])
def test_draws_depend_on_the_index_and_the_seed_alone(kind: type[Occlusion | PatchShuffle]) -> None:
    together, alone = kind()(perturbed_batch("cls", (5, 6))), kind()(perturbed_batch("cls", (6,)))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(kind(seed=1)(perturbed_batch("cls", (6,))), alone)


def test_errors() -> None:
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"expected a share of patches above 0 and up to 1, got {share}"):
            Occlusion(share)
    with pytest.raises(ValueError, match="images of 32 × 24 pixels have no grid of 5 × 3 equal pieces"):
        PatchShuffle((5, 3))(perturbed_batch("cls"))

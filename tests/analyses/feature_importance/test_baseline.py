"""Random maps depend only on the image, or on its index in a dataset."""

import torch
from conftest import ported
from torch import Tensor

from analyses.feature_importance.baseline import random_map

CLASSES = torch.tensor([5, 0])


def test_random_maps_depend_only_on_the_image_or_its_index(images: Tensor) -> None:
    model = ported("cls")
    both = random_map(model, images, CLASSES)
    assert torch.equal(both[[1]], random_map(model, images[[1]], CLASSES[:1]))
    assert not torch.equal(both, random_map(model, images, CLASSES, seed=1))
    by_index = random_map(model, images, CLASSES, index=torch.tensor([4, 9]))
    assert torch.equal(by_index[1:], random_map(model, images * 2, CLASSES, index=torch.tensor([9, 4]))[:1])

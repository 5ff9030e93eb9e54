"""Grad-CAM is its formula, one patch at a time, in models of every kind."""

import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.feature_importance.gradient_maps import grad_cam

CLASSES = torch.tensor([5, 0])


def test_grad_cam(kind: str, images: Tensor) -> None:
    model = ported(kind)
    cam, patches = grad_cam(model, images, CLASSES), model.token_layout.patches
    stream = model(images, stop_at_layer=2).detach().requires_grad_()
    with torch.enable_grad():
        of_classes = model(stream, start_at_layer=2).gather(1, CLASSES[:, None]).sum()
        (gradient,) = torch.autograd.grad(of_classes, stream)
    for image in range(2):
        weights = gradient[image, patches].mean(0)
        for place, vector in enumerate(stream[image, patches]):
            value = max(0.0, float((weights * vector).sum().detach()))
            assert cam[image, place].item() == pytest.approx(value, rel=1e-4, abs=1e-6)

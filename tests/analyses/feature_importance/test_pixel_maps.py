"""Maps on pixels equal autograd's gradients, patch by patch; without captum the error says what to install."""

import builtins

import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.feature_importance.pixel_maps import captum_map, input_gradients, integrated_gradients

CLASSES = torch.tensor([5, 0])


def by_patch(attribution: Tensor) -> Tensor:
    means = [attribution[:, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8].mean() for r in range(4) for c in range(3)]
    return torch.stack(means)


def test_maps_match_gradients_of_pixels(images: Tensor) -> None:
    model, steps = ported("gap_registers_layerscale"), 64
    saliency = input_gradients(model, images, CLASSES)
    integrated = integrated_gradients(model, images, CLASSES, n_steps=steps)
    times_input = captum_map("InputXGradient", model, images, CLASSES)
    for image in range(2):

        def gradient(pixels: Tensor, image: int = image) -> Tensor:
            pixels = pixels.clone().requires_grad_()
            with torch.enable_grad():
                return torch.autograd.grad(model(pixels[None])[0, CLASSES[image]], pixels)[0]

        gradients = gradient(images[image])
        torch.testing.assert_close(saliency[image], by_patch(gradients.abs()), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(times_input[image], by_patch(gradients * images[image]), rtol=1e-4, atol=1e-6)
        along = [gradient(images[image] * (step + 0.5) / steps) for step in range(steps)]
        mean = sum(along[1:], along[0]) / steps
        torch.testing.assert_close(integrated[image], by_patch(mean * images[image]), rtol=1e-3, atol=1e-5)


def test_without_captum(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_captum(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("captum"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_captum)
    with pytest.raises(ImportError, match=r"Saliency needs captum: pip install 'hooked-vit\[explain\]'"):
        input_gradients(ported("cls"), images, CLASSES)

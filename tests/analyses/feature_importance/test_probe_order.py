"""Probe order equals a sum of ranks counted one patch and one block at a time."""

import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.feature_importance.probe_order import ProbeOrder
from analyses.linear_probe.features import probe_features
from analyses.linear_probe.ridge import fit_ridge_probe

CLASSES = torch.tensor([5, 0])


def test_matches_a_count_of_ranks(images: Tensor) -> None:
    model = ported("distilled")
    generator = torch.Generator().manual_seed(3)
    pictures, labels = torch.randn(14, 3, 32, 24, generator=generator), torch.arange(14) % 7
    features = probe_features(model, [(pictures, labels)]).features
    probe = fit_ridge_probe(features, labels, 7)
    maps = ProbeOrder(probe)(model, images, CLASSES)
    _, cache = model.run_with_cache(images)
    for image in range(2):
        for patch in range(12):
            total, score = 0, 0.0
            for layer in range(3):
                vector = cache["resid_post", layer][image, 2 + patch]
                class_logits = vector @ probe.weight[layer, 2 + patch] + probe.bias[layer, 2 + patch]
                total += sum(logit > class_logits[CLASSES[image]] for logit in class_logits.tolist())
                score += class_logits[CLASSES[image]].item()
            expected = -int(total) + torch.tensor(score).sigmoid().item()
            assert maps[image, patch].item() == pytest.approx(expected, abs=1e-4)


def test_probes_of_another_model_are_rejected(images: Tensor) -> None:
    probe = fit_ridge_probe(torch.randn(2, 3, 4, 24), torch.tensor([0, 1, 2, 3]), 7)
    with pytest.raises(ValueError, match=r"3 layers and 14 positions, got \(2, 3\).*probe_features"):
        ProbeOrder(probe)(ported("cls"), images, CLASSES)

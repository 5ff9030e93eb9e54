"""Accuracy compared with its definition, with ties."""

import torch

from analyses.analysis.base import AnalysisBatch
from analyses.sweep.accuracy import Accuracy
from hooked_vit import HookedViT, ViTActivationCache


def test_fewer_than_k_classes_are_strictly_above() -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    logits = torch.zeros(4, 100)
    logits[1, :4] = 1  # the label ties with none of the four above it
    logits[2, :5] = 1
    logits[3, 7] = 1
    labels = torch.full((4,), 7)
    accuracy = Accuracy()
    accuracy.update(AnalysisBatch(model, ViTActivationCache({}, model), logits, labels, torch.arange(4)))
    assert accuracy.compute().to_dict("records") == [{"n_images": 4, "top1": 50.0, "top5": 75.0}]

"""Raw attention and rollout equal the loops from their papers, in models of every kind."""

import torch
from attention_by_hand import patterns_and_gradients, read_rows
from conftest import ported
from torch import Tensor

from analyses.feature_importance.attention_maps import attention_rollout, raw_attention

CLASSES = torch.tensor([5, 0])


def test_raw_attention_and_rollout(kind: str, images: Tensor) -> None:
    model = ported(kind)
    raw, rollout = raw_attention(model, images, CLASSES), attention_rollout(model, images, CLASSES)
    for image, patterns in enumerate(patterns_and_gradients(model, images, CLASSES)[0]):
        torch.testing.assert_close(raw[image], read_rows(patterns[-1].mean(0), model))
        product = torch.eye(model.token_layout.n_tokens)
        for pattern in patterns:
            step = pattern.mean(0) + torch.eye(len(product))
            product = (step / step.sum(-1, keepdim=True)) @ product
        torch.testing.assert_close(rollout[image], read_rows(product, model))

"""Raw attention and rollout are the loops from their papers, in models of every kind."""

import torch
from attention_by_hand import patterns_and_gradients, read_rows
from conftest import ported
from torch import Tensor

from analyses.feature_importance.attention_maps import attention_rollout, raw_attention

CLASSES = torch.tensor([5, 0])


def test_attention(kind: str, images: Tensor) -> None:
    model = ported(kind)
    raw, rollout = raw_attention(model, images, CLASSES), attention_rollout(model, images, CLASSES)
    for image, of_image in enumerate(patterns_and_gradients(model, images, CLASSES)[0]):
        torch.testing.assert_close(raw[image], read_rows(of_image[-1].mean(0), model))
        product = torch.eye(model.token_layout.n_tokens)
        for pattern in of_image:
            step = pattern.mean(0) + torch.eye(len(product))
            product = (step / step.sum(-1, keepdim=True)) @ product
        torch.testing.assert_close(rollout[image], read_rows(product, model))

"""Gradients with respect to what the head reads equal autograd's through the model's own head, for every pooling."""

import pytest
import torch
import torch.nn.functional as F
from conftest import make_timm
from torch import Tensor

from analyses.feature_importance.class_gradients import Target, class_gradients
from hooked_vit import HookedViT

CLASSES = torch.tensor([[5, 0], [1, 6]])


@pytest.mark.parametrize("double_softmax", [False, True])
def test_matches_autograd(kind: str, images: Tensor, double_softmax: bool) -> None:
    model = HookedViT.from_timm(make_timm(kind)).double()
    stream = model(images.double(), stop_at_layer=2).detach()
    read = model.cfg.read_tokens
    found = class_gradients(model, stream[:, read], CLASSES, double_softmax)
    for place in range(2):
        leaf = stream.clone().requires_grad_()
        with torch.enable_grad():
            logits = model(leaf, start_at_layer=3)
            logits = logits.softmax(-1) if double_softmax else logits
            F.cross_entropy(logits, CLASSES[:, place], reduction="sum").backward()
        torch.testing.assert_close(found[:, place], leaf.grad[:, read], rtol=1e-6, atol=1e-10)
        # the head reads nothing else
        others = torch.ones(model.token_layout.n_tokens, dtype=torch.bool)
        others[read] = False
        assert not leaf.grad[:, others].any()


def test_one_class_or_several_per_image() -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    assert model.class_indices(CLASSES[:, 0], 2, several=True).tolist() == [[5], [1]]
    assert model.class_indices(CLASSES, 2, several=True).tolist() == CLASSES.tolist()


@pytest.mark.parametrize("target", ["logit", "margin"])
def test_other_targets_match_autograd(kind: str, images: Tensor, target: Target) -> None:
    model = HookedViT.from_timm(make_timm(kind)).double()
    stream = model(images.double(), stop_at_layer=2).detach()
    found = class_gradients(model, stream[:, model.cfg.read_tokens], CLASSES, target=target)
    for position in range(2):
        leaf = stream.clone().requires_grad_()
        with torch.enable_grad():
            for image, logits in enumerate(model(leaf, start_at_layer=3)):
                k = int(CLASSES[image, position])
                others = torch.cat([logits[:k], logits[k + 1 :]])
                lead = logits[k] - (others.max() if target == "margin" else 0)
                (-lead).backward(retain_graph=True)
        torch.testing.assert_close(found[:, position], leaf.grad[:, model.cfg.read_tokens], rtol=1e-6, atol=1e-10)


def test_targets_that_do_not_exist(images: Tensor, bad_input: None) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    vectors = model(images, stop_at_layer=2)[:, :1]
    with pytest.raises(ValueError, match="expected a target out of 'cross_entropy', 'logit', 'margin', got 'loss'"):
        class_gradients(model, vectors, CLASSES, target="loss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="double_softmax is a variant of the cross-entropy"):
        class_gradients(model, vectors, CLASSES, double_softmax=True, target="logit")

"""Removal curves against one image and one step at a time; orders against sorting."""

import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.faithfulness.removal import most_removals, removal_curve, removal_order

LABELS = torch.tensor([5, 0])
ORDER = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(seed)) for seed in range(2)])


def test_matches_one_image_and_one_step_at_a_time(kind: str, images: Tensor) -> None:
    model = ported(kind)
    prefix = model.token_layout.n_prefix
    curve = removal_curve(model, images, LABELS, ORDER)
    expected_steps = 12 if model.cfg.pool in ("cls", "cls_and_dist") or model.cfg.pool_includes_prefix else 11
    assert curve.n_removed.tolist() == list(range(expected_steps + 1))
    assert most_removals(model.cfg, 12) == expected_steps
    for image in range(2):
        for step in range(expected_steps + 1):
            keep = torch.ones(1, model.token_layout.n_tokens, dtype=torch.bool)
            for patch in ORDER[image, :step].tolist():
                keep[0, prefix + patch] = False
            logits = model(images[[image]], token_mask=keep)[0]
            torch.testing.assert_close(
                curve.probability[step, image], logits.softmax(-1)[LABELS[image]], rtol=1e-4, atol=1e-6
            )
            assert curve.correct[step, image] == (logits.argmax() == LABELS[image])
    assert torch.equal(curve.accuracy, curve.correct.float().mean(1))


def test_chosen_steps_and_a_given_stream(images: Tensor) -> None:
    model = ported("gap_registers_layerscale")
    whole = removal_curve(model, images, LABELS, ORDER)
    tokens = model(images, stop_at_layer=0)
    some = removal_curve(model, tokens, LABELS, ORDER, [0, 3, 11], start_at_layer=0, samples="these")
    torch.testing.assert_close(some.probability, whole.probability[[0, 3, 11]], rtol=1e-4, atol=1e-6)
    assert (some.samples, some.n_patches) == ("these", 12)
    assert some.removal == whole.removal == "patch tokens dropped after the position embedding"


def test_order() -> None:
    maps = torch.tensor([[0.3, -1.0, 0.3, 2.0], [4.0, 3.0, 2.0, 1.0]])
    assert removal_order(maps, "negative").tolist() == [[1, 0, 2, 3], [3, 2, 1, 0]]
    assert removal_order(maps, "positive").tolist() == [[3, 0, 2, 1], [0, 1, 2, 3]]


@pytest.mark.usefixtures("bad_input")
class TestErrors:
    def test_orders_and_steps(self, images: Tensor) -> None:
        for bad in (ORDER[:, :5], ORDER[:1], ORDER.clamp(max=10)):
            with pytest.raises(ValueError, match=r"patches 0 to 11 once for each of 2 images.*removal_order"):
                removal_curve(ported("cls"), images, LABELS, bad)
        for steps in ([], [3, 1], [0, 13], [-1, 2]):
            with pytest.raises(ValueError, match="n_removed must increase, from 0 or more to at most 12"):
                removal_curve(ported("cls"), images, LABELS, ORDER, steps)
        with pytest.raises(ValueError, match=r"at most 11 of 12 patches .the head reads patches, so one must stay"):
            removal_curve(ported("post_norm"), images, LABELS, ORDER, [0, 12])

    def test_names(self) -> None:
        with pytest.raises(ValueError, match=r"'negative' .least important first. or 'positive', got 'up'"):
            removal_order(torch.zeros(1, 3), "up")
        with pytest.raises(ValueError, match="1 of 2 maps contain NaN and cannot be ranked"):
            removal_order(torch.tensor([[0.0, torch.nan], [0.0, 1.0]]), "negative")

"""Metrics against their definitions, written out image by image."""

import math

import pytest
import torch

from analyses.patching.metrics import class_probability, class_rank, kl_divergence, logit_difference, metric_values

LOGITS = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 0, 4])


def rows() -> list[list[float]]:
    return LOGITS.double().tolist()


def test_against_a_loop() -> None:
    other = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    differences, probabilities, ranks, divergences = [], [], [], []
    for row, label, reference in zip(rows(), LABELS.tolist(), other.double().tolist(), strict=True):
        differences.append(row[label] - row[2])
        total = sum(map(math.exp, row))
        probabilities.append(math.exp(row[label]) / total)
        ranks.append(sum(one > row[label] for one in row))
        of_reference = sum(map(math.exp, reference))
        divergences.append(
            sum(
                math.exp(r) / of_reference * (math.log(math.exp(r) / of_reference) - math.log(math.exp(x) / total))
                for r, x in zip(reference, row, strict=True)
            )
        )
    for make, expected in [
        (lambda **k: logit_difference(LABELS, against=2, **k), differences),
        (lambda **k: class_probability(LABELS, **k), probabilities),
        (lambda **k: class_rank(LABELS, **k), ranks),
        (lambda **k: kl_divergence(other, **k), divergences),
    ]:
        assert make()(LOGITS).item() == pytest.approx(sum(expected) / 3, abs=1e-5)
        assert make(per_image=True)(LOGITS).tolist() == pytest.approx(expected, abs=1e-5)


def test_classes_for_all_images_or_one_an_image() -> None:
    assert torch.equal(logit_difference(2)(LOGITS), LOGITS[:, 2].mean())
    assert torch.equal(logit_difference([1, 0, 4], per_image=True)(LOGITS), LOGITS[[0, 1, 2], [1, 0, 4]])


@pytest.mark.parametrize("per_image", [False, True])
def test_many_batches_at_once_are_one_after_the_other(per_image: bool) -> None:
    cells = torch.randn(4, 3, 5)
    for metric in (
        class_rank(LABELS, per_image),
        logit_difference(LABELS, 2, per_image),
        kl_divergence(LOGITS, per_image),
    ):
        expected = torch.stack([metric(one) for one in cells])
        torch.testing.assert_close(metric_values(metric, cells, per_image), expected)

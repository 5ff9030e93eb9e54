"""Metrics against their definitions, written out image by image."""

import math

import pytest
import torch

from analyses.patching.metrics import (
    LogitMetric,
    class_probability,
    class_rank,
    kl_divergence,
    logit_difference,
    metric_values,
)

LOGITS = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 0, 4])


def rows() -> list[list[float]]:
    return LOGITS.double().tolist()


def test_matches_a_loop() -> None:
    other = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    differences, probabilities, ranks, divergences = [], [], [], []
    for row, label, reference in zip(rows(), LABELS.tolist(), other.double().tolist(), strict=True):
        differences.append(row[label] - row[2])
        total = sum(map(math.exp, row))
        probabilities.append(math.exp(row[label]) / total)
        ranks.append(sum(logit > row[label] for logit in row))
        reference_total = sum(map(math.exp, reference))
        divergences.append(
            sum(
                math.exp(r)
                / reference_total
                * (math.log(math.exp(r) / reference_total) - math.log(math.exp(x) / total))
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


def test_one_class_for_all_images_or_one_per_image() -> None:
    assert torch.equal(logit_difference(2)(LOGITS), LOGITS[:, 2].mean())
    assert torch.equal(logit_difference([1, 0, 4], per_image=True)(LOGITS), LOGITS[[0, 1, 2], [1, 0, 4]])


@pytest.mark.parametrize("per_image", [False, True])
def test_many_batches_at_once_equal_one_after_the_other(per_image: bool) -> None:
    cells = torch.randn(4, 3, 5)
    for metric in (
        class_rank(LABELS, per_image),
        class_probability(LABELS, per_image),
        logit_difference(LABELS, 2, per_image),
        kl_divergence(LOGITS, per_image),
    ):
        expected = torch.stack([metric(logits) for logits in cells])
        torch.testing.assert_close(metric_values(metric, cells, per_image), expected)


def test_only_a_logit_metric_is_given_many_batches_in_one_call() -> None:
    cells, shapes = torch.randn(4, 3, 5), []

    def largest(logits: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(logits.shape))
        return logits.amax(dim=-1)

    expected = cells.amax(dim=-1)
    assert torch.equal(metric_values(LogitMetric(largest, per_image=True), cells, per_image=True), expected)
    assert torch.equal(metric_values(largest, cells, per_image=True), expected)
    assert shapes == [(4, 3, 5)] + 4 * [(3, 5)]
    with pytest.raises(ValueError, match=r"with per_image, metric must return one number per image, \[3\]"):
        metric_values(LogitMetric(largest), cells, per_image=True)

"""Losses of every kind against loops, and straight-through gradients against their formulas."""

import pytest
import torch

from analyses.dictionaries import DictionaryConfig, Weights, auxiliary_loss, objective

CONFIGS = {"relu": {}, "topk": {"k": 2}, "batch_topk": {"k": 2}, "jump_relu": {}}
CONFIGS["matryoshka"] = {"k": 2, "group_sizes": (3, 5, 9)}


def case(kind: str) -> tuple[DictionaryConfig, Weights, torch.Tensor, torch.Tensor]:
    """A transcoder from 4 to 5 dimensions with 9 latents, and 7 activations."""
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    weights = Weights(drawn(9, 4), drawn(9), drawn(9, 5), drawn(5))
    if kind == "jump_relu":
        weights.threshold = drawn(9).detach().abs().requires_grad_()
    config = DictionaryConfig(kind, 4, 5, 9, "hook_tokens", "hook_embed", **CONFIGS[kind])
    return config, weights, drawn(7, 4).detach(), drawn(7, 5).detach()


def latents_by_hand(kind: str, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    pre = torch.stack([torch.stack([weights.enc[j] @ row + weights.b_enc[j] for j in range(9)]) for row in x])
    values = pre.flatten().tolist()
    kept = torch.zeros_like(pre)
    for i in range(len(x)):
        for j in range(9):
            active = pre[i, j] > 0
            if kind == "topk":
                active = active and float(pre[i, j]) in sorted(pre[i].tolist())[-2:]
            elif kind in ("batch_topk", "matryoshka"):
                active = active and float(pre[i, j]) in sorted(values)[-2 * len(x) :]
            elif kind == "jump_relu":
                assert weights.threshold is not None
                active = pre[i, j] > weights.threshold[j]
            kept[i, j] = pre[i, j] if active else 0.0
    return kept


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_loss_equals_the_loop(kind: str) -> None:
    config, weights, x, y = case(kind)
    latents = latents_by_hand(kind, weights, x)
    losses = []
    for size in config.group_sizes or (9,):
        errors = [y[i] - weights.b_dec - sum(latents[i, j] * weights.dec[j] for j in range(size)) for i in range(7)]
        losses.append(sum(float((error @ error).detach()) for error in errors) / (7 * 5))
    expected = sum(losses) / len(losses)
    if kind == "relu":
        expected += 0.3 * float((latents * weights.dec.norm(dim=-1)).sum().detach()) / 7
    if kind == "jump_relu":
        expected += 0.3 * float((latents > 0).sum()) / 7
    found = objective(config, weights, x, y, penalty=0.3, bandwidth=0.4)
    assert float(found.loss) == pytest.approx(expected)
    assert float(found.unexplained) == pytest.approx(losses[-1])
    assert found.n_active == pytest.approx(float((latents > 0).sum()) / 7)
    assert torch.equal(found.was_active, (latents > 0).any(dim=0))
    torch.testing.assert_close(found.residual, y - weights.b_dec - latents @ weights.dec)


@pytest.mark.parametrize("kind", ["relu", "topk", "batch_topk", "matryoshka"])
def test_gradients_equal_differences(kind: str) -> None:
    config, weights, x, y = case(kind)
    objective(config, weights, x, y, penalty=0.3).loss.backward()
    for tensor in (weights.enc, weights.b_enc, weights.dec, weights.b_dec):
        flat, gradient = tensor.detach().flatten(), tensor.grad.flatten()
        for index in range(0, len(flat), 4):
            before = float(flat[index])
            values = []
            for step in (1e-6, -1e-6):
                tensor.data.view(-1)[index] = before + step
                values.append(float(objective(config, weights, x, y, penalty=0.3).loss))
            tensor.data.view(-1)[index] = before
            assert float(gradient[index]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-7)


def test_straight_through_gradients_of_thresholds() -> None:
    config, weights, x, y = case("jump_relu")
    penalty, width = 0.3, 0.8
    objective(config, weights, x, y, penalty, width).loss.backward()
    pre = x @ weights.enc.T + weights.b_enc
    latents = latents_by_hand("jump_relu", weights, x)
    residual = y - weights.b_dec - latents @ weights.dec
    of_latents = -2 * residual @ weights.dec.T / residual.numel()
    assert weights.threshold is not None
    for j in range(9):
        threshold, expected = float(weights.threshold[j]), 0.0
        for i in range(7):
            if abs(float(pre[i, j]) - threshold) < width / 2:
                expected -= threshold / width * float(of_latents[i, j]) + penalty / 7 / width
        assert float(weights.threshold.grad[j]) == pytest.approx(expected)


def test_a_negative_pre_activation_moves_no_threshold_that_it_is_far_from() -> None:
    config, weights, x, y = case("jump_relu")
    weights.b_enc = torch.full((9,), -1e3, dtype=torch.float64)
    weights.threshold = torch.full((9,), 0.01, dtype=torch.float64).requires_grad_()
    objective(config, weights, x, y, penalty=0.3, bandwidth=0.4).loss.backward()
    assert not weights.threshold.grad.any()


def test_the_auxiliary_loss_equals_the_loop() -> None:
    _, weights, x, residual = case("topk")
    dead = torch.tensor([True, False, True, True, False, False, True, True, False])
    numerator = denominator = 0.0
    for i in range(7):
        pre = {j: float(weights.enc[j] @ x[i] + weights.b_enc[j]) for j in range(9) if dead[j]}
        top = sorted(pre, key=lambda j: -pre[j])[:2]
        explained = sum(max(pre[j], 0.0) * weights.dec[j] for j in top)
        numerator += float((residual[i] - explained).square().sum())
        denominator += float(residual[i].square().sum())
    assert float(auxiliary_loss(weights, x, residual, dead, k=2)) == pytest.approx(numerator / denominator)
    auxiliary_loss(weights, x, residual, dead, k=2).backward()
    assert not weights.dec.grad[~dead].any()
    assert weights.dec.grad[dead].any()

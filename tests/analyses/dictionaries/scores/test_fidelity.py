"""Reconstruction scores equal loops over tokens and latents."""

import pytest
import torch

from analyses.dictionaries import dead_latents, explained_variance, mean_l0, recovered


def test_explained_variance_equals_the_loop() -> None:
    x, x_hat = torch.randn(3, 4, 5) + 2, torch.randn(3, 4, 5)
    rows, guesses = x.reshape(12, 5).tolist(), x_hat.reshape(12, 5).tolist()
    means = [sum(row[i] for row in rows) / 12 for i in range(5)]
    error = sum((a - b) ** 2 for row, guess in zip(rows, guesses, strict=True) for a, b in zip(row, guess, strict=True))
    total = sum((a - mean) ** 2 for row in rows for a, mean in zip(row, means, strict=True))
    assert float(explained_variance(x, x_hat)) == pytest.approx(1 - error / total, abs=1e-6)
    assert float(explained_variance(x, x)) == 1


def test_sparsity_and_dead_latents_equal_the_loop() -> None:
    latents = torch.randn(3, 4, 9).relu()
    latents[..., 2] = 0
    tokens = latents.reshape(12, 9).tolist()
    assert float(mean_l0(latents)) == pytest.approx(sum(value != 0 for token in tokens for value in token) / 12)
    assert dead_latents(latents).tolist() == [all(token[i] == 0 for token in tokens) for i in range(9)]


def test_recovered_has_the_same_ends_for_loss_and_accuracy() -> None:
    assert recovered(plain=0.5, spliced=0.5, ablated=4.0) == recovered(plain=0.9, spliced=0.9, ablated=0.1) == 1
    assert recovered(plain=0.5, spliced=4.0, ablated=4.0) == 0
    assert recovered(plain=0.9, spliced=0.5, ablated=0.1) == pytest.approx(0.5)


def test_errors_say_what_to_do(bad_input: None) -> None:
    with pytest.raises(ValueError, match=r"one shape, at least one token, got \(2, 3\) and \(2, 4\)"):
        explained_variance(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="pass several different tokens"):
        explained_variance(torch.ones(4, 3), torch.zeros(4, 3))

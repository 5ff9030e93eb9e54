"""Probes equal scikit-learn's Ridge, fitted one at a time."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from analyses.linear_probe.ridge import fit_ridge_probe


def data(n_samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n_samples) % 5
    centres = torch.randn(2, 3, 5, 11, generator=generator)
    noise = torch.randn(2, 3, n_samples, 11, generator=generator)
    return centres[:, :, labels] + noise + 4, labels


@pytest.mark.parametrize("n_samples", [7, 40])  # fewer and more than the width
@pytest.mark.parametrize("alpha", [0.1, 1, 30.0])
def test_probes_are_scikit_learns_ridge(n_samples: int, alpha: float) -> None:
    features, labels = data(n_samples)
    probe = fit_ridge_probe(features.double(), labels, n_classes=6, alpha=alpha)
    test, _ = data(9, seed=1)
    target = -np.ones((n_samples, 6))
    target[np.arange(n_samples), labels] = 1
    for layer in range(2):
        for position in range(3):
            ridge = Ridge(alpha=alpha).fit(features[layer, position].double().numpy(), target)
            np.testing.assert_allclose(probe.weight[layer, position].T, ridge.coef_, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(probe.bias[layer, position], ridge.intercept_, rtol=1e-6, atol=1e-9)
            said = probe[layer, position].class_logits(test[layer, position].double())
            np.testing.assert_allclose(
                said, ridge.predict(test[layer, position].double().numpy()), rtol=1e-6, atol=1e-9
            )


def test_single_precision_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = data(40)
    exact = fit_ridge_probe(features.double(), labels, 5)
    monkeypatch.setattr("analyses.linear_probe.ridge.CHUNK_ELEMENTS", 1)
    probe = fit_ridge_probe(features, labels, 5)
    assert (probe.alpha, probe.n_samples, probe.weight.dtype) == (1.0, 40, torch.float32)
    torch.testing.assert_close(probe.weight, exact.weight.float(), rtol=1e-5, atol=1e-6)
    assert probe.n_bytes == 4 * (2 * 3 * 11 * 5 + 2 * 3 * 5)


@pytest.mark.usefixtures("bad_input")
class TestErrors:
    def test_fit(self) -> None:
        features, labels = data(7)
        with pytest.raises(ValueError, match="a class for each of 7 samples"):
            fit_ridge_probe(features, labels[:3], 5)
        with pytest.raises(ValueError, match="from 0 to 3"):
            fit_ridge_probe(features, labels, 4)
        with pytest.raises(ValueError, match="alpha must be above 0, got 0"):
            fit_ridge_probe(features, labels, 5, 0)

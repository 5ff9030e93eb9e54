"""Probes are scikit-learn's Ridge, one at a time; features, shots and ranks are what a loop over positions gives."""

import numpy as np
import pytest
import torch
from conftest import ported
from sklearn.linear_model import Ridge
from torch import Tensor

from analyses.linear_probe import fit_ridge_probe
from analyses.probes.features import ProbeFeatures, probe_features
from analyses.probes.scores import compare_with_projection, probe_ranks, projection_ranks


def data(n_samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n_samples) % 5
    centres = torch.randn(2, 3, 5, 11, generator=generator)
    noise = torch.randn(2, 3, n_samples, 11, generator=generator)
    return centres[:, :, labels] + noise + 4, labels


@pytest.mark.parametrize("n_samples", [7, 40])  # fewer and more than the width
@pytest.mark.parametrize("alpha", [0.1, 1, 30.0])
def test_it_is_scikit_learns_ridge(n_samples: int, alpha: float) -> None:
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


def test_in_single_precision_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = data(40)
    exact = fit_ridge_probe(features.double(), labels, 5)
    monkeypatch.setattr("analyses.linear_probe._CHUNK", 1)
    probe = fit_ridge_probe(features, labels, 5)
    assert (probe.alpha, probe.n_samples, probe.weight.dtype) == (1.0, 40, torch.float32)
    torch.testing.assert_close(probe.weight, exact.weight.float(), rtol=1e-5, atol=1e-6)
    assert probe.n_bytes == 4 * (2 * 3 * 11 * 5 + 2 * 3 * 5)


def test_features_are_the_stream_at_every_position(kind: str, images: Tensor) -> None:
    model = ported(kind)
    labels = torch.tensor([5, 0])
    found = probe_features(model, [(images[:1], labels[:1]), (images[1:], labels[1:])], "mlp_out")
    _, cache = model.run_with_cache(images)
    layout = model.token_layout
    assert found.token_types == (*layout.token_types, "pooled")
    for layer in range(3):
        for token in range(layout.n_tokens):
            torch.testing.assert_close(found.features[layer, token], cache["mlp_out", layer][:, token])
        pooled = cache["mlp_out", layer][:, layout.patches].mean(1)
        torch.testing.assert_close(found.features[layer, -1], pooled)
    assert found.n_bytes == 4 * 3 * (layout.n_tokens + 1) * 2 * 24


def test_shots_take_the_first_of_each_class() -> None:
    features, labels = data(23)
    some = ProbeFeatures(features, labels, ("cls", "patch", "pooled")).shots(3)
    assert some.labels.tolist() == labels[:15].tolist()
    assert torch.equal(some.features, features[:, :, :15])
    shuffled = some.shuffled(4)
    assert sorted(shuffled.labels.tolist()) == sorted(some.labels.tolist())
    assert shuffled.labels.tolist() != some.labels.tolist()
    assert torch.equal(some.shuffled(4).labels, shuffled.labels)


def test_ranks_and_the_table(images: Tensor) -> None:
    model = ported("distilled")
    generator = torch.Generator().manual_seed(3)
    pictures, labels = torch.randn(30, 3, 32, 24, generator=generator), torch.arange(30) % 7
    train = probe_features(model, [(pictures[:21], labels[:21])])
    test = probe_features(model, [(pictures[21:], labels[21:])])
    probe = fit_ridge_probe(train.features, train.labels, 7)
    ranks, projected = probe_ranks(probe, test), projection_ranks(model, test)
    for layer in range(3):
        for position in (0, 1, 5, -1):
            for image in range(9):
                said = (
                    test.features[layer, position, image] @ probe.weight[layer, position] + probe.bias[layer, position]
                )
                label = test.labels[image]
                assert ranks[layer, position, image] == sum(one > said[label] for one in said.tolist())
                own = model.class_logits(test.features[layer, position, image])
                assert projected[layer, position, image] == sum(one > own[label] for one in own.tolist())
    table = compare_with_projection(model, train, test, shots=(1, 3))
    assert set(table["method"]) == {"projection", "probe", "probe_null"}
    row = table.query(
        "method == 'probe' and shots == 3 and layer == 2 and token_type == 'patch' and metric == 'accuracy'"
    )
    assert row["value"].item() == pytest.approx(100 * (ranks[2, 2:14] == 0).float().mean().item())
    row = table.query("method == 'projection' and layer == 1 and token_type == 'dist' and metric == 'identifiability'")
    assert row["value"].item() == pytest.approx((1 - projected[1, 1] / 7).mean().item())
    assert table.query("method == 'projection'")["megabytes"].eq(0).all()
    assert (table.query("method == 'probe'")["megabytes"] > 0).all()


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

    def test_features(self) -> None:
        with pytest.raises(ValueError, match="8 shots a class were asked for, and a class has 4 images"):
            ProbeFeatures(*data(23), ("cls", "patch", "pooled")).shots(8)
        with pytest.raises(ValueError, match="at least one batch"):
            probe_features(ported("cls"), [])
        with pytest.raises(ValueError, match="not single heads"):
            probe_features(ported("cls"), [], "result")

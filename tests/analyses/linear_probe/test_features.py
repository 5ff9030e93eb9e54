"""Features are the stream at every position; shots are the first of each class."""

import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.linear_probe.features import ProbeFeatures, probe_features

LABELS = torch.arange(23) % 5
FEATURES = torch.randn(2, 3, 23, 11, generator=torch.Generator().manual_seed(0))


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
    some = ProbeFeatures(FEATURES, LABELS, ("cls", "patch", "pooled")).shots(3)
    assert some.labels.tolist() == LABELS[:15].tolist()
    assert torch.equal(some.features, FEATURES[:, :, :15])
    shuffled = some.shuffled(4)
    assert sorted(shuffled.labels.tolist()) == sorted(some.labels.tolist())
    assert shuffled.labels.tolist() != some.labels.tolist()
    assert torch.equal(some.shuffled(4).labels, shuffled.labels)


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    with pytest.raises(ValueError, match="8 shots a class were asked for, and a class has 4 images"):
        ProbeFeatures(FEATURES, LABELS, ("cls", "patch", "pooled")).shots(8)
    with pytest.raises(ValueError, match="at least one batch"):
        probe_features(ported("cls"), [])
    with pytest.raises(ValueError, match="not single heads"):
        probe_features(ported("cls"), [], "result")

"""A page's feature importance is that of `feature_importance`, and its sums are sums of that."""

import torch
from explored import an_image, explored, unpacked

from analyses.feature_importance.importance import feature_importance, importance_map


def test_blocks_heads_and_sums(kind: str) -> None:
    model, _, data = explored(kind)
    stored, n_layers, n_heads = unpacked(data["importance"]), model.cfg.n_layers, model.cfg.n_heads
    assert data["importance"]["levels"] == 127
    for place, label in enumerate(data["shown"][: data["n_leading"]]):
        one = torch.tensor([label])
        expected = feature_importance(model, an_image(), one)[0]
        for got, right in (
            (stored[place, :n_layers, :n_heads], expected),
            (stored[place, :n_layers, n_heads], expected.sum(1)),
            (stored[place, n_layers, :n_heads], expected.sum(0)),
            (stored[place, n_layers, n_heads], importance_map(model, an_image(), one)[0]),
        ):
            assert ((got - right).abs() <= right.abs().amax(-1, keepdim=True) / 127 * 1.01 + 1e-7).all()

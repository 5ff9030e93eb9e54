"""Ranks are counted one position and image at a time, and the table is computed from them."""

import pytest
import torch
from conftest import ported

from analyses.linear_probe.comparison import compare_with_projection, probe_ranks, projection_ranks
from analyses.linear_probe.features import probe_features
from analyses.linear_probe.ridge import fit_ridge_probe


def test_ranks_and_the_table() -> None:
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

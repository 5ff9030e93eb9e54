"""Singular directions rebuild the product of the weights, and are unit vectors of decreasing strength."""

import pytest
import torch
from analysis_batches import model_of

from analyses.value_vectors.head_directions import head_class_directions, mlp_class_directions
from analyses.value_vectors.vectors import value_vectors


@pytest.mark.parametrize("layer_scale", [False, True])
@pytest.mark.parametrize("centre", [False, True])
def test_directions_rebuild_the_product(kind, centre, layer_scale):
    model = model_of(kind)
    if model.cfg.pool == "attention":
        with pytest.raises(ValueError, match="with an attention pool, a vector's class logits are not linear"):
            mlp_class_directions(model, 0)
        return
    W_U = model.W_U.detach()
    W_U = W_U - W_U.mean(dim=1, keepdim=True) if centre else W_U
    of_mlp = mlp_class_directions(model, 1, centre=centre, layer_scale=layer_scale)
    expected = value_vectors(model, 1, layer_scale=layer_scale) @ W_U
    rebuilt = of_mlp.inputs.T @ of_mlp.singular_values.diag() @ of_mlp.classes
    torch.testing.assert_close(rebuilt, expected, rtol=1e-3, atol=1e-4)
    of_heads = head_class_directions(model, -2, centre=centre, layer_scale=layer_scale)
    assert of_heads.layer == 1
    d_head = model.cfg.d_head
    for head in range(model.cfg.n_heads):
        W_O = value_vectors(model, 1, "attn", layer_scale=layer_scale)[d_head * head : d_head * head + d_head]
        expected = model.blocks[1].attn.W_V[head] @ W_O @ W_U
        parts = of_heads.inputs[head], of_heads.singular_values[head], of_heads.classes[head]
        rebuilt = sum(s * torch.outer(u, v) for u, s, v in zip(*parts, strict=True))
        torch.testing.assert_close(rebuilt, expected.detach(), rtol=1e-3, atol=1e-4)
        assert (parts[1].diff() <= 1e-6).all()
        for u, v in zip(parts[0], parts[2], strict=True):
            assert float(v[v.abs().argmax()]) > 0
            assert float(u.norm()) == pytest.approx(1, abs=1e-3)
            assert float(v.norm()) == pytest.approx(1, abs=1e-3)

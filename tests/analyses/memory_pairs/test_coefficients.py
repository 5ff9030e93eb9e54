"""Memory coefficients: with value vectors and biases, they sum exactly to what the sub-layer adds."""

import pytest
import torch
from analysis_batches import model_of

from analyses.memory_pairs.coefficients import coefficient_names, memory_coefficients
from analyses.value_vectors.vectors import value_vectors


def cached(kind, names=None):
    model = model_of(kind)
    images = torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model, model.run_with_cache(images, names_filter=names)[1]


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
def test_memories_sum_to_the_output(kind, sublayer):
    model, cache = cached(kind)
    for layer, block in enumerate(model.blocks):
        coefficients = memory_coefficients(model, cache, layer, sublayer, "post")
        part, norm = (block.mlp.b_out, block.mlp_ln) if sublayer == "mlp" else (block.attn.b_O, block.ln1)
        written = coefficients @ value_vectors(model, layer, sublayer) + part
        if block.post_norm:
            written = norm.fused(written)
        elif (scale := block.mlp_ls if sublayer == "mlp" else block.ls1) is not None:
            scaled = coefficients @ value_vectors(model, layer, sublayer, layer_scale=True)
            torch.testing.assert_close(scaled + part * scale, written * scale, rtol=1e-4, atol=1e-5)
            written = written * scale
        torch.testing.assert_close(written, cache[f"{sublayer}_out", layer], rtol=1e-4, atol=1e-5)


def test_pre_coefficients_are_before_the_activation_function(kind):
    model, cache = cached(kind)
    for layer, block in enumerate(model.blocks):
        pre = memory_coefficients(model, cache, layer, "mlp", "pre")
        if model.cfg.gated_mlp:
            gate, linear = (cache[f"blocks.{layer}.mlp.hook_{name}"] for name in ("pre", "pre_linear"))
            expected, post = torch.zeros_like(gate), torch.zeros_like(gate)
            for index in [(i, t, m) for i in range(2) for t in range(gate.shape[1]) for m in (0, 7, gate.shape[2] - 1)]:
                expected[index] = gate[index] * linear[index]
                post[index] = block.mlp.act(gate[index]) * linear[index]
            chosen = [0, 7, gate.shape[2] - 1]
            torch.testing.assert_close(pre[..., chosen], expected[..., chosen])
            if block.mlp.ln is None:
                after = memory_coefficients(model, cache, layer, "mlp", "post")
                torch.testing.assert_close(after[..., chosen], post[..., chosen])
        else:
            assert torch.equal(pre, cache[f"blocks.{layer}.mlp.hook_pre"])
        flat_z = memory_coefficients(model, cache, layer, "attn", "pre")
        z = cache[f"blocks.{layer}.attn.hook_z"]
        assert torch.equal(flat_z[..., model.cfg.d_head * 2 + 3], z[..., 2, 3])


def test_named_hook_points_suffice_and_a_single_image_is_a_batch():
    model = model_of("swiglu_packed")
    names = coefficient_names(model.cfg, "mlp", "pre", [-1])
    assert names == ["blocks.2.mlp.hook_pre", "blocks.2.mlp.hook_pre_linear"]
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.zeros(1, 3, 32, 24), names_filter=names, remove_batch_dim=True)
    assert memory_coefficients(model, cache, 2).shape[0] == 1


def test_errors(bad_input):
    model, cache = cached("cls", ["blocks.0.mlp.hook_pre"])
    with pytest.raises(
        ValueError, match=r"the cache lacks 'blocks.0.mlp.hook_post'.*coefficient_names\(model.cfg, 'mlp"
    ):
        memory_coefficients(model, cache, 0, "mlp", "post")
    with pytest.raises(ValueError, match="expected coefficients 'pre' or 'post', got 'mid'"):
        coefficient_names(model.cfg, "mlp", "mid")  # pyright: ignore[reportArgumentType]

"""Parameters under TransformerLens's names: compared with loops; views of the stored weights, stacks, biases."""

import functools

import pytest
import torch
from conftest import KINDS, make_timm, ported
from torch import Tensor, nn

from hooked_vit import HookedViT

# four heads of width 7 in a model of width 24, so that no shapes agree by accident
SHAPE = {"embed_dim": 28, "num_heads": 4, "mlp_ratio": 1.5, "depth": 3}


@functools.cache
def made(kind: str) -> nn.Module:
    """The timm module of a kind, in these widths."""
    return make_timm(kind, **SHAPE)


# heads of width 7 cannot be rotated; test_attention_terms.py has grouped heads
@pytest.fixture(params=sorted(set(KINDS) - {"rotary"}))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of model in turn."""
    return request.param


@pytest.fixture
def source(kind: str) -> nn.Module:
    """The timm module of each kind."""
    return made(kind)


@pytest.fixture
def model(source: nn.Module) -> HookedViT:
    """Its port, a copy."""
    return HookedViT.from_timm(source).requires_grad_(False)


def test_heads_are_cut_from_timms_matrices_row_by_row(model: HookedViT, source: nn.Module) -> None:
    for layer, block in enumerate(source.blocks):
        if model.cfg.parallel_attn_mlp:  # one projection for the MLP, whose rows come first, and attention
            first, proj, qkv = block.in_split[0], block.attn_out_proj, block.in_proj
        else:
            first, proj, qkv = 0, block.attn.proj, block.attn.qkv
        for index, name in enumerate("QKV"):
            stacked = getattr(model, f"W_{name}")
            assert stacked.shape == (3, 4, 28, 7)
            biases = getattr(model, f"b_{name}")
            assert biases.shape == (3, 4, 7)
            for head in range(4):
                for d in range(7):
                    row = first + index * 28 + head * 7 + d
                    assert torch.equal(stacked[layer, head, :, d], qkv.weight[row])
                    stored = qkv.bias
                    if getattr(getattr(block, "attn", None), "q_bias", None) is not None:
                        stored = torch.cat([block.attn.q_bias, torch.zeros(28), block.attn.v_bias])
                    bias = 0.0 if stored is None else float(stored[row].detach())
                    assert float(biases[layer, head, d]) == bias
        for head in range(4):
            for d in range(7):
                assert torch.equal(model.W_O[layer, head, d], proj.weight[:, head * 7 + d])
        bias = proj.bias
        assert torch.equal(model.b_O[layer], torch.zeros(28) if bias is None else bias)


def test_matrices_multiply_from_the_right(model: HookedViT, images: Tensor) -> None:
    _, cache = model.run_with_cache(images)
    for layer in range(3):
        if model.cfg.post_norm:
            read, mlp_read = cache["resid_pre", layer], cache["resid_mid", layer]
        else:
            mlp_norm = "ln1" if model.cfg.parallel_attn_mlp else "ln2"
            read, mlp_read = cache["normalized", layer, "ln1"], cache["normalized", layer, mlp_norm]
        for name in "QKV":
            for head in range(4):
                made = read @ getattr(model, f"W_{name}")[layer, head] + getattr(model, f"b_{name}")[layer, head]
                torch.testing.assert_close(made, cache[name.lower(), layer][:, :, head], rtol=1e-4, atol=1e-5)
        linear = mlp_read @ model.W_in[layer] + model.b_in[layer]
        gated = model.cfg.gated_mlp
        torch.testing.assert_close(linear, cache["pre_linear" if gated else "pre", layer], rtol=1e-4, atol=1e-5)
        if gated:
            gate = mlp_read @ model.W_gate[layer] + model.b_gate[layer]
            torch.testing.assert_close(gate, cache["pre", layer], rtol=1e-4, atol=1e-5)
        attn_out = sum(cache["z", layer][:, :, head] @ model.W_O[layer, head] for head in range(4)) + model.b_O[layer]
        mlp_out = cache["post", layer] @ model.W_out[layer] + model.b_out[layer]
        block = model.blocks[layer]
        for written, added, norm, scale in ((attn_out, "attn_out", block.ln1, block.ls1),
                                            (mlp_out, "mlp_out", block.mlp_ln, block.mlp_ls)):  # fmt: skip
            expected = norm.fused(written) if model.cfg.post_norm else written if scale is None else written * scale
            torch.testing.assert_close(cache[added, layer], expected, rtol=1e-4, atol=1e-5)


EDITED = {
    "W_Q": ("attn", (2, slice(None), 3)), "W_K": ("attn", (2, slice(None), 3)), "W_V": ("attn", (2, slice(None), 3)),
    "W_O": ("attn", (2, 3)), "W_in": ("mlp", (slice(None), 3)), "W_out": ("mlp", (3,)),
}  # fmt: skip


def test_a_blocks_matrix_is_a_view_and_an_edit_in_place_changes_the_model(model: HookedViT, images: Tensor) -> None:
    before = model(images)
    for name, (part, where) in EDITED.items():
        matrix = getattr(getattr(model.blocks[1], part), name)
        stored = {p.untyped_storage().data_ptr() for p in getattr(model.blocks[1], part).parameters()}
        assert matrix.untyped_storage().data_ptr() in stored, name
        matrix[where] *= 4.0
        assert (model(images) - before).abs().max() > 1e-5 * before.abs().max(), name
        matrix[where] /= 4.0
        assert torch.equal(model(images), before), name


def test_an_edit_of_one_head_changes_only_that_head(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls", **SHAPE)).requires_grad_(False)
    _, before = model.run_with_cache(images, names_filter=["q0", "k0", "v0", "result0"])
    model.blocks[0].attn.W_V[2].zero_()
    model.blocks[0].attn.b_V[2].zero_()
    _, after = model.run_with_cache(images, names_filter=["q0", "k0", "v0", "result0"])
    assert torch.equal(after["v", 0][:, :, 2], torch.zeros(2, 13, 7))
    for name in ("q", "k"):
        assert torch.equal(after[name, 0], before[name, 0])
    assert torch.equal(after["v", 0][:, :, [0, 1, 3]], before["v", 0][:, :, [0, 1, 3]])
    assert torch.equal(after["result", 0][:, :, 2], torch.zeros(2, 13, 28))


@pytest.mark.parametrize("name", ["b_Q", "b_K", "b_V", "b_O", "b_in", "b_out"])
def test_biases_are_views_if_they_exist(name: str) -> None:
    part = "attn" if name[2] in "QKVO" else "mlp"
    model = HookedViT.from_timm(make_timm("cls", **SHAPE))
    stored = {p.untyped_storage().data_ptr() for p in model.blocks[0].parameters() if p.ndim == 1}
    assert getattr(getattr(model.blocks[0], part), name).untyped_storage().data_ptr() in stored
    bare = HookedViT.from_timm(make_timm("cls", **SHAPE, qkv_bias=False, proj_bias=False))
    bias = getattr(getattr(bare.blocks[0], part), name)
    with_bias = name in ("b_in", "b_out") and bare.cfg.mlp_bias[name == "b_out"]
    assert with_bias or (bias.abs().max() == 0 and bias.shape == getattr(getattr(model.blocks[0], part), name).shape)


def test_stacks_hold_each_blocks_matrices(model: HookedViT) -> None:
    names = ["W_in", "b_in", "W_out", "b_out", *(["W_gate", "b_gate"] if model.cfg.gated_mlp else [])]
    for name in names:
        stacked = getattr(model, name)
        assert len(stacked) == 3
        for layer in range(3):
            assert torch.equal(stacked[layer], getattr(model.blocks[layer].mlp, name))
    assert model.W_in.shape == (3, 28, model.cfg.d_mlp)
    assert model.W_out.shape == (3, model.cfg.d_mlp, 28)


def test_only_gated_mlps_have_gates() -> None:
    plain = HookedViT.from_timm(make_timm("cls"))
    for name in ("W_gate", "b_gate"):
        assert not hasattr(plain, name)
        assert hasattr(HookedViT.from_timm(make_timm("swiglu_packed")), name)


def test_patches_and_positions_have_their_matrices(source: nn.Module, model: HookedViT, images: Tensor) -> None:
    assert model.W_E.shape == (3 * 8 * 8, 28)
    assert model.W_E.untyped_storage().data_ptr() == model.embed.patch.weight.untyped_storage().data_ptr()
    corner = images[0, :, 8:16, 16:24].flatten() @ model.W_E + model.b_E
    if model.embed.patch_ln is not None:
        corner = model.embed.patch_ln(corner)
    _, cache = model.run_with_cache(images, names_filter="hook_patch_embed")
    torch.testing.assert_close(cache["hook_patch_embed"][0, 1 * 3 + 2], corner, rtol=1e-4, atol=1e-5)
    if model.cfg.positions != "none":
        assert torch.equal(model.W_pos, source.pos_embed[0])


def test_a_model_without_positions_has_no_W_pos() -> None:
    model = HookedViT.from_timm(make_timm("cls", pos_embed="none"))
    assert not hasattr(model, "W_pos")
    assert model.cfg.positions == "none"


def test_a_patch_projection_without_bias_has_zeros() -> None:
    model = HookedViT.from_timm(make_timm("clip"))
    assert model.embed.patch.bias is None
    assert torch.equal(model.b_E, torch.zeros(24))


def test_qk_and_ov_are_products_of_their_factors(model: HookedViT) -> None:
    for factored, left, right in ((model.QK, model.W_Q, model.W_K.transpose(-2, -1)), (model.OV, model.W_V, model.W_O)):
        assert factored.AB.shape == (3, 4, 28, 28)
        for layer in range(3):
            for head in range(4):
                expected = left[layer, head] @ right[layer, head]
                torch.testing.assert_close(factored[layer, head].AB, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.blocks[1].attn.QK.AB, model.QK[1].AB)
    torch.testing.assert_close(model.blocks[1].attn.OV.AB, model.OV[1].AB)


def test_qk_gives_the_scores(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls", **SHAPE, qkv_bias=False)).requires_grad_(False)
    _, cache = model.run_with_cache(images, names_filter=[("attn_scores", 1), ("normalized", 1, "ln1")])
    x = cache["normalized", 1, "ln1"]
    for head in range(4):
        scores = x @ model.QK[1, head].AB @ x.transpose(-2, -1) / 7**0.5
        torch.testing.assert_close(cache["attn_scores", 1][:, head], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("include_mlp", [True, False])
@pytest.mark.parametrize("mlp_input", [True, False])
def test_accumulated_bias_is_the_sum_of_what_biases_write(kind: str, mlp_input: bool, include_mlp: bool) -> None:
    model = ported(kind)
    if model.cfg.post_norm:
        with pytest.raises(ValueError, match="what a bias adds depends on the token"):
            model.accumulated_bias(1)
        return
    if mlp_input and model.cfg.parallel_attn_mlp:
        with pytest.raises(ValueError, match="both read its input: leave out mlp_input"):
            model.accumulated_bias(1, mlp_input=True)
        return
    for layer in range(4):
        expected = torch.zeros(24)
        for index, block in enumerate(model.blocks):
            if index < layer or (mlp_input and index == layer):
                expected += block.attn.b_O * (1 if block.ls1 is None else block.ls1)
            if index < layer and include_mlp:
                expected += block.mlp.b_out * (1 if block.mlp_ls is None else block.mlp_ls)
        torch.testing.assert_close(model.accumulated_bias(layer, mlp_input, include_mlp), expected)
    with pytest.raises(ValueError, match="layer 4 is out of range: 0 to 3"):
        model.accumulated_bias(4)

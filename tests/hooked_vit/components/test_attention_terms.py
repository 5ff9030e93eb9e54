"""Grouped queries, rotations, biases of the scores and gates, compared with a loop over heads, queries and keys."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from hooked_vit import HookedViTConfig
from hooked_vit.components.attention import Attention
from hooked_vit.components.attention_terms import AttentionTerms, additive_mask, bias_at, rotation_at
from hooked_vit.components.block import Block
from hooked_vit.config import RelativeBiasConfig, RotaryConfig

# four heads of six on a 2 × 1 grid behind a CLS token
PLAIN = HookedViTConfig(
    n_layers=2, d_model=14, n_heads=4, d_head=6, d_mlp=20, n_classes=7, image_size=(16, 8), patch_size=(8, 8)
)
VARIANTS = {
    "grouped": {"n_key_value_heads": 2},
    "separate": {"separate_qkv": True},
    "separate, no bias of keys": {"separate_qkv": True, "k_bias": False},
    "no bias of keys": {"k_bias": False},
    "bias after the product": {"qkv_bias_separate": True},
    "rotary": {"rotary": RotaryConfig("cat", 10.0)},
    "rotary by halves": {"rotary": RotaryConfig("cat", 10.0, rotate_half=True)},
    "relative": {"relative_bias": RelativeBiasConfig("table")},
    "gated": {"gated_attn": True},
    "all": {"n_key_value_heads": 1, "rotary": RotaryConfig("cat", 10.0, rotate_half=True), "gated_attn": True,
            "separate_qkv": True, "k_bias": False, "relative_bias": RelativeBiasConfig("table")},
}  # fmt: skip


def made(variant: str) -> Attention:
    """An attention with non-trivial parameters."""
    attention = Attention(dataclasses.replace(PLAIN, **VARIANTS[variant]))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return attention.requires_grad_(False)


@pytest.fixture
def x() -> Tensor:
    """Two images of CLS and two patches."""
    return torch.randn(2, 3, 14, generator=torch.Generator().manual_seed(1))


ANGLES = torch.randn(3, 3, generator=torch.Generator().manual_seed(2))  # of each token: one for each pair of numbers
ANGLES[0] = 0


def rotation(attention: Attention) -> Tensor | None:
    """The angles as sines and cosines in the attention's layout, [head token sin_cos]."""
    if attention.rotate_half is None:
        return None
    angles = ANGLES.repeat(1, 2) if attention.rotate_half else ANGLES.repeat_interleave(2, dim=1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[None]


def rotated(attention: Attention, vector: Tensor, token: int) -> Tensor:
    """A query or key rotated pair by pair."""
    if attention.rotate_half is None:
        return vector
    out = vector.clone()
    for pair in range(3):
        i, j = (pair, pair + 3) if attention.rotate_half else (2 * pair, 2 * pair + 1)
        sin, cos = float(ANGLES[token, pair].sin()), float(ANGLES[token, pair].cos())
        out[i], out[j] = vector[i] * cos - vector[j] * sin, vector[j] * cos + vector[i] * sin
    return out


def row_of_table(query: int, key: int) -> int:
    """The row of the table: distances from -1 to 1 rows, then from CLS, to CLS, and CLS to itself."""
    if query == 0:
        return 5 if key == 0 else 3
    return 4 if key == 0 else query - key + 1


def slow(attention: Attention, x: Tensor) -> dict[str, Tensor]:
    """Activations of one image by loops over heads and tokens, [token head d_head] and [head query key]."""
    n_groups = attention.n_key_value_heads
    weight, biases = attention.qkv.weight, [torch.zeros(6 * n) for n in (4, n_groups, n_groups)]
    if attention.qkv.bias is not None:
        biases = list(attention.qkv.bias.split([24, 6 * n_groups, 6 * n_groups]))
    elif attention.qkv.q_bias is not None:
        biases[0], biases[2] = attention.qkv.q_bias, attention.qkv.v_bias
    starts, sharing = [0, 24, 24 + 6 * n_groups], 4 // n_groups

    def part(index: int, head: int, token: int) -> Tensor:
        rows = slice(starts[index] + 6 * head, starts[index] + 6 * head + 6)
        return weight[rows] @ x[token] + biases[index][6 * head : 6 * head + 6]

    scores, mix = torch.zeros(4, 3, 3), torch.zeros(3, 4, 6)
    for head in range(4):
        for query in range(3):
            for key in range(3):
                q = rotated(attention, part(0, head, query), query)
                k = rotated(attention, part(1, head // sharing, key), key)
                scores[head, query, key] = q @ k / math.sqrt(6)
                if attention.relative_bias is not None:
                    table = attention.relative_bias.rel_pos.relative_position_bias_table
                    scores[head, query, key] += table[row_of_table(query, key), head]
            pattern = scores[head, query].softmax(-1)
            mix[query, head] = sum(pattern[key] * part(2, head // sharing, key) for key in range(3))
    z = mix
    if attention.gate is not None:
        z = mix * torch.stack([(attention.gate.weight @ t + attention.gate.bias).sigmoid().view(4, 6) for t in x])
    keys = torch.stack([torch.stack([part(1, head, token) for head in range(n_groups)]) for token in range(3)])
    return {"scores": scores, "mix": mix, "z": z, "k": keys}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_activations_are_those_of_the_loop(variant: str, fused: bool, x: Tensor) -> None:
    attention = made(variant)
    attention.fused = fused
    terms = AttentionTerms(rotation=rotation(attention))
    seen = {}
    names = ["hook_attn_scores", "hook_k", *(["hook_z_pre"] if attention.gate is not None else [])]
    z = attention(x, terms)
    for name in names:
        getattr(attention, name).add_hook(lambda a, hook, name=name: seen.update({name: a}))
    torch.testing.assert_close(attention(x, terms), z, rtol=1e-4, atol=1e-5)
    for image in range(2):
        expected = slow(attention, x[image])
        torch.testing.assert_close(z[image], expected["z"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen["hook_attn_scores"][image], expected["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen["hook_k"][image], expected["k"], rtol=1e-4, atol=1e-5)
        if attention.gate is not None:
            torch.testing.assert_close(seen["hook_z_pre"][image], expected["mix"], rtol=1e-4, atol=1e-5)
    assert seen["hook_k"].shape[2] == attention.n_key_value_heads


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_attention_past_the_hook_points_is_the_loop(variant: str, fused: bool, x: Tensor) -> None:
    attention, queries = made(variant), slice(1, 3)
    q, k, v = attention.queries_keys_values(x, queries)
    terms = AttentionTerms(rotation=rotation(attention))
    z = attention.attend_unhooked(q, k, v, fused, terms, queries)
    z = attention.norm_z(z, attention.gate_values(x[:, queries]))
    expected = torch.stack([slow(attention, image)["z"][queries] for image in x])
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_split_inputs_that_are_equal_change_nothing(variant: str, x: Tensor) -> None:
    attention = made(variant)
    q, kv = (x[:, :, None].expand(-1, -1, n, -1) for n in (4, attention.n_key_value_heads))
    terms = AttentionTerms(rotation=rotation(attention))
    z = attention.forward_split(q, kv, kv, terms, attention.gate_values(x))
    torch.testing.assert_close(z, attention(x, terms), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_dropped_tokens_leave_the_others_where_they_were(variant: str, x: Tensor) -> None:
    attention = made(variant)
    index, valid = torch.tensor([[0, 2], [2, 0]]), torch.tensor([[True, True], [True, False]])
    turns = rotation(attention)
    turns = None if turns is None else rotation_at(turns[None], index)[0]
    kept = torch.stack([x[image, index[image]] for image in range(2)])
    z = attention(kept, AttentionTerms(additive_mask(valid, x.dtype), turns, None, index))
    keep = torch.tensor([[True, False, True], [False, False, True]])
    masked = attention(x, AttentionTerms(additive_mask(keep, x.dtype), rotation(attention)))
    torch.testing.assert_close(z[0], masked[0, [0, 2]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(z[1, 0], masked[1, 2], rtol=1e-4, atol=1e-5)


def test_matrices_of_shared_heads_are_repeated() -> None:
    attention = made("grouped")
    for index, (weights, biases) in enumerate([(attention.W_K, attention.b_K), (attention.W_V, attention.b_V)], 1):
        assert weights.shape == (4, 14, 6)
        for head in range(4):
            rows = slice(24 + 12 * (index - 1) + 6 * (head // 2), 24 + 12 * (index - 1) + 6 * (head // 2) + 6)
            assert torch.equal(weights[head], attention.qkv.weight[rows].T)
            assert torch.equal(biases[head], attention.qkv.bias[rows])
    assert torch.equal(attention.QK[1].AB, attention.W_Q[1] @ attention.W_K[0].T)
    assert torch.equal(made("no bias of keys").b_K, torch.zeros(4, 6))


def test_terms_of_a_layer_and_of_kept_tokens() -> None:
    turns = torch.randn(2, 1, 3, 4)
    terms = AttentionTerms(rotation=turns)
    assert torch.equal(terms.at(1).rotation, turns[1])
    assert torch.equal(AttentionTerms(rotation=turns[:1]).at(1).rotation, turns[0])
    index = torch.tensor([[0, 2], [1, 0]])
    found = rotation_at(turns, index)
    bias = torch.randn(1, 5, 3, 3)
    biases = bias_at(bias, index)
    for image in range(2):
        for row, token in enumerate(index[image]):
            assert torch.equal(found[:, image, :, row], turns[:, :, token])
            for column, key in enumerate(index[image]):
                assert torch.equal(biases[image, :, row, column], bias[0, :, token, key])


def test_missing_terms_are_told(x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"needs the rotation of each token: pass terms=model.attention_terms"):
        made("rotary")(x)
    attention = made("gated")
    with pytest.raises(ValueError, match="this attention is gated: pass gate="):
        attention.norm_z(attention(x))


@pytest.mark.parametrize("stream", ["resid_pre", "q", "k", "v", "pattern", "z"])
def test_a_block_resumes_with_its_terms(stream: str, x: Tensor) -> None:
    block = Block(dataclasses.replace(PLAIN, **VARIANTS["all"])).requires_grad_(False)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    terms, seen = AttentionTerms(rotation=rotation(block.attn)), {}
    for name in ("q", "k", "v", "pattern", "z"):
        getattr(block.attn, f"hook_{name}").add_hook(lambda a, hook, name=name: seen.update({name: a}))
    expected = block(x, terms)
    found = block.resume(stream, {"resid_pre": x, **seen}, slice(0, 2), terms)
    torch.testing.assert_close(found, expected[:, :2], rtol=1e-4, atol=1e-4)


def test_counts_of_key_value_heads_are_checked() -> None:
    assert dataclasses.replace(PLAIN, n_key_value_heads=(2, 2)).n_key_value_heads == 2
    assert dataclasses.replace(PLAIN, n_key_value_heads=4).n_key_value_heads is None
    assert dataclasses.replace(PLAIN, n_key_value_heads=(4, 2)).per_layer_num_key_value_heads == [4, 2]
    with pytest.raises(ValueError, match=r"that divide 4 heads, got 3"):
        dataclasses.replace(PLAIN, n_key_value_heads=3)
    with pytest.raises(ValueError, match=r"for each of the 2 layers, got 3 numbers"):
        dataclasses.replace(PLAIN, n_key_value_heads=(4, 2, 2))
    with pytest.raises(ValueError, match=r"kind 'mixed' rotate each head by itself"):
        dataclasses.replace(PLAIN, n_key_value_heads=2, rotary=RotaryConfig("mixed", 10.0))

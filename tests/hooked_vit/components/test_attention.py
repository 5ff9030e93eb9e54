"""Attention compared with a loop over heads, queries and keys; its hook points, masks, split inputs and parts."""

import math

import pytest
import torch
from torch import Tensor

from hooked_vit import HookedViTConfig, NormConfig
from hooked_vit.components.attention import Attention
from hooked_vit.components.attention_terms import AttentionTerms, additive_mask

# width 14, three heads of five: d_model is not n_heads * d_head
PLAIN = HookedViTConfig(
    n_layers=2, d_model=14, n_heads=3, d_head=5, d_mlp=20, n_classes=7, image_size=(16, 24), patch_size=(8, 8)
)
VARIANTS = {
    "plain": PLAIN,
    "no_biases": HookedViTConfig(**{**vars(PLAIN), "qkv_bias": False, "attn_out_bias": False}),
    "qk_norm": HookedViTConfig(**{**vars(PLAIN), "qk_norm": NormConfig(eps=0.1)}),
    "inner_norm": HookedViTConfig(**{**vars(PLAIN), "attn_inner_norm": NormConfig(eps=0.1)}),
}


def made(cfg: HookedViTConfig) -> Attention:
    """An attention with non-trivial parameters."""
    attention = Attention(cfg)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return attention.requires_grad_(False)


@pytest.fixture(params=sorted(VARIANTS))
def attention(request: pytest.FixtureRequest) -> Attention:
    """Each kind of attention in turn."""
    return made(VARIANTS[request.param])


@pytest.fixture
def x() -> Tensor:
    """Two images of four tokens."""
    return torch.randn(2, 4, 14, generator=torch.Generator().manual_seed(1))


def rows_of(attention: Attention, index: int, head: int) -> tuple[Tensor, Tensor]:
    """The rows of the stored weight and bias that make the queries (0), keys (1) or values (2) of a head."""
    start = index * 3 * 5 + head * 5
    bias = attention.qkv.bias
    return attention.qkv.weight[start : start + 5], torch.zeros(5) if bias is None else bias[start : start + 5]


def slow_pattern(attention: Attention, x: Tensor, head: int, keys: list[int]) -> Tensor:
    """Softmax over some keys of the scores of one image, [query key], one number at a time."""
    q, k = ([weight @ token + bias for token in x] for weight, bias in (rows_of(attention, i, head) for i in (0, 1)))
    if attention.q_norm is not None and attention.k_norm is not None:
        q, k = [attention.q_norm.fused(query) for query in q], [attention.k_norm.fused(key) for key in k]
    pattern = torch.zeros(len(x), len(x))
    for query in range(len(x)):
        scores = {key: float(q[query] @ k[key]) / math.sqrt(5) for key in keys}
        total = sum(math.exp(score) for score in scores.values())
        for key, score in scores.items():
            pattern[query, key] = math.exp(score) / total
    return pattern


def slow_mix(attention: Attention, x: Tensor, keys: list[int]) -> Tensor:
    """Each head's mix of values of one image, [token head d_head]."""
    mix = torch.zeros(len(x), 3, 5)
    for head in range(3):
        weight, bias = rows_of(attention, 2, head)
        pattern = slow_pattern(attention, x, head, keys)
        for query in range(len(x)):
            for key in keys:
                mix[query, head] += pattern[query, key] * (weight @ x[key] + bias)
    return mix


def slow_z(attention: Attention, x: Tensor, keys: list[int]) -> Tensor:
    """The input of W_O."""
    mix = slow_mix(attention, x, keys)
    if attention.ln is None:
        return mix
    return torch.stack([attention.ln.fused(token.flatten()).view(3, 5) for token in mix])


ALL = [0, 1, 2, 3]


@pytest.mark.parametrize("fused", [True, False])
def test_z_is_each_heads_mix_of_values(attention: Attention, x: Tensor, fused: bool) -> None:
    attention.fused = fused
    expected = torch.stack([slow_z(attention, image, ALL) for image in x])
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


def test_scores_and_pattern_are_those_of_the_loop(attention: Attention, x: Tensor) -> None:
    seen = {}
    for point in (attention.hook_attn_scores, attention.hook_pattern, attention.hook_v):
        point.add_hook(lambda activation, hook: seen.update({hook: activation}))
    z = attention(x)
    scores, pattern, v = (seen[p] for p in (attention.hook_attn_scores, attention.hook_pattern, attention.hook_v))
    assert scores.shape == pattern.shape == (2, 3, 4, 4)
    assert v.shape == (2, 4, 3, 5)
    for image in range(2):
        for head in range(3):
            expected = slow_pattern(attention, x[image], head, ALL)
            torch.testing.assert_close(pattern[image, head], expected, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(scores[image, head].exp() / scores[image, head].exp().sum(-1, True), expected)
    torch.testing.assert_close(z, torch.stack([slow_z(attention, image, ALL) for image in x]), rtol=1e-4, atol=1e-5)


def test_an_edited_pattern_is_what_mixes_the_values(x: Tensor) -> None:
    attention = made(PLAIN)

    def only_to_key_two(pattern: Tensor, hook: object) -> Tensor:
        return torch.nn.functional.one_hot(torch.full(pattern.shape[:-1], 2), 4).float()

    attention.hook_pattern.add_hook(only_to_key_two)
    z = attention(x)
    for head in range(3):
        weight, bias = rows_of(attention, 2, head)
        for image in range(2):
            torch.testing.assert_close(z[image, :, head], (weight @ x[image, 2] + bias).expand(4, 5))


@pytest.mark.parametrize("watched", [False, True])
def test_masked_keys_have_no_effect(attention: Attention, x: Tensor, watched: bool) -> None:
    keys = torch.tensor([[True, True, False, True], [False, True, True, False]])
    if watched:
        attention.hook_pattern.add_hook(lambda pattern, hook: None)
    z = attention(x, AttentionTerms(additive_mask(keys, x.dtype)))
    for image in range(2):
        expected = slow_z(attention, x[image], keys[image].nonzero().flatten().tolist())
        torch.testing.assert_close(z[image], expected, rtol=1e-4, atol=1e-5)


def test_queries_and_keys_are_normed_after_their_hook_points(x: Tensor) -> None:
    attention = made(VARIANTS["qk_norm"])
    seen = {}
    for point in (attention.hook_q, attention.q_norm.hook_scale, attention.q_norm.hook_normalized):
        point.add_hook(lambda activation, hook: seen.update({hook: activation}))
    attention(x)
    q, scale, normed = seen[attention.hook_q], *(seen[p] for p in (attention.q_norm.hook_scale,
                                                                   attention.q_norm.hook_normalized))  # fmt: skip
    assert scale.shape == (2, 3, 4, 1)
    for image in range(2):
        for head in range(3):
            weight, bias = rows_of(attention, 0, head)
            for token in range(4):
                query = weight @ x[image, token] + bias
                torch.testing.assert_close(q[image, token, head], query, rtol=1e-4, atol=1e-6)
                torch.testing.assert_close(normed[image, head, token], attention.q_norm.fused(query))
                expected = ((query - query.mean()).square().mean() + 0.1).sqrt()
                torch.testing.assert_close(scale[image, head, token, 0], expected)


def test_hook_z_pre_is_the_mix_before_an_inner_norm(x: Tensor) -> None:
    attention = made(VARIANTS["inner_norm"])
    seen = {}
    for point in (attention.hook_z_pre, attention.hook_z):
        point.add_hook(lambda activation, hook: seen.update({hook: activation}))
    attention(x)
    mix = torch.stack([slow_mix(attention, image, ALL) for image in x])
    torch.testing.assert_close(seen[attention.hook_z_pre], mix, rtol=1e-4, atol=1e-5)
    for image in range(2):
        for token in range(4):
            normed = attention.ln.fused(mix[image, token].flatten())
            torch.testing.assert_close(seen[attention.hook_z][image, token].flatten(), normed, rtol=1e-4, atol=1e-5)
    assert made(PLAIN).hook_z_pre is None


def test_split_inputs_that_are_equal_change_nothing(attention: Attention, x: Tensor) -> None:
    per_head = x[:, :, None].expand(-1, -1, 3, -1)
    torch.testing.assert_close(attention.forward_split(per_head, per_head, per_head), attention(x))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_split_input_reaches_only_its_head_and_role(x: Tensor, which: int) -> None:
    attention, head = made(PLAIN), 1
    inputs = [x[:, :, None].expand(-1, -1, 3, -1).clone() for _ in range(3)]
    other = torch.randn(2, 4, 14, generator=torch.Generator().manual_seed(2))
    inputs[which][:, :, head] = other
    seen = {}
    points = [attention.hook_q, attention.hook_k, attention.hook_v]
    for point in points:
        point.add_hook(lambda activation, hook: seen.update({hook: activation}))
    z = attention.forward_split(*inputs)
    untouched = torch.stack([slow_mix(attention, image, ALL) for image in x])
    for index, point in enumerate(points):
        for h in range(3):
            weight, bias = rows_of(attention, index, h)
            source = other if (index, h) == (which, head) else x
            torch.testing.assert_close(seen[point][:, :, h], source @ weight.T + bias)
    torch.testing.assert_close(z[:, :, [0, 2]], untouched[:, :, [0, 2]], rtol=1e-4, atol=1e-5)
    assert (z[:, :, head] - untouched[:, :, head]).abs().max() > 0.01


def test_heads_and_bias_sum_to_the_output(attention: Attention, x: Tensor) -> None:
    z = attention(x)
    shares = attention.project_heads(z)
    assert shares.shape == (2, 4, 3, 14)
    for head in range(3):
        columns = attention.out.weight[:, head * 5 : head * 5 + 5]
        torch.testing.assert_close(shares[:, :, head], z[:, :, head] @ columns.T, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(shares.sum(2) + attention.b_O, attention.project(z), rtol=1e-4, atol=1e-5)


def test_an_additive_mask_is_zero_at_kept_keys() -> None:
    mask = additive_mask(torch.tensor([[True, False, True]]), torch.float64)
    assert mask.shape == (1, 1, 1, 3)
    assert mask.dtype == torch.float64
    assert mask.flatten().tolist() == [0.0, -math.inf, 0.0]


@pytest.mark.parametrize("point", ["hook_q", "hook_k", "hook_v"])
def test_an_edit_in_place_works_with_gradients_on(x: Tensor, point: str) -> None:
    attention = made(PLAIN).requires_grad_(True)

    def knock_out(activation: Tensor, hook: object) -> Tensor:
        activation[:, :, 1] = 0.0
        return activation

    expected = made(PLAIN)
    getattr(expected, point).add_hook(lambda a, hook: a * torch.tensor([1.0, 0.0, 1.0])[:, None])
    getattr(attention, point).add_hook(knock_out)
    z = attention(x)
    torch.testing.assert_close(z, expected(x))
    (gradient,) = torch.autograd.grad(z.square().sum(), attention.qkv.bias)
    index = ["hook_q", "hook_k", "hook_v"].index(point)
    assert gradient.view(3, 3, 5)[index, 1].abs().max() == 0
    assert gradient.view(3, 3, 5)[2, 0].abs().max() > 0


@pytest.mark.parametrize("fused", [True, False])
def test_attention_past_the_hook_points_is_the_loop(attention: Attention, x: Tensor, fused: bool) -> None:
    for point in (attention.hook_q, attention.hook_v, attention.hook_pattern, attention.hook_z):
        point.add_hook(lambda activation, hook: pytest.fail("a hook was called"))
    q, k, v = attention.queries_keys_values(x, slice(None))
    z = attention.norm_z(attention.attend_unhooked(q, k, v, fused))
    torch.testing.assert_close(z, torch.stack([slow_z(attention, image, ALL) for image in x]), rtol=1e-4, atol=1e-5)


def test_queries_of_some_tokens_and_keys_and_values_of_all(attention: Attention, x: Tensor) -> None:
    parts = attention.queries_keys_values(x, slice(1, 3))
    assert [part.shape for part in parts] == [(2, 2, 3, 5), (2, 4, 3, 5), (2, 4, 3, 5)]
    for index, (part, tokens) in enumerate(zip(parts, ([1, 2], ALL, ALL), strict=True)):
        for head in range(3):
            weight, bias = rows_of(attention, index, head)
            for row, token in enumerate(tokens):
                expected = torch.stack([weight @ image[token] + bias for image in x])
                torch.testing.assert_close(part[:, row, head], expected, rtol=1e-4, atol=1e-6)

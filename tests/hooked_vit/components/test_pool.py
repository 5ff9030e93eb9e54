"""Pooling by mean and maximum compared with a loop, and the attention pool with its definition."""

import dataclasses

import pytest
import torch
from torch import Tensor

from hooked_vit import HookedViTConfig, NormConfig
from hooked_vit.components.attention_terms import additive_mask
from hooked_vit.components.pool import AttentionPool, pool_tokens

CFG = HookedViTConfig(
    n_layers=1, d_model=12, n_heads=2, d_mlp=7, n_classes=9, image_size=(6, 8), patch_size=(3, 2), pool="attention",
    pool_n_heads=3, pool_d_mlp=10, pool_act_fn="gelu_tanh", pool_norm=NormConfig(eps=0.1),
)  # fmt: skip


def made(cfg: HookedViTConfig = CFG) -> AttentionPool:
    """An attention pool with non-trivial parameters."""
    pool = AttentionPool(cfg)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return pool.requires_grad_(False)


@pytest.fixture
def tokens() -> Tensor:
    """Two images of five tokens."""
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))


MASKS = [None, torch.tensor([[True, False, True, True, False], [False, False, False, True, False]])]


@pytest.mark.parametrize("mask", MASKS, ids=["all", "masked"])
@pytest.mark.parametrize("kind", ["avg", "max", "avgmax"])
def test_means_and_maxima_are_over_the_kept_tokens(kind: str, mask: Tensor | None, tokens: Tensor) -> None:
    expected = torch.zeros(2, 12)
    for image in range(2):
        stay = [token for token in range(5) if mask is None or mask[image, token]]
        for m in range(12):
            values = [float(tokens[image, token, m]) for token in stay]
            mean, largest = sum(values) / len(values), max(values)
            expected[image, m] = {"avg": mean, "max": largest, "avgmax": (mean + largest) / 2}[kind]
    torch.testing.assert_close(pool_tokens(tokens, kind, mask), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["avg", "max", "avgmax"])
def test_the_values_of_dropped_tokens_do_not_matter(kind: str, tokens: Tensor) -> None:
    expected = pool_tokens(tokens, kind, MASKS[1])
    tokens[~MASKS[1]] = torch.nan if kind == "avg" else 1e9
    if kind == "avgmax":
        tokens[~MASKS[1]] = -5.0
    assert torch.equal(pool_tokens(tokens, kind, MASKS[1]), expected)


def slow_pool(pool: AttentionPool, tokens: Tensor) -> Tensor:
    """The attention pool of the tokens of one image, one head at a time."""
    query = pool.q.weight @ pool.latent[0] + pool.q.bias
    mixes = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        keys = [pool.kv.weight[:12][part] @ token + pool.kv.bias[:12][part] for token in tokens]
        values = [pool.kv.weight[12:][part] @ token + pool.kv.bias[12:][part] for token in tokens]
        weights = torch.stack([query[part] @ key / 2 for key in keys]).exp()
        mixes.append(sum(w * v for w, v in zip(weights / weights.sum(), values, strict=True)))
    pooled = pool.out(torch.cat(mixes))
    return pooled + pool.mlp.out(pool.mlp.act(pool.mlp.inp(pool.ln.fused(pooled))))


def test_the_attention_pool_is_its_definition(tokens: Tensor) -> None:
    pool = made()
    expected = torch.stack([slow_pool(pool, image) for image in tokens])
    torch.testing.assert_close(pool(tokens), expected, rtol=1e-4, atol=1e-5)
    pool.hook_pattern.add_hook(lambda pattern, hook: None)
    torch.testing.assert_close(pool(tokens), expected, rtol=1e-4, atol=1e-5)


def test_masked_tokens_have_no_effect(tokens: Tensor) -> None:
    pool, mask = made(), MASKS[1]
    expected = torch.stack([slow_pool(pool, tokens[image][mask[image]]) for image in range(2)])
    torch.testing.assert_close(pool(tokens, additive_mask(mask, tokens.dtype)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cfg", [CFG, dataclasses.replace(CFG, pool_norm=None, pool_qk_norm=NormConfig())])
def test_pool_alone_pools_each_vector_as_the_only_token(cfg: HookedViTConfig, tokens: Tensor) -> None:
    pool = made(cfg)
    vectors = tokens.flatten(0, 1)
    expected = torch.cat([pool(vector[None, None]) for vector in vectors])
    torch.testing.assert_close(pool.pool_alone(vectors), expected, rtol=1e-4, atol=1e-5)


def test_shapes_of_the_pools_hook_points(tokens: Tensor) -> None:
    pool, shapes = made(), {}
    for name, module in pool.named_modules():
        if name.rsplit(".", 1)[-1].startswith("hook_"):
            module.add_hook(lambda a, hook, name=name: shapes.update({name: tuple(a.shape)}))
    pool(tokens)
    assert shapes == {
        "hook_q": (2, 1, 3, 4), "hook_k": (2, 5, 3, 4), "hook_v": (2, 5, 3, 4), "hook_attn_scores": (2, 3, 1, 5),
        "hook_pattern": (2, 3, 1, 5), "hook_z": (2, 1, 3, 4), "hook_attn_out": (2, 1, 12), "ln.hook_scale": (2, 1, 1),
        "ln.hook_normalized": (2, 1, 12), "mlp.hook_pre": (2, 1, 10), "mlp.hook_post": (2, 1, 10),
        "hook_mlp_out": (2, 1, 12),
    }  # fmt: skip


def test_pooling_past_the_hook_points_is_the_loop(tokens: Tensor) -> None:
    pool = made()
    for point in (pool.hook_q, pool.hook_z, pool.ln.hook_scale, pool.mlp.hook_pre, pool.hook_mlp_out):
        point.add_hook(lambda activation, hook: pytest.fail("a hook was called"))
    expected = torch.stack([slow_pool(pool, image) for image in tokens])
    torch.testing.assert_close(pool.pool(tokens), expected, rtol=1e-4, atol=1e-5)
    assert pool.pool(tokens[:, :2]).shape == (2, 12)


@pytest.mark.parametrize("cfg", [CFG, dataclasses.replace(CFG, pool_norm=None, pool_qk_norm=NormConfig())])
def test_gradients_of_several_metrics_pass_the_pool_at_once(cfg: HookedViTConfig, tokens: Tensor) -> None:
    pool = made(cfg)
    several = torch.randn(4, 2, 12, generator=torch.Generator().manual_seed(3))
    _, pull = torch.func.vjp(pool.pool, tokens)
    (found,) = torch.func.vmap(pull)(several)
    for index in range(4):
        leaf = tokens.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(pool(leaf), leaf, several[index])
        torch.testing.assert_close(found[index], gradient, rtol=1e-4, atol=1e-5)

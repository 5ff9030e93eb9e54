"""Differential attention against its definition, and its hook points."""

import dataclasses

import pytest
import torch
from torch import Tensor

from hooked_vit import HookedViTConfig, NormConfig
from hooked_vit.components.differential_attention import DifferentialAttention
from hooked_vit.config import DifferentialConfig

BASE = HookedViTConfig(
    n_layers=2, d_model=14, n_heads=3, d_head=6, d_mlp=20, n_classes=7, image_size=(16, 24), patch_size=(8, 8),
    differential=DifferentialConfig((0.2, 0.35)),
)  # fmt: skip
VARIANTS = {
    "vectors": BASE,
    "numbers": dataclasses.replace(BASE, differential=DifferentialConfig((0.2, 0.35), dual=True)),
    "norms": dataclasses.replace(BASE, qk_norm=NormConfig(), attn_inner_norm=NormConfig()),
}
POINTS = ("hook_attn_scores_1", "hook_attn_scores_2", "hook_pattern_1", "hook_pattern_2", "hook_pattern", "hook_lambda",
          "hook_q", "hook_k", "hook_v", "hook_z", "hook_z_pre")  # fmt: skip


@pytest.fixture(params=VARIANTS)
def attn(request: pytest.FixtureRequest) -> DifferentialAttention:
    """Each kind in turn, with non-trivial parameters."""
    attn = DifferentialAttention(VARIANTS[request.param], layer=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in attn.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return attn.requires_grad_(False)


@pytest.fixture
def x() -> Tensor:
    """Two images of four tokens."""
    return torch.randn(2, 4, 14, generator=torch.Generator().manual_seed(1))


def slow(attn: DifferentialAttention, tokens: Tensor, head: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two patterns of a head of one image, and its mix after its norm, number by number."""
    q, k, v = (tokens @ W[head] + b[head] for W, b in zip((attn.W_Q, attn.W_K, attn.W_V),
                                                          (attn.b_Q, attn.b_K, attn.b_V), strict=True))  # fmt: skip
    patterns = []
    for half in (slice(0, 3), slice(3, 6)):
        first, second = q[:, half], k[:, half]
        if attn.q_norm is not None and attn.k_norm is not None:
            first, second = attn.q_norm.fused(first), attn.k_norm.fused(second)
        patterns.append(torch.stack([torch.stack([a @ b / 3**0.5 for b in second]).softmax(0) for a in first]))
    values = {name: parameter.double() for name, parameter in attn.lambdas.items()}
    if "a" in values:
        weight = values["a"].exp() - values["b"].exp() + 0.35
    else:
        weight = (values["q1"] @ values["k1"]).exp() - (values["q2"] @ values["k2"]).exp() + 0.35
    mix = (patterns[0] - float(weight) * patterns[1]) @ v
    normed = torch.stack([row / (row.square().mean() + 1e-5).sqrt() * attn.head_ln.weight for row in mix])
    return patterns[0], patterns[1], normed * (1 - 0.35)


@pytest.mark.parametrize("fused", [True, False])
def test_it_follows_its_definition(attn: DifferentialAttention, x: Tensor, fused: bool) -> None:
    attn.fused = fused
    z = attn(x)
    for image in range(2):
        heads = [slow(attn, x[image], head)[2] for head in range(3)]
        expected = torch.stack(heads, dim=1)
        if attn.ln is not None:
            expected = attn.ln.fused(expected.flatten(1)).unflatten(-1, (3, 6))
        torch.testing.assert_close(z[image], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_patterns_scores_and_lambda_are_readable(attn: DifferentialAttention, x: Tensor, fused: bool) -> None:
    attn.fused, seen = fused, {}
    plain = attn(x)
    for name in POINTS:

        def keep(a: Tensor, hook: object, name: str = name) -> None:
            seen[name] = a

        keep.only_reads = True
        getattr(attn, name).add_hook(keep)
    assert torch.equal(attn(x), plain)
    for image in range(2):
        for head in range(3):
            pattern_1, pattern_2, _ = slow(attn, x[image], head)
            torch.testing.assert_close(seen["hook_pattern_1"][image, head], pattern_1, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(seen["hook_pattern_2"][image, head], pattern_2, rtol=1e-4, atol=1e-6)
    assert seen["hook_lambda"].shape == (2,)
    assert torch.equal(seen["hook_lambda"][1], attn.lambda_full())
    difference = seen["hook_pattern_1"] - attn.lambda_full() * seen["hook_pattern_2"]
    assert torch.equal(seen["hook_pattern"], difference)
    assert torch.equal(seen["hook_attn_scores_2"].softmax(-1), seen["hook_pattern_2"])
    mix = (seen["hook_pattern"] @ seen["hook_v"].transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(seen["hook_z_pre"], mix, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("point", [*POINTS, "head_ln.hook_scale", "head_ln.hook_normalized"])
def test_each_point_edited_moves_the_output(attn: DifferentialAttention, x: Tensor, point: str) -> None:
    plain = attn(x)
    generator = torch.Generator().manual_seed(3)
    attn.get_submodule(point).add_hook(lambda a, hook: a * (1 + torch.rand(a.shape, generator=generator)))
    edited = attn(x)
    assert (edited - plain).abs().max() > 1e-4
    assert edited.isfinite().all()


@pytest.mark.parametrize("fused", [True, False])
def test_past_the_hook_points(attn: DifferentialAttention, x: Tensor, fused: bool) -> None:
    q, k, v = attn.queries_keys_values(x, slice(1, 3))
    found = attn.norm_z(attn.attend_unhooked(q, k, v, fused, queries=slice(1, 3)))
    torch.testing.assert_close(found, attn(x)[:, 1:3], rtol=1e-4, atol=1e-5)


def test_the_sign_of_lambda(x: Tensor) -> None:
    attn = DifferentialAttention(BASE, layer=0)
    with torch.no_grad():
        attn.lambdas["q1"].fill_(0.5)
        attn.lambdas["k1"].fill_(1.0)
    assert attn.lambda_full().item() == pytest.approx(2.718281828**1.5 - 1 + 0.2, rel=1e-5)


def test_there_is_no_single_qk(attn: DifferentialAttention) -> None:
    with pytest.raises(ValueError, match="a differential head has two products QK"):
        _ = attn.QK
    assert not hasattr(attn, "hook_attn_scores")

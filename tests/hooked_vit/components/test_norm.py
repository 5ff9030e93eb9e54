"""Norms compared with their formulas; edits of the scale; the fused call if nothing is edited."""

import math

import pytest
import torch
from torch import Tensor

from hooked_vit import NormConfig
from hooked_vit.components.norm import Norm

KINDS = [
    NormConfig(eps=0.1),
    NormConfig(eps=0.1, has_bias=False),
    NormConfig(eps=0.1, has_weight=False, has_bias=False),
    NormConfig("rms", eps=0.1, has_bias=False),
    NormConfig("rms", eps=0.1, has_weight=False, has_bias=False),
    NormConfig(eps=0.1, in_float32=True),
]


def made(cfg: NormConfig, width: int = 5) -> Norm:
    """A norm with weights of no special value."""
    norm = Norm(width, cfg)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(width, generator=generator))
    return norm


def slow(norm: Norm, x: Tensor, factor: float = 1.0) -> Tensor:
    """The norm of every vector, one number at a time, with its scale multiplied by `factor`."""
    out = torch.zeros_like(x, dtype=torch.float64)
    rows, written = x.double().reshape(-1, x.shape[-1]), out.reshape(-1, x.shape[-1])
    for row, into in zip(rows, written, strict=True):
        numbers = row.tolist()
        mean = sum(numbers) / len(numbers) if norm.cfg.kind == "layer" else 0.0
        scale = math.sqrt(sum((n - mean) ** 2 for n in numbers) / len(numbers) + norm.cfg.eps) * factor
        for index, n in enumerate(numbers):
            weight = 1.0 if norm.weight is None else norm.weight[index].item()
            bias = 0.0 if norm.bias is None else norm.bias[index].item()
            into[index] = weight * (n - mean) / scale + bias
    return out.to(x.dtype)


@pytest.fixture(params=KINDS, ids=str)
def norm(request: pytest.FixtureRequest) -> Norm:
    """Each kind of norm in turn."""
    return made(request.param)


@pytest.fixture
def x() -> Tensor:
    """Vectors of width five, with leading axes."""
    return 3 * torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1)) + 1


def test_the_formula(norm: Norm, x: Tensor) -> None:
    torch.testing.assert_close(norm(x), slow(norm, x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.divide(x, norm.scale(x)), slow(norm, x), rtol=1e-5, atol=1e-5)


def test_the_hook_points_are_the_scale_and_the_output(norm: Norm, x: Tensor) -> None:
    seen = {}

    def keep(activation: Tensor, hook: object) -> None:
        seen[hook] = activation

    keep.only_reads = True  # type: ignore[attr-defined]
    before = norm(x)
    norm.hook_scale.add_hook(keep)
    norm.hook_normalized.add_hook(keep)
    assert torch.equal(norm(x), before), "a look changes nothing"
    scale = seen[norm.hook_scale]
    assert scale.shape == (2, 4, 1)
    torch.testing.assert_close(scale, norm.scale(x))
    expected = (x - x.mean(-1, keepdim=True) if norm.cfg.kind == "layer" else x).square().mean(-1, keepdim=True)
    torch.testing.assert_close(scale, (expected + norm.cfg.eps).sqrt())
    assert torch.equal(seen[norm.hook_normalized], before)


@pytest.mark.parametrize("in_place", [False, True])
def test_the_input_is_divided_by_an_edited_scale(norm: Norm, x: Tensor, in_place: bool) -> None:
    norm.hook_scale.add_hook(lambda s, hook: s.mul_(3) if in_place else 3 * s)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), slow(norm, x, factor=3), rtol=1e-5, atol=1e-5)


def test_gradients_flow_through_the_scale(norm: Norm, x: Tensor) -> None:
    kept = []

    def keep(scale: Tensor, hook: object) -> Tensor:
        kept.append(scale.detach().requires_grad_())
        return kept[0]

    norm.hook_scale.add_hook(keep)
    (gradient,) = torch.autograd.grad(norm(x).square().sum() / 2, kept)
    out = norm(x).detach()
    bias = 0 if norm.bias is None else norm.bias.detach()
    torch.testing.assert_close(gradient, -(out * (out - bias)).sum(-1, keepdim=True) / kept[0].detach())


def test_divide_is_linear_except_for_the_bias(norm: Norm, x: Tensor) -> None:
    scale = norm.scale(x)
    first, second = torch.randn(2, 2, 4, 5)
    parts = norm.divide(first, scale, bias=False) + norm.divide(second, scale)
    torch.testing.assert_close(norm.divide(first + second, scale), parts, rtol=1e-5, atol=1e-5)
    vector = torch.randn(5)
    torch.testing.assert_close(norm.divide(vector, scale)[1, 2], norm.divide(vector, scale[1, 2]))


@pytest.mark.parametrize("cfg", [NormConfig(in_float32=True), NormConfig(), NormConfig("rms", has_bias=False)], ids=str)
def test_low_precision_input_is_normed_in_float32(cfg: NormConfig) -> None:
    norm = made(cfg).to(torch.bfloat16)
    x = (100 + torch.randn(3, 4, 5)).to(torch.bfloat16)
    exact = slow(norm, x).float()
    for out in (norm(x), norm.divide(x, norm.scale(x))):
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.float(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("hook", ["none", "reads", "edits"])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_one_fused_call_unless_the_scale_is_edited(kind: str, hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    norm = made(NormConfig(kind, has_bias=kind == "layer"))  # type: ignore[arg-type]
    calls = []
    for name, module in (("layer_norm", torch.nn.functional), ("rms_norm", torch.nn.functional),
                         ("native_layer_norm", torch)):  # fmt: skip
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, real=real, **kwargs: calls.append(1) or real(*args, **kwargs))

    def look(scale: Tensor, hook: object) -> None: ...

    look.only_reads = hook == "reads"  # type: ignore[attr-defined]
    if hook != "none":
        norm.hook_scale.add_hook(look)
    norm(torch.randn(3, 5))
    assert len(calls) == (0 if hook == "edits" else 1)

"""MLPs, plain and gated, compared with a loop over neurons; their hook points and their matrices."""

import math

import pytest
import torch
from torch import Tensor

from hooked_vit import NormConfig
from hooked_vit.components.mlp import ACTIVATIONS, Mlp

VARIANTS = {
    "plain": {"kind": "plain", "act_fn": "gelu"},
    "no_bias": {"kind": "plain", "act_fn": "relu", "bias": (False, False)},
    "normed": {"kind": "plain", "act_fn": "gelu_tanh", "inner_norm": NormConfig(eps=0.1)},
    "packed": {"kind": "glu_packed", "act_fn": "silu"},
    "packed_gate_last": {"kind": "glu_packed", "act_fn": "sigmoid", "gate_last": True},
    "packed_no_bias": {"kind": "glu_packed", "act_fn": "silu", "bias": (False, True)},
    "split": {"kind": "glu_split", "act_fn": "silu", "bias": (True, False)},
    "split_normed": {"kind": "glu_split", "act_fn": "silu", "bias": (False, True), "inner_norm": NormConfig(eps=0.1)},
}


def made(variant: str) -> Mlp:
    """An MLP of width 4 and six neurons with non-trivial parameters."""
    mlp = Mlp(d_model=4, d_mlp=6, **VARIANTS[variant])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return mlp.requires_grad_(False)


@pytest.fixture(params=sorted(VARIANTS))
def mlp(request: pytest.FixtureRequest) -> Mlp:
    """Each kind of MLP in turn."""
    return made(request.param)


@pytest.fixture
def x() -> Tensor:
    """Two images of three tokens."""
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))


def row(mlp: Mlp, neuron: int, gate: bool) -> tuple[Tensor, float]:
    """Input weights and bias of one neuron's gate or linear half, found in the stored tensors."""
    layer, index = mlp.inp, neuron
    if mlp.kind == "glu_split" and gate:
        layer = mlp.gate
    elif mlp.kind == "glu_packed":
        index += 6 if gate == mlp.gate_last else 0
    return layer.weight[index], 0.0 if layer.bias is None else float(layer.bias[index])


def slow(mlp: Mlp, token: Tensor) -> dict[str, Tensor]:
    """All activations of one token, one neuron at a time."""
    names = {name: torch.zeros(6) for name in ("pre", "pre_linear", "mid")}
    for neuron in range(6):
        if mlp.kind == "plain":
            weight, bias = row(mlp, neuron, gate=False)
            names["pre"][neuron] = weight @ token + bias
            names["mid"][neuron] = mlp.act(names["pre"][neuron])
        else:
            for half, gate in (("pre", True), ("pre_linear", False)):
                weight, bias = row(mlp, neuron, gate)
                names[half][neuron] = weight @ token + bias
            names["mid"][neuron] = mlp.act(names["pre"][neuron]) * names["pre_linear"][neuron]
    names["post"] = names["mid"] if mlp.ln is None else mlp.ln.fused(names["mid"])
    out = torch.zeros(4) if mlp.out.bias is None else mlp.out.bias.clone()
    for neuron in range(6):
        out += names["post"][neuron] * mlp.out.weight[:, neuron]
    return {**names, "out": out}


def test_output_and_hook_points_are_those_of_the_loop(mlp: Mlp, x: Tensor) -> None:
    seen: dict[str, Tensor] = {}
    points = {name: getattr(mlp, f"hook_{name}") for name in ("pre", "pre_linear", "mid", "post")}
    for name, point in points.items():
        if point is not None:
            point.add_hook(lambda activation, hook, name=name: seen.update({name: activation.clone()}))
    seen["out"] = mlp(x)
    assert ("pre_linear" in seen) == (mlp.kind != "plain")
    assert ("mid" in seen) == (mlp.ln is not None)
    for image in range(2):
        for token in range(3):
            expected = slow(mlp, x[image, token])
            for name, activation in seen.items():
                torch.testing.assert_close(activation[image, token], expected[name], rtol=1e-4, atol=1e-5)


def test_the_matrices_are_those_of_the_formula(mlp: Mlp, x: Tensor) -> None:
    linear = x @ mlp.W_in + mlp.b_in
    mid = mlp.act(linear) if mlp.kind == "plain" else mlp.act(x @ mlp.W_gate + mlp.b_gate) * linear
    post = mid if mlp.ln is None else mlp.ln.fused(mid)
    torch.testing.assert_close(post @ mlp.W_out + mlp.b_out, mlp(x), rtol=1e-4, atol=1e-5)


def test_the_matrices_are_views_and_missing_biases_are_zeros(mlp: Mlp) -> None:
    stored = {mlp.inp.weight.untyped_storage().data_ptr(), mlp.out.weight.untyped_storage().data_ptr()}
    if mlp.gate is not None:
        stored.add(mlp.gate.weight.untyped_storage().data_ptr())
    names = ["W_in", "W_out"] + ([] if mlp.kind == "plain" else ["W_gate"])
    assert {getattr(mlp, name).untyped_storage().data_ptr() for name in names} == stored
    assert mlp.W_in.shape == (4, 6)
    assert mlp.W_out.shape == (6, 4)
    if mlp.inp.bias is None:
        assert torch.equal(mlp.b_in, torch.zeros(6))
    if mlp.out.bias is None:
        assert torch.equal(mlp.b_out, torch.zeros(4))
    if mlp.kind != "plain" and mlp.inp.bias is None:
        assert torch.equal(mlp.b_gate, torch.zeros(6))


def test_a_plain_mlp_has_no_gate() -> None:
    for name in ("W_gate", "b_gate"):
        with pytest.raises(AttributeError):
            getattr(made("plain"), name)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2),
        ("gelu_tanh", lambda v: v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2),
        ("quick_gelu", lambda v: v / (1 + math.exp(-1.702 * v))),
        ("silu", lambda v: v / (1 + math.exp(-v))),
        ("relu", lambda v: max(v, 0.0)),
        ("sigmoid", lambda v: 1 / (1 + math.exp(-v))),
    ],
)
def test_activation_functions_are_their_formulas(name: str, formula) -> None:
    values = torch.linspace(-4, 4, 33)
    expected = torch.tensor([formula(value) for value in values.tolist()])
    torch.testing.assert_close(ACTIVATIONS[name](values), expected, rtol=1e-5, atol=1e-6)


def test_every_activation_function_is_tested_above() -> None:
    assert set(ACTIVATIONS) == {"gelu", "gelu_tanh", "quick_gelu", "silu", "relu", "sigmoid"}


@pytest.mark.parametrize("point", ["hook_pre", "hook_pre_linear"])
def test_halves_of_a_packed_gate_can_be_edited_in_place_with_gradients_on(x: Tensor, point: str) -> None:
    mlp, expected = made("packed").requires_grad_(True), made("packed")
    getattr(mlp, point).add_hook(lambda a, hook: a.mul_(2))
    getattr(expected, point).add_hook(lambda a, hook: 2 * a)
    out = mlp(x)
    torch.testing.assert_close(out, expected(x))
    (gradient,) = torch.autograd.grad(out.sum(), mlp.inp.bias)
    assert (gradient.abs() > 0).all()


def test_neurons_are_those_of_the_loop_past_the_hook_points(mlp: Mlp, x: Tensor) -> None:
    for point in (mlp.hook_pre, mlp.hook_post):
        point.add_hook(lambda activation, hook: pytest.fail("a hook was called"))
    neurons = mlp.neurons(x)
    for image in range(2):
        for token in range(3):
            expected = slow(mlp, x[image, token])["post"]
            torch.testing.assert_close(neurons[image, token], expected, rtol=1e-4, atol=1e-5)

"""A block's equations, what each head adds to the stream, split inputs, and computations past the hook points."""

import dataclasses

import pytest
import torch
from torch import Tensor

from hooked_vit import HookedViTConfig, NormConfig
from hooked_vit.components.block import Block

BASE = HookedViTConfig(
    n_layers=2, d_model=14, n_heads=3, d_head=5, d_mlp=20, n_classes=7, image_size=(16, 24), patch_size=(8, 8)
)
VARIANTS = {
    "pre_norm": BASE,
    "layer_scale": dataclasses.replace(BASE, layer_scale=True),
    "rms": dataclasses.replace(BASE, block_norm=NormConfig("rms", eps=0.1, has_bias=False), attn_out_bias=False),
    "post_norm": dataclasses.replace(BASE, post_norm=True),
    "post_norm_rms": dataclasses.replace(BASE, post_norm=True, block_norm=NormConfig("rms", has_bias=False)),
    "inner_norms": dataclasses.replace(BASE, attn_inner_norm=NormConfig(), mlp_inner_norm=NormConfig()),
}
POINTS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")


def made(variant: str) -> Block:
    """A block with non-trivial parameters."""
    block = Block(VARIANTS[variant])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return block.requires_grad_(False)


@pytest.fixture(params=sorted(VARIANTS))
def block(request: pytest.FixtureRequest) -> Block:
    """Each kind of block in turn."""
    return made(request.param)


@pytest.fixture
def stream() -> Tensor:
    """Two images of four tokens."""
    return torch.randn(2, 4, 14, generator=torch.Generator().manual_seed(1))


def seen_in(block: Block, stream: Tensor, **edits) -> dict[str, Tensor]:
    """All activations of one run of a block, with hooks that edit some of them by attribute name."""
    seen: dict[str, Tensor] = {}
    points = {name: module for name, module in block.named_modules() if name.rsplit(".", 1)[-1].startswith("hook_")}
    for name, edit in edits.items():
        points[name.replace("__", ".")].add_hook(lambda a, hook, edit=edit: edit(a))
    for name, point in points.items():
        point.add_hook(lambda a, hook, name=name: seen.update({name: a.detach().clone()}))
    block(stream)
    for point in points.values():
        point.remove_hooks()
    return seen


def test_the_stream_is_what_the_sublayers_add_to_it(block: Block, stream: Tensor) -> None:
    seen = seen_in(block, stream)
    pre, attn_out, mid, mlp_out, post = (seen[f"hook_{name}"] for name in POINTS)
    assert torch.equal(pre, stream)
    assert torch.equal(mid, pre + attn_out)
    assert torch.equal(post, mid + mlp_out)
    torch.testing.assert_close(block(stream), post, rtol=1e-4, atol=1e-5)


def test_the_sublayers_follow_their_equations(block: Block, stream: Tensor) -> None:
    seen = seen_in(block, stream)
    mid = seen["hook_resid_mid"]
    if block.post_norm:
        attn_out = block.ln1(block.attn.project(block.attn(stream)))
        mlp_out = block.ln2(block.mlp(mid))
    else:
        ones = torch.ones(14)
        attn_out = block.attn.project(block.attn(block.ln1(stream))) * (ones if block.ls1 is None else block.ls1)
        mlp_out = block.mlp(block.ln2(mid)) * (ones if block.ls2 is None else block.ls2)
    torch.testing.assert_close(seen["hook_attn_out"], attn_out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen["hook_mlp_out"], mlp_out, rtol=1e-4, atol=1e-5)


def slow_share(block: Block, z: Tensor, head: int, scale: Tensor) -> Tensor:
    """What a head adds to the stream at one token, one number at a time."""
    written = [
        sum(float(z[head, i]) * float(block.attn.out.weight[m, head * 5 + i]) for i in range(5)) for m in range(14)
    ]
    if block.post_norm:
        mean = sum(written) / 14 if block.ln1.cfg.kind == "layer" else 0.0
        written = [(w - mean) / float(scale) * float(block.ln1.weight[m]) for m, w in enumerate(written)]
    elif block.ls1 is not None:
        written = [w * float(block.ls1[m]) for m, w in enumerate(written)]
    return torch.tensor(written)


def test_a_heads_result_is_its_share_of_attn_out(block: Block, stream: Tensor) -> None:
    seen = seen_in(block, stream)
    result, scale = seen["attn.hook_result"], seen["ln1.hook_scale"]
    assert result.shape == (2, 4, 3, 14)
    for image in range(2):
        for token in range(4):
            for head in range(3):
                share = slow_share(block, seen["attn.hook_z"][image, token], head, scale[image, token, 0])
                torch.testing.assert_close(result[image, token, head], share, rtol=1e-4, atol=1e-5)
    bias = block.attn_out_bias(scale if block.post_norm else None)
    torch.testing.assert_close(result.sum(2) + bias, seen["hook_attn_out"], rtol=1e-4, atol=1e-5)


def test_mlp_out_without_neurons_is_the_bias(block: Block, stream: Tensor) -> None:
    seen = seen_in(block, stream)
    silent = torch.zeros_like(seen["mlp.hook_post"])
    scale = seen["ln2.hook_scale"]
    if block.post_norm:
        expected = block.ln2.divide(block.mlp.out(silent), scale)
        torch.testing.assert_close(block.mlp_out_bias(scale), expected)
    else:
        expected = seen_in(block, stream, mlp__hook_post=lambda post: silent)["hook_mlp_out"]
        torch.testing.assert_close(block.mlp_out_bias().expand(2, 4, 14), expected)


def test_an_edited_head_result_changes_attn_out(block: Block, stream: Tensor) -> None:
    before = seen_in(block, stream)

    def without_head_one(result: Tensor) -> Tensor:
        result[:, :, 1] = 0.0
        return result

    after = seen_in(block, stream, attn__hook_result=without_head_one)
    expected = before["hook_attn_out"] - before["attn.hook_result"][:, :, 1]
    torch.testing.assert_close(after["hook_attn_out"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after["hook_resid_mid"], stream + expected, rtol=1e-4, atol=1e-5)
    if block.post_norm:
        torch.testing.assert_close(after["ln1.hook_normalized"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("look_at_heads", [False, True])
@pytest.mark.parametrize("variant", ["post_norm", "post_norm_rms"])
def test_an_edited_scale_of_a_post_norm_divides_every_head(variant: str, look_at_heads: bool, stream: Tensor) -> None:
    block = made(variant)
    before = seen_in(block, stream)
    kept: list[Tensor] = []
    if look_at_heads:
        block.attn.hook_result.add_hook(lambda result, hook: kept.append(result))
    block.ln1.hook_scale.add_hook(lambda scale, hook: 2 * scale)
    block.hook_attn_out.add_hook(lambda out, hook: kept.append(out))
    block(stream)
    bias = 0 if block.ln1.bias is None else block.ln1.bias
    torch.testing.assert_close(kept[-1], (before["hook_attn_out"] - bias) / 2 + bias, rtol=1e-4, atol=1e-5)
    if look_at_heads:
        torch.testing.assert_close(kept[0], before["attn.hook_result"] / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_place", [False, True])
def test_the_mlps_input_is_a_copy_of_the_stream(block: Block, stream: Tensor, in_place: bool) -> None:
    before = seen_in(block, stream)
    mid = before["hook_resid_mid"]
    assert torch.equal(before["hook_mlp_in"], mid)
    after = seen_in(block, stream, hook_mlp_in=lambda x: x.mul_(-2) if in_place else -2 * x)
    mlp_out = after["hook_mlp_out"]
    alone = block.mlp(-2 * mid if block.post_norm else block.ln2(-2 * mid))
    alone = block.ln2(alone) if block.post_norm else alone
    torch.testing.assert_close(mlp_out, alone if block.ls2 is None else alone * block.ls2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after["hook_resid_post"], mid + mlp_out)
    assert torch.equal(after["hook_resid_mid"], mid)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("role", ["q", "k", "v"])
def test_a_split_input_reaches_one_role_of_one_head(block: Block, stream: Tensor, role: str, in_place: bool) -> None:
    other = torch.randn(2, 4, 14, generator=torch.Generator().manual_seed(2))
    before = seen_in(block, stream)

    def edit(per_head: Tensor) -> Tensor:
        assert per_head.shape == (2, 4, 3, 14)
        assert torch.equal(per_head[:, :, 2], stream)
        per_head = per_head if in_place else per_head.clone()
        per_head[:, :, 1] = other
        return per_head

    after = seen_in(block, stream, **{f"hook_{role}_input": edit})
    weight, bias = getattr(block.attn, f"W_{role.upper()}")[1], getattr(block.attn, f"b_{role.upper()}")[1]
    read = other if block.post_norm else block.ln1(other)
    for letter in "qkv":
        expected = before[f"attn.hook_{letter}"].clone()
        if letter == role:
            expected[:, :, 1] = read @ weight + bias
        torch.testing.assert_close(after[f"attn.hook_{letter}"], expected, rtol=1e-4, atol=1e-5)
    mix = "attn.hook_z" if block.attn.ln is None else "attn.hook_z_pre"
    torch.testing.assert_close(after[mix][:, :, [0, 2]], before[mix][:, :, [0, 2]], rtol=1e-4, atol=1e-5)
    assert (after[mix][:, :, 1] - before[mix][:, :, 1]).abs().max() > 0.01
    assert torch.equal(after["hook_resid_pre"], stream)


def test_the_norms_hook_points_see_the_stream_while_inputs_are_split(stream: Tensor) -> None:
    block = made("pre_norm")
    scales: list[Tensor] = []
    block.hook_q_input.add_hook(lambda x, hook: 3 * x + 1)
    block.ln1.hook_scale.add_hook(lambda scale, hook: scales.append(scale))
    block(stream)
    assert len(scales) == 1
    torch.testing.assert_close(scales[0], block.ln1.scale(stream))


def test_an_edit_of_the_norm_reaches_inputs_that_are_split(stream: Tensor) -> None:
    block = made("pre_norm")
    changed = torch.randn(2, 4, 14)
    expected = seen_in(block, stream, ln1__hook_normalized=lambda x: changed)["attn.hook_v"]
    both = seen_in(block, stream, ln1__hook_normalized=lambda x: changed, hook_q_input=lambda x: 2 * x)
    torch.testing.assert_close(both["attn.hook_v"], expected, rtol=1e-4, atol=1e-5)


def test_writing_past_the_hook_points(block: Block, stream: Tensor) -> None:
    seen = seen_in(block, stream)
    for point in (block.ln1.hook_scale, block.ln2.hook_normalized, block.attn.hook_result, block.hook_attn_out):
        point.add_hook(lambda activation, hook: pytest.fail("a hook was called"))
    z_pre = seen["attn.hook_z" if block.attn.ln is None else "attn.hook_z_pre"]
    for z in (seen["attn.hook_z"], block.attn.norm_z(z_pre)):
        torch.testing.assert_close(block.write_attn(z), seen["hook_attn_out"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(block.write_mlp(seen["mlp.hook_post"]), seen["hook_mlp_out"], rtol=1e-4, atol=1e-5)


RESUMED = {
    "resid_pre": (), "q": ("k", "v", "resid_pre"), "k": ("q", "v", "resid_pre"), "v": ("q", "k", "resid_pre"),
    "pattern": ("v", "resid_pre"), "z": ("resid_pre",), "attn_out": ("resid_pre",), "resid_mid": (),
    "post": ("resid_mid",), "mlp_out": ("resid_mid",),
}  # fmt: skip


@pytest.mark.parametrize("kept", [slice(None), slice(0, 1), slice(1, 3)], ids=str)
@pytest.mark.parametrize("resumed", sorted(RESUMED))
def test_a_resumed_block_equals_a_block_with_the_activation_replaced(
    block: Block, stream: Tensor, resumed: str, kept: slice
) -> None:
    points = {name: f"attn.hook_{name}" for name in ("q", "k", "v", "pattern", "z")} | {"post": "mlp.hook_post"}
    points |= {name: f"hook_{name}" for name in RESUMED if name not in points}
    before = seen_in(block, stream)
    changed = before[points[resumed]] + 0.1
    expected = seen_in(block, stream, **{points[resumed].replace(".", "__"): lambda activation: changed})
    for point in (block.hook_resid_pre, block.attn.hook_z, block.ln2.hook_scale, block.mlp.hook_pre):
        point.add_hook(lambda activation, hook: pytest.fail("a hook was called"))
    given = {resumed: changed, **{name: before[points[name]] for name in RESUMED[resumed]}}
    torch.testing.assert_close(
        block.resume(resumed, given, kept), expected["hook_resid_post"][:, kept], rtol=1e-4, atol=1e-5
    )

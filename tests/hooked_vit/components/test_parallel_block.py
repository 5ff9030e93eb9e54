"""A parallel block: what each of its sub-layers adds, edits of one that do not reach the other, resumed runs."""

import dataclasses

import pytest
import torch
from torch import Tensor

from hooked_vit import HookedViTConfig
from hooked_vit.components.parallel_block import ParallelBlock, made_block
from hooked_vit.resuming import resumable

BASE = HookedViTConfig(
    n_layers=2, d_model=14, n_heads=3, d_head=5, d_mlp=20, n_classes=7, image_size=(16, 24), patch_size=(8, 8),
    parallel_attn_mlp=True,
)  # fmt: skip
VARIANTS = {
    "plain": BASE,
    "layer_scale": dataclasses.replace(BASE, layer_scale=True),
    "fused_out": dataclasses.replace(BASE, layer_scale=True, fused_out=True, mlp_bias=(True, False)),
    "no_biases": dataclasses.replace(BASE, qkv_bias=False, attn_out_bias=False, mlp_bias=(True, False)),
}


@pytest.fixture(params=VARIANTS)
def block(request: pytest.FixtureRequest) -> ParallelBlock:
    """Each kind of parallel block in turn, with non-trivial parameters."""
    block = made_block(VARIANTS[request.param], 0)
    assert isinstance(block, ParallelBlock)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return block.requires_grad_(False)


@pytest.fixture
def stream() -> Tensor:
    """Two images of four tokens."""
    return torch.randn(2, 4, 14, generator=torch.Generator().manual_seed(1))


def seen_in(block: ParallelBlock, stream: Tensor, read_only: bool = False, **edits) -> dict[str, Tensor]:
    """All activations of one run, with hooks that edit some of them."""
    seen: dict[str, Tensor] = {}
    points = {name: part for name, part in block.named_modules() if name.rsplit(".", 1)[-1].startswith("hook_")}
    for name, edit in edits.items():
        points[name.replace("__", ".")].add_hook(lambda a, hook, edit=edit: edit(a))
    for name, point in points.items():

        def keep(a: Tensor, hook: object, name: str = name) -> None:
            seen[name] = a.detach().clone()

        keep.only_reads = read_only
        point.add_hook(keep)
    block(stream)
    for point in points.values():
        point.remove_hooks()
    return seen


def slow(block: ParallelBlock, stream: Tensor) -> tuple[Tensor, Tensor]:
    """What attention and MLP add, from the definition, one token and head at a time."""
    attn, scale = block.attn, torch.ones(14) if block.ls1 is None else block.ls1
    attn_out, mlp_out = torch.zeros_like(stream), torch.zeros_like(stream)
    for image, tokens in enumerate(stream):
        centred = tokens - tokens.mean(1, keepdim=True)
        normed = centred / (centred.square().mean(1, keepdim=True) + block.ln1.cfg.eps).sqrt()
        normed = normed * block.ln1.weight + block.ln1.bias
        for token in range(4):
            mlp_out[image, token] = (
                torch.nn.functional.gelu(normed[token] @ block.mlp.W_in + block.mlp.b_in) @ (block.mlp.W_out)
                + block.mlp.b_out
            )
            attn_out[image, token] += attn.b_O
            for head in range(3):
                q = normed[token] @ attn.W_Q[head] + attn.b_Q[head]
                scores = torch.stack([q @ (key @ attn.W_K[head] + attn.b_K[head]) for key in normed]) / 5**0.5
                values = normed @ attn.W_V[head] + attn.b_V[head]
                attn_out[image, token] += (scores.softmax(0) @ values) @ attn.W_O[head]
    return attn_out * scale, mlp_out * scale


@pytest.mark.parametrize("read_only", [False, True])
def test_both_read_the_blocks_input(block: ParallelBlock, stream: Tensor, read_only: bool) -> None:
    seen, (attn_out, mlp_out) = seen_in(block, stream, read_only), slow(block, stream)
    torch.testing.assert_close(seen["hook_attn_out"], attn_out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen["hook_mlp_out"], mlp_out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen["hook_resid_post"], stream + attn_out + mlp_out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(block(stream), stream + attn_out + mlp_out, rtol=1e-4, atol=1e-5)
    assert torch.equal(seen["hook_mlp_in"], stream)


def test_a_stream_that_is_only_read_is_not_changed(block: ParallelBlock, stream: Tensor) -> None:
    assert torch.equal(seen_in(block, stream, read_only=True)["hook_resid_post"], block(stream))


def test_it_has_one_norm_one_layer_scale_and_no_stream_in_between(block: ParallelBlock) -> None:
    assert block.ln2 is None
    assert block.ls2 is None
    assert block.mlp_ln is block.ln1
    assert block.mlp_ls is block.ls1
    assert not hasattr(block, "hook_resid_mid")


def test_an_edit_of_attention_does_not_reach_the_mlp(block: ParallelBlock, stream: Tensor) -> None:
    before = seen_in(block, stream)
    after = seen_in(block, stream, hook_attn_out=lambda x: x + 1)
    assert torch.equal(after["mlp.hook_post"], before["mlp.hook_post"])
    torch.testing.assert_close(after["hook_resid_post"], before["hook_resid_post"] + 1)
    silent = seen_in(block, stream, attn__hook_result=torch.zeros_like)
    expected = stream + block.attn_out_bias() + before["hook_mlp_out"]
    torch.testing.assert_close(silent["hook_resid_post"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm_is_edited", [False, True])
def test_the_mlps_input_reaches_the_mlp_alone(block: ParallelBlock, stream: Tensor, norm_is_edited: bool) -> None:
    before = seen_in(block, stream)
    edits = {"ln1__hook_normalized": lambda x: x + 0.1} if norm_is_edited else {}
    for edit in (lambda x: -2 * x, lambda x: x.mul_(-2)):
        after = seen_in(block, stream, read_only=True, hook_mlp_in=edit, **edits)
        alone = block.mlp(block.ln1.fused(-2 * stream) + 0.1 * norm_is_edited)
        expected = alone if block.ls1 is None else alone * block.ls1
        torch.testing.assert_close(after["hook_mlp_out"], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(after["hook_resid_pre"], stream)
        if not norm_is_edited:
            torch.testing.assert_close(after["attn.hook_z"], before["attn.hook_z"])


@pytest.mark.parametrize("kept", [slice(None), slice(0, 1), slice(1, 3)], ids=str)
@pytest.mark.parametrize("resumed", sorted(set(resumable(BASE)) - {"resid_post"}))
def test_a_resumed_block_equals_a_block_with_the_activation_replaced(
    block: ParallelBlock, stream: Tensor, resumed: str, kept: slice
) -> None:
    needed = resumable(BASE)
    points = {name: f"attn.hook_{name}" for name in ("q", "k", "v", "pattern", "z")} | {"post": "mlp.hook_post"}
    points |= {name: f"hook_{name}" for name in needed if name not in points}
    before = seen_in(block, stream)
    changed = before[points[resumed]] + 0.1
    expected = seen_in(block, stream, **{points[resumed].replace(".", "__"): lambda activation: changed})
    for point in (block.hook_resid_pre, block.attn.hook_z, block.ln1.hook_scale, block.mlp.hook_pre):
        point.add_hook(lambda activation, hook: pytest.fail("a hook was called"))
    given = {resumed: changed, **{name: before[points[name]] for name in needed[resumed]}}
    torch.testing.assert_close(
        block.resume(resumed, given, kept), expected["hook_resid_post"][:, kept], rtol=1e-4, atol=1e-5
    )


def test_the_one_bias_of_a_fused_projection_is_attentions(stream: Tensor) -> None:
    block = made_block(VARIANTS["fused_out"], 0)
    assert block.mlp.out.bias is None
    assert torch.equal(block.mlp.b_out, torch.zeros(14))
    assert block.attn.out.bias is not None

"""TransformerLens's sweeps over positions, with our index, equal `activation_patching`; without it they are wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import make_timm, ported
from torch import Tensor
from transformer_lens import patching

from analyses.patching import activation_patching
from hooked_vit import HookedViT
from hooked_vit.interventions import patching_index

CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(4))
SWEEPS: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "resid_pre": (patching.get_act_patch_resid_pre, "resid_pre", {}),
    "resid_mid": (patching.get_act_patch_resid_mid, "resid_mid", {}),
    "attn_out": (patching.get_act_patch_attn_out, "attn_out", {}),
    "mlp_out": (patching.get_act_patch_mlp_out, "mlp_out", {}),
    "z by position": (patching.get_act_patch_attn_head_out_by_pos, "z", {"tokens": "any"}),
    "q by position": (patching.get_act_patch_attn_head_q_by_pos, "q", {"tokens": "any"}),
    "k by position": (patching.get_act_patch_attn_head_k_by_pos, "k", {"tokens": "any"}),
    "v by position": (patching.get_act_patch_attn_head_v_by_pos, "v", {"tokens": "any"}),
    "pattern by query": (patching.get_act_patch_attn_head_pattern_by_pos, "pattern", {"tokens": "any"}),
}


def metric(logits: Tensor) -> Tensor:
    """One number for the batch."""
    return (logits[:, 0] - logits[:, 4]).mean()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale"])
@pytest.mark.parametrize("sweep", sorted(SWEEPS))
def test_a_sweep_over_all_positions_equals_activation_patching(kind: str, sweep: str) -> None:
    model = ported(kind)
    run, stream, options = SWEEPS[sweep]
    _, clean_cache = model.run_with_cache(CLEAN)
    index = patching_index(model, run)  # pyright: ignore[reportArgumentType]
    found = run(model, CORRUPT, clean_cache, metric, index_axis_names=None, index_df=index)
    ours = activation_patching(model, CLEAN, CORRUPT, metric, stream, **options)  # pyright: ignore[reportArgumentType]
    expected = ours.values  # [layer token], or with heads [layer head token]
    if "by position" in sweep:
        expected = expected.transpose(1, 2)
    torch.testing.assert_close(found.reshape(*index.nunique()), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_sweeps_of_a_block_share_an_index() -> None:
    model = ported("cls")
    _, clean_cache = model.run_with_cache(CLEAN)
    index = patching_index(model, ["layer", "pos"])
    every = patching.get_act_patch_block_every(
        model, CORRUPT, clean_cache, metric, index_axis_names=None, index_df=index
    )
    for row, stream in zip(every, ("resid_pre", "attn_out", "mlp_out"), strict=True):
        expected = activation_patching(model, CLEAN, CORRUPT, metric, stream).values  # pyright: ignore
        torch.testing.assert_close(row.reshape(3, 13), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_the_index_the_width_is_taken_for_the_number_of_tokens() -> None:
    fewer_tokens = ported("cls")  # 13 tokens, 24 columns of pixels
    with pytest.raises(IndexError, match="out of bounds"):
        patching.get_act_patch_resid_pre(fewer_tokens, CORRUPT, fewer_tokens.run_with_cache(CLEAN)[1], metric)
    more_tokens = HookedViT.from_timm(make_timm("cls", patch_size=4, depth=1))  # 49 tokens
    found = patching.get_act_patch_resid_pre(more_tokens, CORRUPT, more_tokens.run_with_cache(CLEAN)[1], metric)
    assert found.shape == (1, 24)
    expected = activation_patching(more_tokens, CLEAN, CORRUPT, metric).values
    assert expected.shape == (1, 49)
    torch.testing.assert_close(found, expected[:, :24], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_direct_paths_ask_for_a_hook_point_of_transformer_lens_alone() -> None:
    model = ported("cls")
    (_, clean_cache), (_, corrupt_cache) = model.run_with_cache(CLEAN), model.run_with_cache(CORRUPT)
    with pytest.raises(ValueError, match=r"unknown hook point 'blocks.1.attn.hook_q_input'; did you mean 'blocks"):
        patching.get_act_patch_direct_path(
            model, CORRUPT, clean_cache, corrupt_cache, metric, src_layer=0, src_head=1, verbose=False
        )

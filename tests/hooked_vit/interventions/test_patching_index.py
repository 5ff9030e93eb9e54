"""The index of a sweep over positions: its rows, its order and what it refuses."""

import itertools

import pytest
from conftest import ported
from transformer_lens import patching

from hooked_vit.interventions import patching_index

MODEL = ported("gap_registers_layerscale")  # 3 blocks, 3 heads, 2 registers and 12 patches


@pytest.mark.parametrize(
    ("axes", "sizes"),
    [
        (patching.get_act_patch_resid_pre, {"layer": 3, "pos": 14}),
        (patching.get_act_patch_attn_head_k_by_pos, {"layer": 3, "pos": 14, "head": 3}),
        (patching.get_act_patch_attn_head_pattern_by_pos, {"layer": 3, "head_index": 3, "dest_pos": 14}),
        (
            patching.get_act_patch_attn_head_pattern_dest_src_pos,
            {"layer": 3, "head_index": 3, "dest_pos": 14, "src_pos": 14},
        ),
        (patching.get_act_patch_attn_head_out_all_pos, {"layer": 3, "head": 3}),
        (["layer", "pos"], {"layer": 3, "pos": 14}),
    ],
)
def test_every_cell_of_the_axes_is_a_row_in_order(axes: object, sizes: dict[str, int]) -> None:
    index = patching_index(MODEL, axes)  # pyright: ignore[reportArgumentType]
    assert index.nunique().to_dict() == sizes
    assert list(index.itertuples(index=False, name=None)) == list(itertools.product(*map(range, sizes.values())))


def test_larger_images_have_more_positions() -> None:
    index = patching_index(ported("dynamic"), ["layer", "pos"], image_size=(40, 24))
    assert index.nunique().tolist() == [3, 3 + 15]


@pytest.mark.parametrize("axes", [["pos", "layer"], ["layer", "token"], [], patching.generic_activation_patch])
def test_other_axes_are_refused(axes: object) -> None:
    if callable(axes):
        from functools import partial

        axes = partial(axes, activation_name="z")
    with pytest.raises(ValueError, match=r"expected axes out of layer, head, .*, the layer first, got"):
        patching_index(MODEL, axes)  # pyright: ignore[reportArgumentType]

"""The config: derived widths, layouts of any image size, and the fields that TransformerLens's tools read."""

import dataclasses

import pytest
import torch

from hooked_vit import HookedViTConfig, NormConfig


def config(**changes: object) -> HookedViTConfig:
    """A config whose numbers all differ."""
    fields = {
        "n_layers": 2, "d_model": 12, "n_heads": 3, "d_mlp": 20, "n_classes": 7, "image_size": (35, 22),
        "patch_size": (8, 5),
    }  # fmt: skip
    return HookedViTConfig(**{**fields, **changes})


def test_d_head_is_derived_unless_given() -> None:
    assert config().d_head == 4
    assert config(d_head=9).d_head == 9
    assert dataclasses.replace(config(d_head=9), n_layers=1).d_head == 9


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().n_layers = 3  # type: ignore[misc]


def test_incomplete_patches_are_dropped_or_padded() -> None:
    assert config().token_layout.grid == (4, 4)
    assert config(pad_to_patches=True).token_layout.grid == (5, 5)
    assert config().token_layout_at(17, 15).grid == (2, 3)
    assert config(pad_to_patches=True).token_layout_at(17, 15).grid == (3, 3)


def test_the_context_counts_every_prefix_token() -> None:
    assert config(has_cls=False).n_ctx == 16
    assert config().n_ctx == 17
    assert config(has_dist=True, n_registers=3).n_ctx == 21
    assert config(has_dist=True, n_registers=3).token_layout.token_types[:6] == (
        "cls", "dist", "register", "register", "register", "patch",
    )  # fmt: skip


def test_device_and_dtype_are_not_part_of_the_architecture() -> None:
    assert config() == config(device=torch.device("meta"), dtype=torch.bfloat16)
    assert config() != config(n_heads=4)


def test_the_fields_that_transformer_lens_reads() -> None:
    plain = config()
    assert (plain.normalization_type, plain.final_rms, plain.gated_mlp, plain.d_vocab) == ("LN", False, False, 7)
    assert plain.attn_only is False
    assert plain.n_key_value_heads is None
    rms = NormConfig(kind="rms", has_bias=False)
    other = config(block_norm=rms, final_norm=rms, mlp_kind="glu_split")
    assert (other.normalization_type, other.final_rms, other.gated_mlp) == ("RMS", True, True)
    assert config(block_norm=rms, final_norm=None).final_rms is False


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"has_dist": True}, slice(0, 1)),
        ({"has_dist": True, "pool": "cls_and_dist"}, slice(0, 2)),
        ({"n_registers": 3, "pool": "avg"}, slice(4, None)),
        ({"n_registers": 3, "pool": "attention", "has_cls": False}, slice(3, None)),
        ({"n_registers": 3, "pool": "max", "pool_includes_prefix": True}, slice(0, None)),
    ],
)
def test_which_tokens_the_head_reads(changes: dict, tokens: slice) -> None:
    assert config(**changes).read_tokens == tokens

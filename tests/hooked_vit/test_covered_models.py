"""The table of covered models agrees with the models themselves.

After a change of what is covered: `pandas.DataFrame(map(describe_architecture, names)).to_csv(TABLE, index=False)`.
"""

from pathlib import Path

import pandas as pd
import pytest
import timm
import torch

import hooked_vit.covered_models as covered
from hooked_vit.covered_models import covered_models, describe_architecture, why_not_covered
from hooked_vit.loading import EMBEDDED
from hooked_vit.porting import read_config

TABLE = pd.read_csv(Path(covered.__file__).parent / "assets" / "covered_models.csv")
SMALL = [
    "emoji-vit-gap", "test_vit", "test_vit4", "deit_tiny_distilled_patch16_224", "vit_tiny_patch16_224",
    "vit_wee_patch16_reg1_gap_256", "vit_little_patch16_reg4_gap_256", "vit_xsmall_patch16_clip_224",
]  # fmt: skip
NAMES = [
    "vit_tiny_patch16_384.augreg_in21k_ft_in1k",  # its size is the tag's
    "deit_tiny_distilled_patch16_224.fb_in1k",  # two heads
    "vit_small_patch14_dinov2.lvd142m",  # no classes
    "vit_base_patch32_clip_224.openai",
    "vit_tiny_patch16_224.augreg_in21k",  # 21,843 classes
    "flexivit_small.1200ep_in1k",
    "vit_base_patch16_siglip_256.webli",  # pooled by attention
    "vit_base_r50_s16_384.orig_in21k_ft_in1k",  # behind a convolutional stem
    "vitamin_xlarge_256.datacomp1b_clip",  # and without positions
]


@pytest.mark.parametrize("architecture", [
    *SMALL, *(pytest.param(name, marks=pytest.mark.family) for name in TABLE["architecture"] if name not in SMALL),
])  # fmt: skip
def test_the_stored_rows_describe_the_architectures(architecture: str) -> None:
    [line] = TABLE[TABLE["architecture"] == architecture].to_dict("records")
    assert line == describe_architecture(architecture)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_describes_the_models(name: str) -> None:
    row = covered_models().set_index("name").loc[name]
    with torch.device("meta"):
        module = timm.create_model(name, pretrained=False)
    cfg = read_config(module)
    layout = cfg.token_layout
    assert row["n_parameters"] == sum(parameter.numel() for parameter in module.parameters())
    assert (row["image_size"], row["patch_size"], row["grid"]) == (cfg.image_size, cfg.patch_size, layout.grid)
    assert (row["n_tokens"], row["n_prefix"]) == (layout.n_tokens, layout.n_prefix)
    for field in ("d_model", "n_layers", "n_heads", "d_mlp", "n_classes", "pool"):
        assert row[field] == getattr(cfg, field)


def test_the_table_has_every_tag_and_every_embedded_model() -> None:
    table = covered_models()
    covered_tags = [name for name in timm.list_pretrained() if name.split(".")[0] in set(TABLE["architecture"])]
    assert sorted(table.loc[table["tag"] != "", "name"]) == sorted(covered_tags)
    assert set(EMBEDDED) <= set(table.loc[table["pretrained"], "name"])
    assert set(table["architecture"]) == set(TABLE["architecture"])
    without = table[~table["pretrained"]]
    assert len(without) > 5
    assert (without["name"] == without["architecture"]).all()
    assert table["name"].is_unique
    assert table["name"].is_monotonic_increasing


def test_prefix_tokens_as_text() -> None:
    words = covered_models().drop_duplicates("architecture").set_index("architecture")["prefix_tokens"]
    assert words["vit_tiny_patch16_224"] == "CLS"
    assert words["deit_tiny_distilled_patch16_224"] == "CLS, distillation"
    assert words["vit_small_patch14_reg4_dinov2"] == "CLS, 4 registers"
    assert words["vit_base_patch16_siglip_256"] == ""


def test_an_older_timm_has_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    real = timm.is_model
    monkeypatch.setattr(timm, "is_model", lambda name: name != "vit_tiny_patch16_224" and real(name))
    assert not covered_models()["architecture"].eq("vit_tiny_patch16_224").any()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224", None),
        ("resnet18", "the family ResNet"),
        ("vit_relpos_small_patch16_224", None),
        ("eva02_tiny_patch14_224", None),
        ("beit_base_patch16_224", None),
        ("vit_base_patch16_xp_224", None),
    ],
)
def test_what_is_not_covered_of_a_model(name: str, reason: str | None) -> None:
    assert why_not_covered(name) == reason


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"timm has no model called 'vit_tiny_patch16_223'"):
        why_not_covered("vit_tiny_patch16_223")

"""Small timm models with a convolutional stem, for tests: every kind of stem that timm's entrypoints have."""

from functools import partial

import timm
import torch
from conftest import perturb
from timm import layers
from timm.models.resnetv2 import ResNetV2, create_resnetv2_stem
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from timm.models.vitamin import GeGluMlp, MbConvStages, VitCfg
from torch import nn

_WEIGHT_STANDARDISED = partial(layers.StdConv2dSame, eps=1e-8)


def _resnetv2() -> nn.Module:
    sizes = {"layers": (1, 1), "channels": (8, 12), "stem_chs": 8}
    return ResNetV2(**sizes, num_classes=0, global_pool="", preact=False, stem_type="same",
                    conv_layer=_WEIGHT_STANDARDISED, norm_layer=partial(layers.GroupNormAct, num_groups=4))  # fmt: skip


# The stem, and the arguments of its embedding and model. All of them have a stride of 8 pixels per token.
STEMS = {
    "resnet_v2": (_resnetv2, {}, {"patch_size": 1}),
    "resnet_v2_stem": (
        lambda: create_resnetv2_stem(3, 10, stem_type="same", preact=False, conv_layer=_WEIGHT_STANDARDISED,
                                     norm_layer=partial(layers.GroupNormAct, num_groups=5)),
        {}, {"patch_size": 2, "reg_tokens": 2},
    ),
    "resnet": (
        lambda: timm.create_model("test_resnet", features_only=True, out_indices=[2]), {},
        {"patch_size": 1, "global_pool": "avg", "class_token": False},
    ),
    "mobileclip": (
        lambda: ConvStem(channels=(6, 9, 24), stride=(2, 2, 2), kernel_size=2, padding=0, act_layer=nn.GELU),
        {"proj": False}, {"patch_size": 1, "no_embed_class": True},
    ),
    "vitamin": (
        lambda: MbConvStages(VitCfg(embed_dim=(6, 10, 24), depths=(1, 2, 1), stem_width=5)), {"proj": False},
        {"patch_size": 1, "global_pool": "avg", "class_token": False, "mlp_layer": GeGluMlp},
    ),
    "vitamin_without_positions": (
        lambda: MbConvStages(VitCfg(embed_dim=(6, 10, 24), depths=(1, 1, 1), stem_width=5)), {"proj": False},
        {"patch_size": 1, "global_pool": "avg", "class_token": False, "mlp_layer": GeGluMlp, "pos_embed": "none"},
    ),
}  # fmt: skip


def make_stem_model(kind: str, seed: int = 0, **changes: object) -> nn.Module:
    """A perturbed timm model with one of `STEMS`: 2 blocks, 3 heads of width 8, 7 classes."""
    stem, embedding, arguments = STEMS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        given = {
            "img_size": (64, 48), "num_classes": 7, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2.5,
            **arguments, **changes,
        }  # fmt: skip
        module = VisionTransformer(embed_layer=partial(layers.HybridEmbed, backbone=stem(), **embedding), **given)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 2)
    return perturb(module, seed)

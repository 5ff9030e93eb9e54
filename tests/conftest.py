"""Shapes in signatures are enforced while the tests run, on small models whose dimensions all differ."""

import functools
import os
import zlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when timm is imported

import jaxtyping
import pytest
import timm
import torch
from torch import nn

# before the test files import our packages
jaxtyping.install_import_hook(["hooked_vit", "analyses"], "beartype.beartype")
torch.set_num_threads(int(os.environ.get("HOOKED_VIT_TEST_THREADS", "1")))


def perturb(module: nn.Module, seed: int = 0) -> nn.Module:
    """Perturb every parameter, so that no bias, norm or LayerScale is trivially zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * noise.to(parameter.dtype))
            if parameter.ndim == 1:
                parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator))
    return module.eval()


# Small models of every kind of block, pool and token layout, each with all dimensions different.
KINDS: dict[str, dict] = {
    "cls": {},
    "gap_registers_layerscale": {
        "class_token": False, "reg_tokens": 2, "global_pool": "avg", "init_values": 0.1, "no_embed_class": True,
    },
    "clip": {"pre_norm": True, "act_layer": "quick_gelu", "norm_layer": "layernorm"},
    "post_norm": {"block_fn": "ResPostBlock", "class_token": False, "global_pool": "avg", "fc_norm": True,
                  "qkv_bias": False},
    "inner_norms": {"scale_attn_norm": True, "scale_mlp_norm": True, "global_pool": "avg", "fc_norm": True},
    "swiglu_packed": {"mlp_layer": "SwiGLUPacked", "init_values": 0.2, "reg_tokens": 3, "act_layer": "silu"},
    "swiglu_rms": {"mlp_layer": "SwiGLU", "norm_layer": "rmsnorm", "class_token": False, "global_pool": "avg",
                   "fc_norm": False, "proj_bias": False, "qkv_bias": False, "embed_norm_layer": "rmsnorm",
                   "act_layer": "silu"},
    "map": {"class_token": False, "global_pool": "map", "act_layer": "gelu_tanh", "reg_tokens": 1},
    "dynamic": {"dynamic_img_size": True, "reg_tokens": 2},
    "qk_norm": {"qk_norm": True},
    "no_final_norm": {"final_norm": False, "init_values": 0.3},
    "distilled": {"distilled": True},
    "parallel": {"block_fn": "ParallelScalingBlock", "init_values": 0.2, "reg_tokens": 2},
    "rotary": {"family": "Eva", "num_heads": 6, "num_kv_heads": 2, "num_reg_tokens": 2, "attn_type": "rope",
               "qkv_fused": False, "use_rot_pos_emb": True, "rope_rotate_half": True, "ref_feat_shape": (5, 5),
               "use_abs_pos_emb": False, "qk_norm": True, "swiglu_mlp": True, "scale_mlp": True,
               "scale_attn_inner": True, "init_values": 0.2, "attn_only_layer_scale": True, "global_pool": "token"},
    "relative": {"family": "Beit", "use_rel_pos_bias": True, "use_abs_pos_emb": False, "init_values": 0.1},
}  # fmt: skip


def make_timm(kind: str, seed: int = 0, **changes: object) -> nn.Module:
    """A perturbed timm model of one of `KINDS`: 3 blocks of width 24, 7 classes, a 4 × 3 grid of patches."""
    from timm import layers
    from timm.models import beit, deit, eva, vision_transformer

    arguments = {
        "img_size": (32, 24), "patch_size": 8, "num_classes": 7, "embed_dim": 24, "depth": 3, "num_heads": 3,
        "mlp_ratio": 2.5, **KINDS[kind], **changes,
    }  # fmt: skip
    if "block_fn" in arguments:
        arguments["block_fn"] = getattr(vision_transformer, arguments["block_fn"])
    if "mlp_layer" in arguments:
        arguments["mlp_layer"] = getattr(layers, arguments["mlp_layer"])
    if "act_layer" in arguments:
        arguments["act_layer"] = layers.get_act_layer(arguments["act_layer"])
    cls = deit.VisionTransformerDistilled if arguments.pop("distilled", False) else vision_transformer.VisionTransformer
    cls = {"Eva": eva.Eva, "Beit": beit.Beit}.get(str(arguments.pop("family", "")), cls)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return perturb(cls(**arguments), seed)


@functools.cache
def original(kind: str) -> nn.Module:
    """`make_timm(kind)`, made once, for tests that do not change it."""
    return make_timm(kind)


@functools.cache
def ported(kind: str) -> nn.Module:
    """The HookedViT of `original(kind)`, made once, for tests that do not change it or leave gradients on it."""
    from hooked_vit import HookedViT

    return HookedViT.from_timm(original(kind))


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Modules made within a test start from the same weights, whatever ran before it on its worker."""
    torch.manual_seed(0)


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of model in turn."""
    return request.param


EVERY_THIRD_KIND = ("tests/analyses/", "tests/hooked_vit/test_in_place_edits.py")
"""Where a test that takes each kind of model takes a third of them, others than the next test; the rest, marked
`family`, run in `make family`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the kinds that are left to `make family`."""
    by_test: dict[str, list[tuple[str, pytest.Item]]] = {}
    for item in items:
        kind = getattr(item, "callspec", None) and item.callspec.params.get("kind")  # type: ignore[attr-defined]
        if kind in KINDS and item.nodeid.startswith(EVERY_THIRD_KIND):
            by_test.setdefault(item.nodeid.split("[")[0], []).append((kind, item))
    order = {kind: place for place, kind in enumerate(sorted(KINDS))}
    for test, found in by_test.items():
        if {kind for kind, _ in found} != KINDS.keys():
            continue
        for kind, item in found:
            if (order[kind] + zlib.crc32(test.encode())) % 3:
                item.add_marker("family")


@pytest.fixture
def images() -> torch.Tensor:
    """Two images for the models of `make_timm`."""
    return torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def fused_attention_off():
    """timm's fused attention off, for modules made within the test."""
    timm.layers.set_fused_attn(False)
    yield
    timm.layers.set_fused_attn(True)


@pytest.fixture
def bad_input():
    """Shape enforcement off, so that a test sees the errors that users see, who run without it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)

"""open_clip's vision towers (its own VisionTransformer, timm trunks) and OpenAI CLIP's: config and weights."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from hooked_vit.config import HookedViTConfig, NormConfig, Pool
from hooked_vit.porting.hidden_computation import MERGE, refuse_changed_parts
from hooked_vit.porting.parts import fields_of_all_blocks, qualified
from hooked_vit.porting.ported import Ported
from hooked_vit.porting.reference import Reference
from hooked_vit.porting.weights import renamed_by

_RENAMES = [
    (r"class_embedding$", "embed.cls"),
    (r"positional_embedding$", "embed.pos"),
    (r"conv1\.", "embed.patch."),
    (r"ln_pre\.", "ln_pre."),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.", r"blocks.\1.ln\2."),
    (r"transformer\.resblocks\.(\d+)\.ls_([12])\.gamma$", r"blocks.\1.ls\2"),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"blocks.\1.attn.out."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"blocks.\1.mlp.inp."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"blocks.\1.mlp.out."),
    (r"ln_post\.", "ln_final."),
    (r"proj$", "head.weight"),
]
_OWN_PARTS = (
    "VisionTransformer", "Transformer", "ResidualAttentionBlock", "LayerNorm", "LayerNormFp32", "QuickGELU",
    "LayerScale", "PatchDropout",
)  # fmt: skip
_TORCH_PARTS = {
    nn.Conv2d, nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear, nn.MultiheadAttention, nn.GELU,
    nn.LayerNorm, nn.ModuleList, nn.Sequential, nn.Identity,
}  # fmt: skip


def refuse(feature: str) -> NoReturn:
    """Raise the error for a part of an open_clip module that HookedViT does not cover."""
    raise ValueError(
        f"not covered: {feature}. HookedViT covers open_clip's and OpenAI CLIP's VisionTransformer with residual "
        "attention blocks, pooled by its CLS token or the mean of its patches, and open_clip's timm models"
    )


def read(module: nn.Module, class_names: Sequence[str] | None = None) -> Ported:
    """What a HookedViT needs from a CLIP model of open_clip or OpenAI, or from its vision tower alone.

    Its logits are the image features before they are normalised to unit length.

    Raises:
        ValueError: If a part of the tower is not covered.
    """
    tower = _tower(module)
    if _kind(tower) == "TimmModel":
        ported = _read_timm(tower, class_names)
    else:
        cfg, weights = _read_own(tower)
        ported = Ported(cfg, weights, class_names, None, True)
    return dataclasses.replace(ported, data_config=_data_config(tower, ported.cfg))


def reference(module: nn.Module) -> Reference:
    """What `verify` compares the port with."""
    tower = _tower(module)
    if _kind(tower) == "TimmModel":
        blocks, batch_first = tower.trunk.blocks, True
    else:
        blocks, batch_first = tower.transformer.resblocks, getattr(tower.transformer, "batch_first", False)

    def run(images: Tensor) -> Tensor:
        features = tower(images)
        return features[0] if isinstance(features, tuple) else features

    return Reference(run, list(blocks), f"{type(tower).__module__.partition('.')[0]}'s", batch_first)


def _tower(module: Any) -> Any:
    tower = getattr(module, "visual", module)
    if _kind(tower) not in ("VisionTransformer", "TimmModel"):
        refuse(f"a {qualified(tower)}")
    return tower


def _kind(part: object) -> str:
    """The name of a class of open_clip or of OpenAI's clip; empty for another library's."""
    return type(part).__qualname__ if type(part).__module__.partition(".")[0] in ("open_clip", "clip") else ""


# ---------------------------------------------------------------------- timm trunks


def _read_timm(tower: Any, class_names: Sequence[str] | None) -> Ported:
    from hooked_vit.porting import timm_module

    refuse_changed_parts(tower, refuse)
    ported = timm_module.read(tower.trunk, class_names)
    layers = [layer for layer in tower.head.children() if not isinstance(layer, nn.Dropout | nn.Identity)]
    if not layers:
        return ported
    head = layers[0]
    if len(layers) > 1 or type(head) is not nn.Linear or ported.cfg.n_classes:
        kinds = ", ".join(qualified(layer) for layer in layers)
        refuse(f"a head of {kinds} (pass `module.visual.trunk` for its features)")
    weights = {**ported.weights, "head.weight": head.weight}
    if head.bias is not None:
        weights["head.bias"] = head.bias
    cfg = dataclasses.replace(ported.cfg, n_classes=head.out_features, head_bias=head.bias is not None)
    return dataclasses.replace(ported, cfg=cfg, weights=weights)


# ---------------------------------------------------------------------- its own VisionTransformer


def _read_own(tower: Any) -> tuple[HookedViTConfig, dict[str, Tensor]]:
    _refuse_unknown_parts(tower)
    blocks = list(tower.transformer.resblocks)
    per_block = [_read_block(block, f"block {index}") for index, block in enumerate(blocks)]
    shared = fields_of_all_blocks(per_block, refuse)
    if getattr(tower, "attn_pool", None) is not None:
        refuse("an attentional pooler, which returns many tokens")
    pools: dict[str, Pool] = {"tok": "cls", "avg": "avg"}
    pool = pools.get(getattr(tower, "pool_type", "tok"))
    if pool is None:
        refuse(f"features that are not pooled (pool_type={tower.pool_type!r})")
    conv, proj = tower.conv1, tower.proj
    cfg = HookedViTConfig(
        n_layers=len(blocks),
        d_model=conv.out_channels,
        n_classes=0 if proj is None else proj.shape[1],
        head_bias=False,
        image_size=_image_size(tower),
        patch_size=conv.kernel_size,
        n_channels=conv.in_channels,
        patch_bias=conv.bias is not None,
        pre_norm=_read_norm(tower.ln_pre, "ln_pre"),
        final_norm=_read_norm(tower.ln_post, "ln_post"),
        norm_after_pool=bool(getattr(tower, "final_ln_after_pool", False)),
        pool=pool,
        **shared,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    weights = _weights(tower)
    weights["embed.cls"] = weights["embed.cls"][None]
    for name in ("embed.cls", "embed.pos"):
        if (
            weights[name].dtype != cfg.dtype
        ):  # OpenAI's models in half precision keep these, and cast them when they run
            weights[name] = nn.Parameter(weights[name].detach().to(cfg.dtype), weights[name].requires_grad)
    if proj is not None:
        weights["head.weight"] = proj.T
    return cfg, weights


def _image_size(tower: Any) -> tuple[int, int]:
    if hasattr(tower, "image_size"):
        return tower.image_size[0], tower.image_size[1]
    side = math.isqrt(len(tower.positional_embedding) - 1) * tower.conv1.kernel_size[0]  # OpenAI's are square
    return side, side


def _read_block(block: Any, where: str) -> dict[str, Any]:
    attn, norm = block.attn, _read_norm(block.ln_1, f"ln_1 of {where}")
    if norm is None or norm != _read_norm(block.ln_2, f"ln_2 of {where}") or hasattr(block, "ln_1_kv"):
        refuse(f"two norms of different kinds, or cross-attention, in {where}")
    if attn.in_proj_weight is None or attn.bias_k is not None or attn.add_zero_attn:
        refuse(f"keys and values of another width, or with a key of their own, in {where}")
    scales = [_kind(getattr(block, name, None)) == "LayerScale" for name in ("ls_1", "ls_2")]
    if scales[0] != scales[1]:
        refuse(f"LayerScale on only one sub-layer in {where}")
    mlp = block.mlp
    return {
        "n_heads": attn.num_heads,
        "d_head": attn.head_dim,
        "qkv_bias": attn.in_proj_bias is not None,
        "attn_out_bias": attn.out_proj.bias is not None,
        "block_norm": norm,
        "layer_scale": scales[0],
        "d_mlp": mlp.c_fc.out_features,
        "act_fn": _read_activation(mlp.gelu, where),
        "mlp_bias": (mlp.c_fc.bias is not None, mlp.c_proj.bias is not None),
    }


def _read_norm(norm: Any, where: str) -> NormConfig | None:
    if type(norm) is nn.Identity:
        return None
    if not isinstance(norm, nn.LayerNorm):
        refuse(f"a {qualified(norm)} as {where}")
    # OpenAI's own LayerNorm computes in float32, as open_clip's LayerNormFp32 does
    in_float32 = _kind(norm) == "LayerNormFp32" or type(norm).__module__.startswith("clip.")
    return NormConfig("layer", float(norm.eps), norm.weight is not None, norm.bias is not None, in_float32)


def _read_activation(act: Any, where: str) -> str:
    if _kind(act) == "QuickGELU":
        return "quick_gelu"
    if type(act) is not nn.GELU:
        refuse(f"the activation function {qualified(act)} in {where}")
    return "gelu_tanh" if act.approximate == "tanh" else "gelu"


def _refuse_unknown_parts(tower: nn.Module) -> None:
    refuse_changed_parts(tower, refuse)
    for name, part in tower.named_modules():
        if type(part) not in _TORCH_PARTS and _kind(part) not in _OWN_PARTS:
            refuse(f"a {qualified(part)} as '{name}': {MERGE}")


def _weights(tower: nn.Module) -> dict[str, Tensor]:
    weights, unknown = renamed_by(tower.state_dict(keep_vars=True), _RENAMES)
    if unknown:
        refuse(f"{len(unknown)} tensors that have no name in a HookedViT: {', '.join(unknown[:5])}")
    return weights


# ---------------------------------------------------------------------- preprocessing, names


def _data_config(tower: Any, cfg: HookedViTConfig) -> dict[str, Any] | None:
    """The preprocessing that open_clip keeps beside a model; `None` where it keeps none, or pads with a colour."""
    kept = getattr(tower, "preprocess_cfg", None) or {}
    mode = {"shortest": "center", "squash": "squash"}.get(kept.get("resize_mode", "shortest"))
    if not kept or mode is None:
        return None
    return {
        "input_size": (cfg.n_channels, *cfg.image_size),
        "interpolation": "bilinear" if kept["interpolation"] == "bilinear" else "bicubic",
        "mean": tuple(kept["mean"]),
        "std": tuple(kept["std"]),
        "crop_pct": 1.0,
        "crop_mode": mode,
    }


def load(name: str) -> nn.Module:
    """A model of open_clip with its weights, read without unpickling.

    Args:
        name: `"architecture/weights"`, such as `"ViT-B-32/laion2b_s34b_b79k"`, `"hf-hub:owner/model"`, or a folder
            with `open_clip_config.json`.

    Raises:
        ValueError: If open_clip is not installed, or has no such architecture or weights.
        OSError: If the weights are not in the cache and cannot be downloaded.
    """
    try:
        import open_clip
    except ImportError:
        raise ValueError("open_clip is not installed: pip install 'hooked-vit[open-clip]'") from None
    architecture, weights = name, None
    if Path(name).is_dir():
        architecture = f"local-dir:{name}"
    elif not name.startswith("hf-hub:"):
        architecture, weights = _checked_name(name)
    try:
        return open_clip.create_model(architecture, weights, require_pretrained=True).eval()
    except (RuntimeError, OSError, ValueError) as error:
        raise OSError(
            f"open_clip cannot load '{name}': {str(error).partition(chr(10))[0].rstrip('.')}. Without network access, "
            "pass a folder with its open_clip_config.json and weights"
        ) from error


def _checked_name(name: str) -> tuple[str, str]:
    import open_clip

    architecture, _, weights = name.rpartition("/")
    architecture = architecture.replace("/", "-")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not tags:
        from difflib import get_close_matches

        near = get_close_matches(name.replace("/", "-"), [f"{a}/{tag}" for a, tag in open_clip.list_pretrained()], n=3)
        hint = f"; did you mean {' or '.join(repr(f'open_clip:{match}') for match in near)}?" if near else ""
        raise ValueError(
            f"open_clip has no weights for '{name}': the name is open_clip:architecture/weights, see "
            f"`open_clip.list_pretrained()`{hint}"
        )
    if not open_clip.pretrained.is_pretrained_cfg(architecture, weights):
        raise ValueError(f"open_clip's '{architecture}' has no weights '{weights}'; there are: {', '.join(tags)}")
    return architecture, weights

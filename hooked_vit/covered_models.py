"""The covered models and their architectures, in a table that is read without building any of them."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import pandas as pd
import timm
import torch
from timm.models import model_entrypoint, split_model_name_tag
from timm.models.vision_transformer import VisionTransformer

from hooked_vit.config import HookedViTConfig
from hooked_vit.loading import EMBEDDED, embedded_card
from hooked_vit.porting import read_config

__all__ = ["covered_models", "describe_architecture", "why_not_covered"]

_TABLE = "covered_models.csv"
_EXACTNESS = "exactness.csv"
PLAIN_VIT_MODULES = (
    "beit", "deepseek_vit", "deit", "eva", "gemma4_vit", "naflexvit", "qwen3_vit", "vision_transformer",
    "vision_transformer_hybrid", "vision_transformer_relpos", "vision_transformer_sam", "vitamin",
)  # fmt: skip
"""The modules of timm that hold plain Vision Transformers."""


def covered_models() -> pd.DataFrame:
    """The covered models that the installed timm has.

    All covered timm entrypoints with each of their pretrained tags, and the embedded models, in alphabetical order.

    Returns:
        One row per name that `HookedViT.from_pretrained` takes: `name`, `architecture` and `tag` (empty if timm has no
        weights for the architecture), `pretrained` (whether there are weights), `family` (timm's module),
        `pool`, `prefix_tokens` as text and `n_prefix`, `image_size`, `patch_size` and `grid` as (height, width),
        `n_tokens`, `d_model`, `n_layers`, `n_heads`, `d_mlp`, `n_classes` (0: features without a classifier) and
        `n_parameters`; and how the architecture compares with timm's own module, which `benchmarks/family.py` measured
        with random weights: `timm_class`, and the largest difference of the logits divided by the largest of them, with
        plain attention in float32 (`fp32`) and bfloat16 (`bf16`), and with fused attention (`fp32_fused`), by that
        version of `timm`. These are missing for the embedded models.

    >>> table = covered_models().set_index("name")
    >>> table.loc["vit_base_patch32_224.augreg_in21k_ft_in1k", ["pool", "prefix_tokens", "grid"]].tolist()
    ['cls', 'CLS', (7, 7)]
    """
    with files("hooked_vit").joinpath("assets", _TABLE).open(encoding="utf-8") as file:
        architectures: list[dict[str, Any]] = pd.read_csv(file).to_dict("records")
    tags: dict[str, list[str]] = {}
    for name in timm.list_pretrained():
        architecture, tag = split_model_name_tag(name)
        tags.setdefault(architecture, []).append(tag)
    rows = []
    for row in architectures:
        if row["architecture"] in EMBEDDED or timm.is_model(row["architecture"]):
            rows += [_row(tag, row) for tag in tags.get(row["architecture"], [""])]
    with files("hooked_vit").joinpath("assets", _EXACTNESS).open(encoding="utf-8") as file:
        exactness = pd.read_csv(file, dtype={"timm": str})
    table = pd.DataFrame(rows).merge(exactness, on="architecture", how="left")
    return table.sort_values("name", ignore_index=True)


def _row(tag: str, known: Mapping[str, Any]) -> dict[str, Any]:
    architecture = known["architecture"]
    image_size, n_classes = (known["image_height"], known["image_width"]), known["n_classes"]
    if tag:
        published: Any = timm.get_pretrained_cfg(f"{architecture}.{tag}")
        n_classes = published.num_classes
        if published.fixed_input_size:  # then timm builds the model for the image size of the weights
            image_size = published.input_size[-2:]
    patch_size = known["patch_height"], known["patch_width"]
    height, width = (int(size) // int(patch) for size, patch in zip(image_size, patch_size, strict=True))
    n_prefix = int(known["n_cls"] + known["n_dist"] + known["n_registers"])
    per_class, per_patch = (known["d_model"] + 1) * (1 + known["n_dist"]), known["d_model"] * known["has_positions"]
    return {
        "name": f"{architecture}.{tag}" if tag else architecture,
        "architecture": architecture,
        "tag": tag,
        "pretrained": bool(tag) or architecture in EMBEDDED,
        "family": known["family"],
        "pool": known["pool"],
        "prefix_tokens": _describe_prefix(known),
        "n_prefix": n_prefix,
        "image_size": tuple(int(size) for size in image_size),
        "patch_size": tuple(int(size) for size in patch_size),
        "grid": (height, width),
        "n_tokens": n_prefix + height * width,
        **{name: int(known[name]) for name in ("d_model", "n_layers", "n_heads", "d_mlp")},
        "n_classes": int(n_classes),
        "n_parameters": int(known["n_other_parameters"] + n_classes * per_class + height * width * per_patch),
    }


def _describe_prefix(known: Mapping[str, Any]) -> str:
    n_registers = known["n_registers"]
    registers = f"{n_registers} register{'s' if n_registers > 1 else ''}"
    parts = [(known["n_cls"], "CLS"), (known["n_dist"], "distillation"), (n_registers, registers)]
    return ", ".join(words for count, words in parts if count)


def why_not_covered(name: str) -> str | None:
    """The part of a timm model that is not covered, or `None`. The model is built without its weights.

    Raises:
        ValueError: If timm has no such model.

    >>> why_not_covered("resnet18")
    'the family ResNet'
    """
    if not timm.is_model(split_model_name_tag(name)[0]):
        raise ValueError(f"timm has no model called '{name}'; `timm.list_models()` lists its models")
    try:
        read_config(_built(name)[0])
    except ValueError as error:
        return str(error).removeprefix("not covered: ").partition(". HookedViT covers ")[0]
    except Exception as error:  # some families cannot be built on the meta device
        return f"unknown: timm cannot build it without weights ({type(error).__name__})"
    return None


def describe_architecture(architecture: str) -> dict[str, Any]:
    """A row of the stored table of `covered_models`, from the model itself, which is built without its weights.

    Raises:
        ValueError: If the model is not covered.

    >>> {name: describe_architecture("emoji-vit")[name] for name in ("n_layers", "d_model", "pool")}
    {'n_layers': 8, 'd_model': 128, 'pool': 'cls'}
    """
    module, family = _built(architecture)
    cfg: HookedViTConfig = read_config(module)
    layout = cfg.token_layout
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    head = cfg.n_classes * (cfg.d_model + 1) * (1 + cfg.has_dist)
    has_positions = int(cfg.positions != "none")
    return {
        "architecture": architecture,
        "family": family,
        "pool": cfg.pool,
        "n_cls": layout.n_cls,
        "n_dist": layout.n_dist,
        "n_registers": layout.n_registers,
        "image_height": cfg.image_size[0],
        "image_width": cfg.image_size[1],
        "patch_height": cfg.patch_size[0],
        "patch_width": cfg.patch_size[1],
        "has_positions": has_positions,
        "d_model": cfg.d_model,
        "n_layers": cfg.n_layers,
        "n_heads": cfg.n_heads,
        "d_mlp": cfg.d_mlp,
        "n_classes": cfg.n_classes,
        "n_other_parameters": n_parameters - head - layout.n_patches * cfg.d_model * has_positions,
    }


def _built(name: str) -> tuple[torch.nn.Module, str]:
    with torch.device("meta"):
        if name in EMBEDDED:
            return VisionTransformer(**embedded_card(name)["architecture"]), "embedded"
        family = model_entrypoint(split_model_name_tag(name)[0]).__module__.rpartition(".")[2]
        return timm.create_model(name, pretrained=False), family

"""From a name, a file or a timm module to a HookedViT with its preprocessing and class names."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.models import split_model_name_tag
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from hooked_vit.class_names import imagenet_class_names
from hooked_vit.model import HookedViT
from hooked_vit.porting import read_config, read_weights
from hooked_vit.weight_files import fit_state_dict, read_weight_file

EMBEDDED = ("emoji-vit", "emoji-vit-gap", "emoji-vit-context")
_SCHEMES = ("hf-hub:", "hf_hub:", "local-dir:")


def port_module(cls: type[HookedViT], module: nn.Module, class_names: Sequence[str] | None, *, copy: bool) -> HookedViT:
    """A HookedViT with the weights of a timm module: copies, or the very tensors.

    Raises:
        ValueError: If a part of the module is not covered, or a tensor is left over or missing.
    """
    cfg, weights = read_config(module), read_weights(module)
    if class_names is None:
        class_names = _known_class_names(module, cfg.n_classes)
    with torch.device("meta"):
        model = cls(cfg, class_names)
    missing = sorted(model.state_dict().keys() - weights.keys())
    surplus = sorted(weights.keys() - model.state_dict().keys())
    if missing or surplus:
        raise ValueError(
            f"the port is incomplete: nothing fills {missing}, nothing takes {surplus}; please report this"
        )
    if copy:
        weights = {
            name: nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)
            for name, tensor in weights.items()
        }
    model._hold(weights)
    model.fused_attention = bool(module.blocks[0].attn.fused_attn)  # pyright: ignore
    model.data_config = resolve_data_config(
        {"input_size": (cfg.n_channels, *cfg.image_size)}, pretrained_cfg=getattr(module, "pretrained_cfg", {}) or {}
    )
    return model.eval()


def _known_class_names(module: nn.Module, n_classes: int) -> Sequence[str] | None:
    """ImageNet's names, if timm says that the pretrained head has as many classes as this one."""
    pretrained = getattr(module, "pretrained_cfg", None) or {}
    if pretrained.get("label_names"):
        names = pretrained["label_names"]
        return names if len(names) == n_classes else None
    return imagenet_class_names(n_classes) if pretrained.get("num_classes") == n_classes else None


def load_pretrained(
    cls: type[HookedViT],
    name: str,
    weights: str | Path | None,
    ignore_keys: Sequence[str],
    class_names: Sequence[str] | None,
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    **timm_kwargs: Any,
) -> HookedViT:
    """Load by name; see `HookedViT.from_pretrained`."""
    state_dict = None if weights is None else read_weight_file(Path(weights))
    if state_dict is not None:
        if "head.weight" in state_dict and name not in EMBEDDED:
            timm_kwargs.setdefault("num_classes", len(state_dict["head.weight"]))
    elif ignore_keys:
        raise ValueError("ignore_keys goes with weights=: published weights are read by timm")
    if name in EMBEDDED:
        if timm_kwargs:
            raise ValueError(f"'{name}' takes no timm arguments, got {sorted(timm_kwargs)}")
        module, embedded_names = _embedded_module(name, load_weights=weights is None)
        class_names = class_names or embedded_names
    else:
        module = _timm_module(name, pretrained=weights is None, **timm_kwargs)
    if weights is not None and state_dict is not None:
        module.load_state_dict(fit_state_dict(state_dict, module, ignore_keys, Path(weights)))
    return port_module(cls, module, class_names, copy=False).to(device=device, dtype=dtype)


def embedded_card(name: str) -> dict[str, Any]:
    """What lies beside the weights of an embedded model: architecture, preprocessing, and how it came to be."""
    return json.loads((files("hooked_vit") / "assets" / f"{name}.json").read_text("utf-8"))


def _embedded_module(name: str, load_weights: bool) -> tuple[nn.Module, list[str]]:
    assets, card = files("hooked_vit") / "assets", embedded_card(name)
    module = VisionTransformer(**card["architecture"])
    module.pretrained_cfg = card["preprocessing"]
    if load_weights:
        with as_file(assets / f"{name}.safetensors") as path:
            module.load_state_dict(read_weight_file(path))
    classes = json.loads((assets / card["classes"]).read_text("utf-8"))["classes"]
    return module, [one["name"] for one in classes]


def _timm_module(name: str, pretrained: bool, **timm_kwargs: Any) -> nn.Module:
    if not name.startswith(_SCHEMES):
        _check_name(name)
        # is it covered? Ask before gigabytes are downloaded
        with torch.device("meta"):
            read_config(timm.create_model(name, pretrained=False, **timm_kwargs))
    try:
        return timm.create_model(name, pretrained=pretrained, **timm_kwargs)
    except Exception as error:
        if pretrained:
            error.add_note(
                f"timm could not load the weights of '{name}'. Without network access, pass a local file: "
                f"HookedViT.from_pretrained('{name}', weights='model.safetensors')."
            )
        raise


def _check_name(name: str) -> None:
    architecture, tag = split_model_name_tag(name)
    if not timm.is_model(architecture):
        known = [*EMBEDDED, *timm.list_models(), *timm.list_pretrained()]
        near = get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(repr(one) for one in near)}?" if near else ""
        raise ValueError(f"unknown model '{name}'{hint or '.'} `timm.list_models('vit*')` lists timm's.")
    tags = [split_model_name_tag(one)[1] for one in timm.list_pretrained(f"{architecture}*")
            if split_model_name_tag(one)[0] == architecture]  # fmt: skip
    if tag and tag not in tags:
        raise ValueError(f"'{architecture}' has no weights called '{tag}'; there are: {', '.join(tags) or 'none'}")

"""From a name, a file or a timm module to what a HookedViT is built from (`Ported`)."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models import split_model_name_tag
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from hooked_vit.porting import read_config
from hooked_vit.porting.by_name import load_by_name, timm_name
from hooked_vit.porting.ported import Ported
from hooked_vit.porting.sources import source_of
from hooked_vit.weight_files import fit_state_dict, read_weight_file, select_keys

EMBEDDED = ("emoji-vit", "emoji-vit-gap", "emoji-vit-context")
_SCHEMES = ("hf-hub:", "hf_hub:", "local-dir:")


def port(module: nn.Module, class_names: Sequence[str] | None, *, copy: bool) -> Ported:
    """The config and weights of a module of timm, transformers or open_clip: copies of its tensors, or its own.

    Raises:
        ValueError: If the module comes from another library, or a part of it is not covered.

    >>> ported = port(timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=7), None, copy=False)
    >>> ported.cfg.n_layers, tuple(ported.weights["head.weight"].shape)
    (2, (7, 192))
    """
    ported = source_of(module).read(module, class_names)
    if not copy:
        return ported
    weights = {
        name: nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in ported.weights.items()
    }
    return dataclasses.replace(ported, weights=weights)


def load_pretrained(
    name: str,
    weights: str | Path | None,
    ignore_keys: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    prefix: str | None = None,
    weights_key: str | None = None,
    **timm_kwargs: Any,
) -> Ported:
    """Load by name; see `HookedViT.from_pretrained`."""
    _refuse_other_loaders_arguments(timm_kwargs)
    own_name = timm_name(name)
    if own_name is None:
        given = {"weights": weights, "ignore_keys": ignore_keys, "prefix": prefix, "weights_key": weights_key}
        for name_of_option, value in given.items():
            if value:
                raise ValueError(f"{name_of_option} is for architectures of timm: '{name}' has weights of its own")
        return load_by_name(name, class_names, timm_kwargs)
    name, state_dict = own_name, None
    if weights is not None:
        state_dict = select_keys(read_weight_file(Path(weights), weights_key), ignore_keys, prefix, Path(weights))
    if state_dict is not None:
        if "head.weight" in state_dict and name not in EMBEDDED:
            timm_kwargs.setdefault("num_classes", len(state_dict["head.weight"]))
        elif name not in EMBEDDED and _is_backbone(state_dict):
            timm_kwargs.setdefault("num_classes", 0)
    else:
        given = {"ignore_keys": ignore_keys, "prefix": prefix, "weights_key": weights_key}
        for name_of_option, value in given.items():
            if value:
                raise ValueError(f"{name_of_option} goes with weights=: published weights are read by timm")
    if name in EMBEDDED:
        if timm_kwargs:
            raise ValueError(f"'{name}' takes no timm arguments, got {sorted(timm_kwargs)}")
        module, embedded_names = _embedded_module(name, load_weights=weights is None)
        class_names = embedded_names if class_names is None else class_names
    else:
        module = _timm_module(name, pretrained=weights is None, **timm_kwargs)
    if weights is not None and state_dict is not None:
        if "img_size" in timm_kwargs:
            state_dict = _with_resampled_positions(state_dict, module)
        module.load_state_dict(fit_state_dict(state_dict, module, Path(weights)))
    return port(module, class_names, copy=False)


def _is_backbone(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a file in timm's layout has blocks and no head."""
    return any(key.startswith("blocks.") for key in state_dict) and not any(
        key.startswith("head") for key in state_dict
    )


def _with_resampled_positions(state_dict: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The state dict with positions for the module's grid, if its own are for another, square one.

    Resampled by timm's function, as timm does with published weights.
    """
    stored, needed = state_dict.get("pos_embed"), getattr(module, "pos_embed", None)
    if stored is None or needed is None or stored.shape == needed.shape or stored.ndim != 3:
        return state_dict
    n_prefix = 0 if getattr(module, "no_embed_class", False) else int(getattr(module, "num_prefix_tokens", 1))
    n_patches = stored.shape[1] - n_prefix
    if n_patches <= 0 or math.isqrt(n_patches) ** 2 != n_patches:
        return state_dict
    embed: Any = module.get_submodule("patch_embed")
    resampled = resample_abs_pos_embed(stored, new_size=list(embed.grid_size), num_prefix_tokens=n_prefix)
    return {**state_dict, "pos_embed": resampled}


_PROCESSING = (
    "fold_ln",
    "center_writing_weights",
    "center_unembed",
    "fold_value_biases",
    "refactor_factored_attn_matrices",
)


def _refuse_other_loaders_arguments(arguments: Mapping[str, Any]) -> None:
    """What users of timm and of TransformerLens pass, and what to do here."""
    if "pretrained" in arguments:
        raise ValueError(
            "from_pretrained always loads weights: leave out pretrained=. For random ones, pass a timm module to "
            "`HookedViT.from_timm`, or a model to `hooked_vit.initialisation.freshly_initialised`"
        )
    for name in _PROCESSING:
        if name in arguments:
            raise ValueError(
                f"leave out {name}=: weights are never changed while they are loaded; `model.fold_layer_norm()` folds "
                "the norms afterwards"
            )


def embedded_card(name: str) -> dict[str, Any]:
    """The JSON file bundled with the weights of an embedded model: its architecture, preprocessing and training."""
    return json.loads((files("hooked_vit") / "assets" / f"{name}.json").read_text("utf-8"))


def _embedded_module(name: str, load_weights: bool) -> tuple[nn.Module, list[str]]:
    assets, card = files("hooked_vit") / "assets", embedded_card(name)
    module = VisionTransformer(**card["architecture"])
    module.pretrained_cfg = card["preprocessing"]
    if load_weights:
        with as_file(assets / f"{name}.safetensors") as path:
            module.load_state_dict(read_weight_file(path))
    classes = json.loads((assets / card["classes"]).read_text("utf-8"))["classes"]
    return module, [emoji_class["name"] for emoji_class in classes]


def _timm_module(name: str, pretrained: bool, **timm_kwargs: Any) -> nn.Module:
    if not name.startswith(_SCHEMES):
        _check_name(name)
        # check that the architecture is covered before gigabytes are downloaded
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
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        if "/" in name:
            hint = f"; did you mean 'hf:{name}' (a model of transformers) or 'hf-hub:{name}' (of timm)?"
        raise ValueError(f"unknown model '{name}'{hint or '.'} `timm.list_models('vit*')` lists timm's.")
    published = map(split_model_name_tag, timm.list_pretrained(f"{architecture}*"))
    tags = [known_tag for known_architecture, known_tag in published if known_architecture == architecture]
    if tag and tag not in tags:
        raise ValueError(f"'{architecture}' has no weights called '{tag}'; there are: {', '.join(tags) or 'none'}")

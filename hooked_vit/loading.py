"""From a name, a file or a timm module to what a HookedViT is built from (`Ported`)."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import split_model_name_tag
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from hooked_vit.porting import read_config
from hooked_vit.porting.by_name import load_by_name, timm_name
from hooked_vit.porting.ported import Ported
from hooked_vit.porting.sources import source_of
from hooked_vit.timm_files import n_classes_in, timm_module_from
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
        n_classes = n_classes_in(state_dict)
        if n_classes is not None and name not in EMBEDDED:
            timm_kwargs.setdefault("num_classes", n_classes)
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
        if state_dict is not None:
            module.load_state_dict(fit_state_dict(state_dict, module, Path(str(weights))))
    else:
        module = _timm_module(name, state_dict, Path(str(weights)), **timm_kwargs)
    return port(module, class_names, copy=False)


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


def _timm_module(name: str, state_dict: Mapping[str, Tensor] | None, path: Path, **timm_kwargs: Any) -> nn.Module:
    """A timm model with its published weights, or with those of the file at `path`."""
    if not name.startswith(_SCHEMES):
        _check_name(name)
        # check that the architecture is covered before gigabytes are downloaded
        with torch.device("meta"):
            read_config(timm.create_model(name, pretrained=False, **timm_kwargs))
    if state_dict is not None:
        return timm_module_from(name, state_dict, path, **timm_kwargs)
    try:
        return timm.create_model(name, pretrained=True, **timm_kwargs)
    except Exception as error:
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

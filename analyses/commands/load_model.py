"""The model that a command's options select."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.models import split_model_name_tag

from analyses.commands.errors import USAGE, fail, user_errors
from analyses.commands.options import ModelOptions, parse_size
from analyses.progress import working
from analyses.prototypes.class_embeddings import read_class_embeddings, read_class_names
from hooked_vit import HookedViT, keep_freed_memory
from hooked_vit.initialisation import freshly_initialised

__all__ = ["load_model"]


def load_model(options: ModelOptions, progress: bool | None = None, classes: bool = True) -> HookedViT:
    """Load a model that has classes, or end the command with a line that says why it cannot be loaded.

    Args:
        options: Name, weights and device. Without a device, a GPU if there is one; of several processes on one
            machine, each takes its own.
        progress: Whether to show on standard error that it is loading; by default, if that is a terminal.
        classes: Whether it must have classes; False for what makes them.

    >>> load_model(ModelOptions("emoji-vit", device="cpu")).cfg.n_layers
    8
    """
    if options.weights is None and (options.weights_key or options.prefix or options.ignore_keys):
        fail("--weights-key, --prefix and --ignore-keys are for --weights FILE", USAGE)
    if options.weights is not None and options.random_weights:
        fail("--weights and --random-weights exclude each other", USAGE)
    with user_errors(ValueError, status=USAGE):
        size = None if options.img_size is None else parse_size("--img-size", options.img_size)
    device = _device(options.device)
    keep_freed_memory()  # a command is a process of its own
    with working(f"loading {options.model}", progress), user_errors(ValueError):
        model = _with_classes(_loaded(options, {} if size is None else {"img_size": size}), options)
        if classes:
            _check_classes(model, options)
        return (freshly_initialised(model, seed=0) if options.random_weights else model).to(device)


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or _own_gpu() or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)  # a device with a valid name may still be absent
    except (RuntimeError, AssertionError) as error:  # PyTorch built without CUDA asserts
        fail(f"no device '{name}' here: {str(error).splitlines()[0]}", USAGE)
    return device


def _own_gpu() -> str | None:
    """The GPU of this process among several on one machine; `None` for a single process or without GPUs."""
    if "LOCAL_RANK" not in os.environ or not torch.cuda.is_available():
        return None
    rank, n_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if rank >= n_gpus:
        fail(f"{rank + 1} processes for {n_gpus} GPUs here: start one process per GPU, or pass --device cpu")
    return f"cuda:{rank}"


def _loaded(options: ModelOptions, arguments: Mapping[str, Any]) -> HookedViT:
    name, weights = options.model, options.weights
    try:
        if options.random_weights and timm.is_model(split_model_name_tag(name)[0]):
            # the architecture alone, so that nothing is downloaded
            return HookedViT.from_timm(timm.create_model(name, pretrained=False, **arguments))
        ignored = [key.strip() for key in (options.ignore_keys or "").split(",") if key.strip()]
        return HookedViT.from_pretrained(
            name,
            weights=weights,
            ignore_keys=ignored,
            prefix=options.prefix,
            weights_key=options.weights_key,
            **arguments,
        )
    except (OSError, RuntimeError) as error:  # raised by hubs and timm
        of_timm = timm.is_model(split_model_name_tag(name)[0]) or name.startswith(("hf-hub:", "hf_hub:"))
        hint = "; without network access, pass --weights FILE or --random-weights" if of_timm and not weights else ""
        fail(f"cannot load '{name}': {str(error).rstrip('.')}{hint}")


def _with_classes(model: HookedViT, options: ModelOptions) -> HookedViT:
    """The model with the classes and names of the options; a single logit is split in two, if asked for."""
    names: tuple[str, ...] | None = None
    with user_errors(FileNotFoundError):
        if options.class_names_file is not None:
            names = read_class_names(options.class_names_file)
        if options.class_embeddings is not None:
            embeddings = read_class_embeddings(options.class_embeddings)
            model = dataclasses.replace(embeddings, class_names=names or embeddings.class_names).on(model)
    if options.two_classes:
        with user_errors(ValueError, status=USAGE):
            return model.with_two_classes() if names is None else model.with_two_classes(names)
    if names is not None and options.class_embeddings is None:
        model.require_classes()
        return model.with_weights(dict(model.named_parameters()), class_names=names)
    return model


def _check_classes(model: HookedViT, options: ModelOptions) -> None:
    """End the command if there is nothing to compare; all commands compare classes."""
    model.require_classes()
    if model.cfg.n_classes == 1:
        fail(
            f"'{options.model}' has a single logit, and the command compares classes: --two-classes reads it as two, "
            "negative and positive, with the logits 0 and the model's"
        )

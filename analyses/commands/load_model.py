"""The model that a command's options select."""

import os

import timm
import torch
from timm.models import split_model_name_tag

from analyses.commands.errors import USAGE, fail, user_errors
from analyses.commands.options import ModelOptions
from analyses.progress import working
from hooked_vit import HookedViT, keep_freed_memory
from hooked_vit.initialisation import freshly_initialised

__all__ = ["load_model"]


def load_model(options: ModelOptions, progress: bool | None = None) -> HookedViT:
    """Load a model that has classes, or end the command with a line that says why it cannot be loaded.

    Args:
        options: Name, weights and device. Without a device, a GPU if there is one; of several processes on one
            machine, each takes its own.
        progress: Whether to show on standard error that it is loading; by default, if that is a terminal.

    >>> load_model(ModelOptions("emoji-vit", device="cpu")).cfg.n_layers
    8
    """
    if options.weights is None and (options.weights_key or options.prefix or options.ignore_keys):
        fail("--weights-key, --prefix and --ignore-keys are for --weights FILE", USAGE)
    if options.weights is not None and options.random_weights:
        fail("--weights and --random-weights exclude each other", USAGE)
    device = _device(options.device)
    keep_freed_memory()  # a command is a process of its own
    with working(f"loading {options.model}", progress), user_errors(ValueError):
        model = _loaded(options)
        model.require_classes()
        return model.to(device)


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


def _loaded(options: ModelOptions) -> HookedViT:
    name, weights = options.model, options.weights
    try:
        if options.random_weights and timm.is_model(split_model_name_tag(name)[0]):
            # the architecture alone, so that nothing is downloaded
            model = HookedViT.from_timm(timm.create_model(name, pretrained=False))
        else:
            ignored = [key.strip() for key in (options.ignore_keys or "").split(",") if key.strip()]
            model = HookedViT.from_pretrained(
                name, weights=weights, ignore_keys=ignored, prefix=options.prefix, weights_key=options.weights_key
            )
    except (OSError, RuntimeError) as error:  # raised by hubs and timm
        hint = "" if weights else "; without network access, pass --weights FILE or --random-weights"
        fail(f"cannot load '{name}': {str(error).rstrip('.')}{hint}")
    model = _with_classes(model, options)
    return freshly_initialised(model, seed=0) if options.random_weights else model


def _with_classes(model: HookedViT, options: ModelOptions) -> HookedViT:
    """The model itself, or a single logit split in two; all commands compare classes."""
    if options.two_classes:
        with user_errors(ValueError, status=USAGE):
            return model.with_two_classes()
    if model.cfg.n_classes == 1:
        fail(
            f"'{options.model}' has a single logit, and the command compares classes: --two-classes reads it as two, "
            "negative and positive, with the logits 0 and the model's"
        )
    return model

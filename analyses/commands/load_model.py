"""The model that a command's options ask for."""

from pathlib import Path

import timm
import torch
from timm.models import split_model_name_tag

from analyses.commands.errors import USAGE, fail
from analyses.progress import working
from hooked_vit import HookedViT
from hooked_vit.initialisation import freshly_initialised

__all__ = ["load_model"]


def load_model(
    name: str,
    weights: Path | None = None,
    random_weights: bool = False,
    device: str | None = None,
    progress: bool | None = None,
) -> HookedViT:
    """Load a model by name, or end the command with a line that says why not.

    Args:
        name: As for `HookedViT.from_pretrained`.
        weights: A file with weights for it.
        random_weights: Initialise the architecture freshly, always in the same way, instead.
        device: Where it goes; by default a GPU if there is one.
        progress: Whether to say on standard error that it is loading; by default, if that is a terminal.

    >>> load_model("emoji-vit", device="cpu").cfg.n_layers
    8
    """
    if weights is not None and random_weights:
        fail("--weights and --random-weights exclude each other", USAGE)
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=place)  # a device that is named right need not be there
    except (RuntimeError, AssertionError) as error:  # PyTorch built without CUDA asserts
        fail(f"no device '{device}' here: {str(error).splitlines()[0]}", USAGE)
    with working(f"loading {name}", progress):
        return _loaded(name, weights, random_weights).to(place)


def _loaded(name: str, weights: Path | None, random_weights: bool) -> HookedViT:
    try:
        if random_weights and timm.is_model(split_model_name_tag(name)[0]):
            # the architecture alone, so that nothing is downloaded
            model = HookedViT.from_timm(timm.create_model(name, pretrained=False))
        else:
            model = HookedViT.from_pretrained(name, weights=weights)
    except ValueError as error:
        fail(error)
    except (OSError, RuntimeError) as error:  # what hubs and timm raise
        hint = "" if weights else "; without network access, pass --weights FILE or --random-weights"
        fail(f"cannot load '{name}': {str(error).rstrip('.')}{hint}")
    return freshly_initialised(model, seed=0) if random_weights else model

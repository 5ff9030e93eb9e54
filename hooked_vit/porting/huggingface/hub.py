"""A Hugging Face model and its image processor, by name or from a folder."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers
from safetensors import SafetensorError
from transformers.utils import logging

from hooked_vit.porting.huggingface import beit, clip, dinov2, dinov3, vit
from hooked_vit.porting.huggingface.heads import MODELS
from hooked_vit.porting.huggingface.parts import COVERED
from hooked_vit.weight_files import unreadable_message

_ENCODERS = (*vit.TOWERS, *beit.TOWERS, *dinov2.TOWERS, *dinov3.TOWERS, *clip.TOWERS)
_CLASSES: dict[str, Any] = {cls.__name__: cls for cls in (*MODELS, *_ENCODERS)}
# random in many published checkpoints, and left out of the port
_UNREAD = re.compile(r"(^|\.)(pooler\.dense\.|embeddings\.mask_token$)")


def load(name: str) -> tuple[Any, Any]:
    """A model with its weights in float32, and its image processor (`None` if there is none).

    Args:
        name: A folder with `config.json` and weights, or a name on the Hugging Face hub.

    Raises:
        ValueError: If the architecture is not covered, or the weights do not fit it.
        OSError: If there are no weights, or the hub cannot be reached.
    """
    config = _config(name)
    model_class = _model_class(config, name)
    with _quiet():
        try:
            model, info = model_class.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
        except OSError as error:
            _raise_unavailable(name, "weights (model.safetensors)", error)
        except (pickle.UnpicklingError, SafetensorError, EOFError) as error:
            raise ValueError(unreadable_message(name, error)) from error
        except RuntimeError as error:
            raise ValueError(f"the weights of '{name}' do not fit its config.json: {_first_line(error)}") from error
        _check_loaded(name, info)
        return model.eval(), _processor(name)


def _config(name: str) -> Any:
    with _quiet():
        try:
            return transformers.AutoConfig.from_pretrained(name)
        except OSError as error:
            _raise_unavailable(name, "config.json", error)
        except (ValueError, KeyError) as error:
            raise ValueError(f"'{name}' has a config.json of no model of transformers: {_first_line(error)}") from error


def _model_class(config: Any, name: str) -> Any:
    architectures = config.architectures or []
    for architecture in architectures:
        if architecture in _CLASSES:
            return _CLASSES[architecture]
    if not architectures:
        for cls in _ENCODERS:
            if cls.config_class is type(config):
                return cls
    found = architectures[0] if architectures else f"a model of type '{config.model_type}'"
    raise ValueError(
        f"not covered: '{name}' is {found}. If it holds an image encoder that is covered, load it with transformers "
        f"and pass it to `HookedViT.from_module`. HookedViT covers {COVERED}"
    )


def _check_loaded(name: str, info: dict[str, Any]) -> None:
    missing = sorted(key for key in info["missing_keys"] if not _UNREAD.search(key))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"the weights of '{name}' lack {', '.join(missing[:3])}{more}, which transformers would leave random: "
            "load the weights of the whole model, or its encoder alone (the `architectures` in its config.json)"
        )
    surplus = sorted(key for key in info["unexpected_keys"] if re.search(r"lora|adapter|base_layer|absmax", key))
    if surplus:
        raise ValueError(
            f"the weights of '{name}' hold an adapter or quantised layers ({surplus[0]}): merge the adapter first "
            "(`model.merge_and_unload().save_pretrained(folder)`), or save the model without quantisation"
        )


def _processor(name: str) -> Any:
    try:
        return transformers.AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError, TypeError):
        return None


def _raise_unavailable(name: str, what: str, error: OSError) -> NoReturn:
    if Path(name).is_dir():
        raise FileNotFoundError(f"the folder '{name}' has no {what}: {_listing(Path(name))}") from error
    raise OSError(
        f"cannot load '{name}' from the Hugging Face hub: it is not in the cache, and the hub cannot be reached or has "
        "no such model. Without network access, pass a folder that holds its config.json and model.safetensors"
    ) from error


def _listing(folder: Path) -> str:
    found = sorted(path.name for path in folder.iterdir())
    return f"it holds {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}" if found else "it is empty"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers without progress bars and warnings: what matters is checked, and raised as an error."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

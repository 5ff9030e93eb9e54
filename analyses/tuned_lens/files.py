"""Reading a tuned lens from its file."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from analyses.tuned_lens.lens import TunedLens
from hooked_vit import HookedViT

__all__ = ["read_tuned_lens"]


def read_tuned_lens(path: str | Path, model: HookedViT | None = None) -> TunedLens:
    """The lens that `TunedLens.save` or `hooked-vit tune` wrote.

    Args:
        path: A `.safetensors` file.
        model: The model that it is for: the lens is checked against its weights, and moved to its device.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds something else, or the lens was fitted to another model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file with a tuned lens at '{path}'")
    try:
        with safe_open(path, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            record = json.loads((opened.metadata() or {}).get("record", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"'{path}' cannot be read as a tuned lens: {error}") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    weight, bias = (shapes.get(name, ()) for name in ("weight", "bias"))
    if len(bias) != 3 or weight != (*bias, bias[-1]) or not isinstance(record, dict):
        raise ValueError(
            f"'{path}' holds no tuned lens: expected 'weight' [layer read d_model d_model] and 'bias' "
            f"[layer read d_model], got {shapes}"
        )
    lens = TunedLens(tensors["weight"], tensors["bias"], record)
    if model is None:
        return lens
    lens.check_weights(model)
    return lens.to(model.cfg.device)

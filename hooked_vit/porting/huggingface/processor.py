"""A Hugging Face image processor in timm's terms: the preprocessing that `model.preprocess` follows."""

import math
from typing import Any

_INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # PIL's order
_INSTEAD = "load the model with transformers, pass it to `HookedViT.from_module` and its input to the model"


def read_processor(processor: Any, n_channels: int, own_size: tuple[int, int]) -> dict[str, Any]:
    """The data config of a processor.

    It resizes with PIL, as the processor's PIL backend does, with equal results. Its torchvision backend rounds some
    resized pixels to the neighbouring one of 256 values.

    Args:
        processor: An image processor of transformers.
        n_channels: How many channels the model takes.
        own_size: The model's own image size, for SigLIP 2, whose processor keeps the aspect ratio of each image:
            they are squashed to this size instead.

    Raises:
        ValueError: If the processor does what a resize, a centred crop and a normalisation cannot do.

    >>> from transformers import CLIPImageProcessor
    >>> config = read_processor(CLIPImageProcessor(), 3, (224, 224))
    >>> config["input_size"], config["interpolation"], config["crop_pct"], config["crop_mode"]
    ((3, 224, 224), 'bicubic', 1.0, 'center')
    """
    _refuse_other_steps(processor)
    normalises = getattr(processor, "do_normalize", False)
    size = dict(getattr(processor, "size", None) or {})
    size = {key: value for key, value in size.items() if value}
    if hasattr(processor, "max_num_patches"):
        size = {"height": own_size[0], "width": own_size[1]}
    crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
    return {
        **_geometry(size, None if crop is None else (crop["height"], crop["width"]), n_channels, processor),
        "interpolation": _INTERPOLATIONS[int(processor.resample)],
        "mean": tuple(processor.image_mean) if normalises else (0.0,) * n_channels,
        "std": tuple(processor.image_std) if normalises else (1.0,) * n_channels,
    }


def _refuse_other_steps(processor: Any) -> None:
    kind = type(processor).__name__
    if not getattr(processor, "do_resize", False):
        raise ValueError(f"{kind} does not resize, so images keep sizes of their own: {_INSTEAD}")
    if not getattr(processor, "do_rescale", True) or not math.isclose(processor.rescale_factor, 1 / 255, rel_tol=1e-6):
        raise ValueError(f"{kind} does not rescale pixels from 0-255 to 0-1: {_INSTEAD}")
    steps = [
        step for step in ("do_pad", "do_flip_channel_order", "offset", "crop_pct") if getattr(processor, step, None)
    ]
    if steps:
        raise ValueError(f"{kind} has a step that HookedViT's preprocessing lacks ({', '.join(steps)}): {_INSTEAD}")


def _geometry(size: dict[str, int], crop: tuple[int, int] | None, n_channels: int, processor: Any) -> dict[str, Any]:
    kind = type(processor).__name__
    resized: tuple[int, int]
    if set(size) == {"height", "width"}:
        resized, mode = (size["height"], size["width"]), "squash"
    elif set(size) == {"shortest_edge"} and crop is not None and crop[0] == crop[1]:
        resized, mode = (size["shortest_edge"], size["shortest_edge"]), "center"
    else:
        raise ValueError(
            f"{kind} resizes to {size}{'' if crop is None else f' and crops to {crop}'}, which does not give images of "
            f"one size or a square: {_INSTEAD}"
        )
    kept = resized if crop is None else crop
    share = kept[0] / resized[0]
    if share > 1 or not math.isclose(share, kept[1] / resized[1]):
        raise ValueError(f"{kind} crops {kept} from {resized}, another aspect ratio or a larger image: {_INSTEAD}")
    if any(math.floor(side / share) != whole for side, whole in zip(kept, resized, strict=True)):
        share = kept[0] / (resized[0] + 0.5)  # timm rounds the size before the crop down
    return {
        "input_size": (n_channels, *kept),
        "crop_pct": share,
        "crop_mode": mode,
        "crop_offset": "down",  # transformers rounds half a pixel down, torchvision to the nearest even number
    }

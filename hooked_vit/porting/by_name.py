"""Models of transformers and open_clip by name, `hf:` and `open_clip:`, or from a folder: the port and its pictures."""

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hooked_vit.components.embed import resample_positions
from hooked_vit.porting.ported import Ported

HUGGING_FACE, OPEN_CLIP = "hf:", "open_clip:"
_CONFIG, _OPEN_CLIP_CONFIG = "config.json", "open_clip_config.json"


def timm_name(name: str) -> str | None:
    """The name under which timm creates a model, or `None` for a model of transformers or open_clip.

    Raises:
        FileNotFoundError: If `name` is a path without a folder, or the folder has no config.
        ValueError: If a folder's `config.json` is no settings of a model.

    >>> timm_name("vit_tiny_patch16_224"), timm_name("hf:facebook/dinov2-small")
    ('vit_tiny_patch16_224', None)
    """
    if name.startswith((HUGGING_FACE, OPEN_CLIP)):
        return None
    folder = Path(name).expanduser()
    looks_like_path = name.startswith((".", "/", "~")) or name.endswith("/")
    if not folder.is_dir():
        if looks_like_path:
            raise FileNotFoundError(f"no folder at '{name}'")
        return name
    if (folder / _OPEN_CLIP_CONFIG).is_file():
        return None
    if not (folder / _CONFIG).is_file():
        if not looks_like_path and "/" not in name:
            return name  # a model whose name a folder happens to have
        weights = sorted(
            path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pth", ".pt")
        )
        hint = f": load its weights into an architecture of timm, with weights='{name}/{weights[0]}'" if weights else ""
        raise FileNotFoundError(f"the folder '{name}' has no config.json, which would say what model it is{hint}")
    return f"local-dir:{folder}" if _is_timm_folder(folder) else None


def _is_timm_folder(folder: Path) -> bool:
    """Whether a folder's `config.json` is timm's, which names an architecture of its own.

    Raises:
        ValueError: If it is no JSON object.
    """
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"'{folder / 'config.json'}' is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"'{folder / 'config.json'}' holds a {type(config).__name__}, not the settings of a model")
    return "architecture" in config


def load_by_name(name: str, class_names: Sequence[str] | None, options: Mapping[str, Any]) -> Ported:
    """The port of a model of transformers or open_clip, with its preprocessing.

    Args:
        name: `"hf:owner/model"`, `"hf:folder"`, `"open_clip:architecture/weights"`, or a folder.
        class_names: One name per class; by default the model's `id2label`.
        options: `img_size`, to which positions are resampled.

    Raises:
        ValueError: If the model or its processor is not covered, the two do not fit, or an option is unknown.
        OSError: If there are no weights, or no network.
    """
    unknown = sorted(set(options) - {"img_size"})
    if unknown:
        raise ValueError(f"'{name}' takes img_size only, got {', '.join(unknown)}: the others are for timm's models")
    size = _pair(options.get("img_size"))
    plain = str(Path(name.removeprefix(HUGGING_FACE)).expanduser())
    if name.startswith(OPEN_CLIP) or (Path(plain) / _OPEN_CLIP_CONFIG).is_file():
        from hooked_vit.porting import open_clip

        ported = open_clip.read(open_clip.load(name.removeprefix(OPEN_CLIP)), class_names)
        return ported if size is None else resized(ported, size)
    from hooked_vit.porting.huggingface import hub, processor, read

    module, image_processor = hub.load(plain)
    ported = read(module, class_names)
    cfg = ported.cfg
    if image_processor is None:
        return ported if size is None else resized(ported, size)
    data_config = processor.read_processor(image_processor, cfg.n_channels, cfg.image_size)
    made = data_config["input_size"][1:]
    if size is None and made != cfg.image_size:
        if not cfg.dynamic_image_size:
            raise ValueError(
                f"the processor of '{name}' makes images of {made[0]} × {made[1]} pixels, the model takes "
                f"{cfg.image_size[0]} × {cfg.image_size[1]}: pass img_size=({made[0]}, {made[1]}) to resample its "
                "positions, or "
                "correct its preprocessor_config.json"
            )
        size = made
    ported = dataclasses.replace(ported, data_config=data_config)
    return ported if size is None else resized(ported, size)


def resized(ported: Ported, size: tuple[int, int]) -> Ported:
    """A port for images of another size, with its positions resampled as the model's own library does.

    Raises:
        ValueError: If patches do not fill the size.
    """
    cfg = ported.cfg
    if any(side < patch or side % patch for side, patch in zip(size, cfg.patch_size, strict=True)):
        raise ValueError(f"img_size must be a multiple of the patch size {cfg.patch_size}, got {size}")
    changed = dataclasses.replace(cfg, image_size=size)
    weights, data_config = dict(ported.weights), ported.data_config
    if "embed.pos" in weights and changed.position_grid != cfg.position_grid:
        positions, n_prefix = weights["embed.pos"], cfg.token_layout.n_prefix
        n_prefix = n_prefix if cfg.positions == "tokens" else 0
        old, new = cfg.position_grid, changed.position_grid
        moved = resample_positions(positions.detach(), new, old, n_prefix, cfg.position_resampling)
        weights["embed.pos"] = nn.Parameter(moved, requires_grad=positions.requires_grad)
        changed = dataclasses.replace(changed, dynamic_image_size=False)  # sampled twice, they would be others
        warnings.warn(
            f"positions learnt on {old[0]} × {old[1]} patches are resampled to {new[0]} × {new[1]}, for images of "
            f"{size[0]} × {size[1]} pixels",
            stacklevel=2,
        )
    if data_config is not None:
        data_config = {**data_config, "input_size": (cfg.n_channels, *size)}
    return dataclasses.replace(ported, cfg=changed, weights=weights, data_config=data_config)


def _pair(size: Any) -> tuple[int, int] | None:
    if size is None or isinstance(size, int):
        return None if size is None else (size, size)
    height, width = size
    return int(height), int(width)

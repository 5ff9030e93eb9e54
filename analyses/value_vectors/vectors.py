"""Value vectors: what each memory of a sub-layer writes to the residual stream, and its class logits."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hooked_vit import HookedViT, HookedViTConfig

__all__ = [
    "MemorySublayer", "block_index", "check_k", "check_sublayer", "memory_indices", "n_memories", "read_by_head",
    "top_classes", "top_memories", "value_logits", "value_vectors",
]  # fmt: skip

MemorySublayer = Literal["mlp", "attn"]


@torch.no_grad()
def value_vectors(
    model: HookedViT, layer: int, sublayer: MemorySublayer = "mlp", *, layer_scale: bool = False
) -> Float[Tensor, "memory d_model"]:
    """The value vectors of a sub-layer (paper, section 5.2): rows of `W_out`, or of `W_O` with the heads flattened.

    With a memory's coefficient m_i (`"post"`, see `memory_coefficients`) and its value vector v_i, the sub-layer
    computes `sum_i m_i v_i + b`. A pre-norm block adds this, times LayerScale, to the stream; a post-norm block
    first applies its norm.

    Args:
        model: The model; it is not changed.
        layer: Index of the block; negative indices count from the end.
        sublayer: `mlp`, whose memories are its `d_mlp` neurons; or `attn`, whose memory `head * d_head + i` is
            dimension i of a head.
        layer_scale: Whether to multiply by the block's LayerScale, if it has one; by default rows are as stored.

    Returns:
        A view of the stored weights where possible: clone it before you change it.

    Raises:
        ValueError: If there is no such block or sub-layer.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> value_vectors(model, layer=-1).shape, value_vectors(model, layer=0, sublayer="attn").shape
    (torch.Size([512, 128]), torch.Size([128, 128]))
    """
    check_sublayer(sublayer)
    block = model.blocks[block_index(model.cfg, layer)]
    if sublayer == "mlp":
        rows, scale = block.mlp.W_out, block.mlp_ls
    else:
        rows, scale = rearrange(block.attn.W_O, "head d_head d_model -> (head d_head) d_model"), block.ls1
    return (rows * scale if layer_scale and scale is not None else rows).detach()


@torch.no_grad()
def value_logits(
    model: HookedViT,
    layer: int,
    sublayer: MemorySublayer = "mlp",
    *,
    unit_length: bool = False,
    layer_scale: bool = False,
) -> Float[Tensor, "memory n_classes"]:
    """Project all value vectors of a sub-layer onto the classes: `V W_U`, without norm and without bias.

    Args:
        model: The model; it is not changed.
        layer: Index of the block; negative indices count from the end.
        sublayer: `mlp` or `attn`.
        unit_length: Whether to normalise value vectors and class embeddings to unit length: cosines, -1 to 1.
        layer_scale: As for `value_vectors`.

    Raises:
        ValueError: If there is no such block or sub-layer, or the model has no classes.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> value_logits(model, layer=6).shape
    torch.Size([512, 100])
    """
    values = value_vectors(model, layer, sublayer, layer_scale=layer_scale)
    if not unit_length:
        return model.class_logits(values, normalise=False, bias=False)
    return F.normalize(read_by_head(model, values), dim=-1) @ F.normalize(model.W_U, dim=0)


def read_by_head(model: HookedViT, vectors: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes d_model"]:
    """Vectors as `W_U` reads them, without norm: unchanged, or each passed through the attention pool."""
    if model.cfg.pool != "attention":
        return vectors
    identity = model.with_class_embeddings(torch.eye(model.cfg.d_model, device=vectors.device, dtype=vectors.dtype))
    return identity.class_logits(vectors, normalise=False, bias=False)


def top_classes(
    model: HookedViT,
    layer: int,
    memories: Sequence[int],
    sublayer: MemorySublayer = "mlp",
    k: int = 5,
    *,
    unit_length: bool = False,
    layer_scale: bool = False,
) -> pd.DataFrame:
    """The classes that some memories promote: those with the `k` largest logits in each value vector.

    Args:
        model: The model; it is not changed.
        layer: Index of the block; negative indices count from the end.
        memories: Indices of neurons, or of flattened dimensions of heads.
        sublayer: `mlp` or `attn`.
        k: Number of classes.
        unit_length: As for `value_logits`.
        layer_scale: As for `value_vectors`.

    Returns:
        Columns `layer`, `sublayer`, `memory`, `head` and `dimension` (for attention), `place` (from 1), `class_index`,
        `class_name`, `logit`.

    Raises:
        ValueError: If there is no such block, memory, or number of classes, or the model has a single class.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> table = top_classes(model, layer=6, memories=[4, 8, 10], k=2)
    >>> table["memory"].tolist()
    [4, 4, 8, 8, 10, 10]
    """
    model.require_several_classes("the top classes of a value vector")
    check_k(k, model.cfg.n_classes, "classes")
    chosen = memory_indices(model.cfg, sublayer, memories)
    logits = value_logits(model, layer, sublayer, unit_length=unit_length, layer_scale=layer_scale)[chosen].topk(k)
    rows: list[dict[str, Any]] = []
    for memory, values, classes in zip(chosen, logits.values.tolist(), logits.indices.tolist(), strict=True):
        memory_columns = _memory_columns(model.cfg, layer, sublayer, memory)
        for place, (value, label) in enumerate(zip(values, classes, strict=True), 1):
            class_columns = {"class_index": label, "class_name": model.class_names[label]}
            rows.append({**memory_columns, "place": place, **class_columns, "logit": value})
    return pd.DataFrame(rows).astype({"head": "Int64", "dimension": "Int64"})


def top_memories(
    model: HookedViT,
    layer: int,
    classes: Sequence[int | str],
    sublayer: MemorySublayer = "mlp",
    k: int = 5,
    *,
    unit_length: bool = False,
    layer_scale: bool = False,
) -> pd.DataFrame:
    """The memories that promote some classes most: the value vectors with the `k` largest logits for each.

    Args:
        model: The model; it is not changed.
        layer: Index of the block; negative indices count from the end.
        classes: Class indices or names.
        sublayer: `mlp` or `attn`.
        k: Number of memories.
        unit_length: As for `value_logits`.
        layer_scale: As for `value_vectors`.

    Returns:
        The columns of `top_classes`.

    Raises:
        ValueError: If there is no such block, class, or number of memories.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> table = top_memories(model, layer=6, classes=["pizza", "fox"], k=3)
    >>> table["class_name"].tolist()
    ['pizza', 'pizza', 'pizza', 'fox', 'fox', 'fox']
    """
    _refuse_single(classes, "classes")
    labels = [model.class_index(label) for label in classes]
    all_logits = value_logits(model, layer, sublayer, unit_length=unit_length, layer_scale=layer_scale)
    check_k(k, len(all_logits), "memories")
    logits = all_logits[:, labels].topk(k, dim=0)
    rows: list[dict[str, Any]] = []
    for label, values, memories in zip(labels, logits.values.T.tolist(), logits.indices.T.tolist(), strict=True):
        class_columns = {"class_index": label, "class_name": model.class_names[label]}
        for place, (value, memory) in enumerate(zip(values, memories, strict=True), 1):
            memory_columns = _memory_columns(model.cfg, layer, sublayer, memory)
            rows.append({**memory_columns, "place": place, **class_columns, "logit": value})
    return pd.DataFrame(rows).astype({"head": "Int64", "dimension": "Int64"})


def block_index(cfg: HookedViTConfig, layer: int) -> int:
    """The index of a block from 0, given one that may count from the end; ValueError if there is no such block."""
    if not -cfg.n_layers <= layer < cfg.n_layers:
        raise ValueError(
            f"expected a layer from 0 to {cfg.n_layers - 1} (or negative from the end), got {layer}: pass a block's"
            " index"
        )
    return layer % cfg.n_layers


def memory_indices(cfg: HookedViTConfig, sublayer: MemorySublayer, memories: Sequence[int]) -> list[int]:
    """The given memories as a list; ValueError if there is none, or one does not exist."""
    _refuse_single(memories, "memories")
    total = n_memories(cfg, sublayer)
    outside = [memory for memory in memories if not 0 <= memory < total]
    if outside or not len(memories):
        what = "neurons" if sublayer == "mlp" else f"memories (head * {cfg.d_head} + dimension)"
        raise ValueError(f"expected {what} from 0 to {total - 1}, got {list(outside or memories)}")
    return [int(memory) for memory in memories]


def n_memories(cfg: HookedViTConfig, sublayer: MemorySublayer) -> int:
    """Number of memories of a sub-layer: neurons, or dimensions of all heads; ValueError if there is no such sub-layer.

    >>> cfg = HookedViT.from_pretrained("emoji-vit").cfg
    >>> n_memories(cfg, "mlp"), n_memories(cfg, "attn")
    (512, 128)
    """
    check_sublayer(sublayer)
    return cfg.d_mlp if sublayer == "mlp" else cfg.n_heads * cfg.d_head


def check_sublayer(sublayer: str) -> None:
    """ValueError if there is no such sub-layer."""
    if sublayer not in get_args(MemorySublayer):
        raise ValueError(f"expected sublayer 'mlp' or 'attn', got {sublayer!r}")


def _refuse_single(values: Any, name: str) -> None:
    if isinstance(values, int | str):
        raise ValueError(f"{name} is a list, got {values!r}: pass {name}=[{values!r}]")


def check_k(k: int, most: int, what: str) -> None:
    """ValueError if there are fewer than k classes or memories, or k is not positive."""
    if not 1 <= k <= most:
        raise ValueError(f"k must be from 1 to the number of {what}, {most}, got {k}")


def _memory_columns(cfg: HookedViTConfig, layer: int, sublayer: MemorySublayer, memory: int) -> dict[str, Any]:
    head, dimension = divmod(memory, cfg.d_head) if sublayer == "attn" else (None, None)
    at = {"layer": block_index(cfg, layer), "sublayer": sublayer}
    return {**at, "memory": memory, "head": head, "dimension": dimension}

"""Lookup tables of value vectors and classes, computed once per model and looked up for every token."""

from functools import reduce
from typing import Any
from weakref import ref

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from analyses.value_vectors.vectors import MemorySublayer, check_k, read_by_head, value_logits, value_vectors
from hooked_vit import HookedViT

__all__ = ["MemoryTables", "TableStore"]

_BITS = 8


class MemoryTables:
    """For every block, the value vectors that promote each class most, and the top class of each value vector.

    Attributes:
        k: Number of value vectors per class.
        memories_of_class: The value vectors with the largest logits for each class, largest first.
        class_of_memory: The class with the largest logit in each value vector.
        mean_logit: Mean over classes of each value vector's logits.
    """

    k: int
    memories_of_class: Int[Tensor, "layer n_classes k"]
    class_of_memory: Int[Tensor, "layer memory"]
    mean_logit: Float[Tensor, "layer memory"]

    @torch.no_grad()
    def __init__(self, model: HookedViT, sublayer: MemorySublayer, k: int = 5, layer_scale: bool = False):
        """Project all value vectors of a sub-layer, a block at a time.

        Args:
            model: The model; it is not changed. Its weights are read now: make new tables after an edit.
            sublayer: `mlp` or `attn`.
            k: Number of value vectors to keep per class.
            layer_scale: As for `value_vectors`.

        Raises:
            ValueError: If there are fewer value vectors than k, no such sub-layer, or no classes.

        >>> tables = MemoryTables(HookedViT.from_pretrained("emoji-vit"), "mlp")
        >>> tables.memories_of_class.shape, tables.class_of_memory.shape
        (torch.Size([8, 100, 5]), torch.Size([8, 512]))
        """
        model.require_several_classes("a comparison of memories by their classes")
        memories_of_class, class_of_memory, mean_logit, bits, values = [], [], [], [], []
        for layer in range(model.cfg.n_layers):
            logits = value_logits(model, layer, sublayer, layer_scale=layer_scale)
            check_k(k, len(logits), "memories")
            memories_of_class.append(logits.topk(k, dim=0).indices.T)
            class_of_memory.append(logits.argmax(dim=-1))
            mean_logit.append(logits.mean(dim=-1))
            chosen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
            bits.append(_packed(chosen.scatter_(0, memories_of_class[-1].T, True)))
            values.append(read_by_head(model, value_vectors(model, layer, sublayer, layer_scale=layer_scale)))
        self.k = k
        self.memories_of_class = torch.stack(memories_of_class).contiguous()
        self.class_of_memory = torch.stack(class_of_memory)
        self.mean_logit = torch.stack(mean_logit)
        self._bits, self._values, self._class_embeddings = bits, values, model.W_U.detach()
        counts = [byte.bit_count() for byte in range(2**_BITS)]
        self._n_ones = torch.tensor(counts, dtype=torch.int32, device=self.memories_of_class.device)

    def agrees(
        self, layer: int, memories: Int[Tensor, "batch token n"], labels: Int[Tensor, "batch"]
    ) -> Bool[Tensor, "batch token"]:
        """Whether one of a token's memories is among the k value vectors of its image's class."""
        label_memories = self.memories_of_class[layer][labels]
        return (memories[..., None] == label_memories[:, None, None]).flatten(2).any(dim=-1)

    def random_agreement(self, layer: int, memories: Int[Tensor, "batch token n"]) -> Float[Tensor, "batch token"]:
        """The exact probability that `agrees` is true for a class drawn uniformly at random."""
        classes = reduce(torch.bitwise_or, self._bits[layer][memories].unbind(dim=2))
        return self._n_ones[classes.int()].sum(dim=-1) / self.memories_of_class.shape[1]

    def label_logits(
        self, layer: int, memories: Int[Tensor, "batch token n"], labels: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch token n"]:
        """The logit of the image's class in the value vectors of a token's memories."""
        return self.all_label_logits(layer, labels).gather(1, memories.flatten(1)).view(memories.shape)

    def all_label_logits(self, layer: int, labels: Int[Tensor, "batch"]) -> Float[Tensor, "batch memory"]:
        """The logit of the image's class in every value vector."""
        return F.linear(self._class_embeddings.T[labels], self._values[layer])

    def norms(self, layer: int) -> Float[Tensor, "memory"]:
        """The norms of the value vectors."""
        return self._values[layer].norm(dim=-1)


def _packed(chosen: Bool[Tensor, "memory n_classes"]) -> UInt8[Tensor, "memory byte"]:
    """Eight classes per byte, so that a bitwise or unites the classes of several memories."""
    filled = F.pad(chosen.to(torch.uint8), (0, -chosen.shape[1] % _BITS)).unflatten(1, (-1, _BITS))
    weights = 2 ** torch.arange(_BITS, dtype=torch.uint8, device=chosen.device)
    return (filled * weights).sum(dim=-1, dtype=torch.uint8)


class TableStore:
    """Tables kept from batch to batch while the model is the same and its weights are not edited in place.

    Edits that bypass autograd (`parameter.data`) are not noticed: call `clear` after them. Copies start empty.

    >>> model, store = HookedViT.from_pretrained("emoji-vit"), TableStore()
    >>> store.tables(model, "mlp") is store.tables(model, "mlp")
    True
    >>> with torch.no_grad():
    ...     model.blocks[3].mlp.W_out[7] = 0
    >>> store.tables(model, "mlp").class_of_memory[3, 7]
    tensor(0)
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the tables."""
        self._model: Any = None
        self._weights: Any = None
        self._tables: dict[tuple[MemorySublayer, int, bool], MemoryTables] = {}

    def tables(self, model: HookedViT, sublayer: MemorySublayer, k: int = 5, layer_scale: bool = False) -> MemoryTables:
        """`MemoryTables` of these options."""
        weights = _state_of(model)
        if self._model is None or self._model() is not model or weights is None or weights != self._weights:
            self.clear()
            self._model, self._weights = ref(model), weights
        key = (sublayer, k, layer_scale)
        if key not in self._tables:
            self._tables[key] = MemoryTables(model, sublayer, k, layer_scale)
        return self._tables[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"_model": None, "_weights": None, "_tables": {}}


def _state_of(model: HookedViT) -> list[tuple[int, int]] | None:
    """The address of each weight and the number of its edits; `None` if edits are not counted."""
    weights = list(model.parameters())
    if any(weight.is_inference() for weight in weights):
        return None
    return [(weight.data_ptr(), weight._version) for weight in weights]

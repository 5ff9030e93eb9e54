"""Ablating and steering memories: hooks that set or scale the coefficients of chosen memories of each image."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.memory_pairs.coefficients import coefficient_names, memory_coefficients
from analyses.value_vectors.vectors import MemorySublayer, check_sublayer, n_memories
from hooked_vit import HookedViT, HookedViTConfig

__all__ = ["MemoryMeans", "edit_memories", "intervention_name"]


def edit_memories(
    model: HookedViT,
    layer: int,
    memories: Int[Tensor, "batch k"],
    sublayer: MemorySublayer = "mlp",
    *,
    factor: float | int | Float[Tensor, "batch"] = 0.0,
    means: Float[Tensor, "token memory"] | None = None,
) -> list[tuple[str, Callable[..., Any]]]:
    """Hooks for `run_with_hooks` or `hooks` that change chosen memories' coefficients at every token of each image.

    A memory then writes `factor * m_i v_i`: 0 ablates it, more than 1 steers towards the classes that it promotes. The
    hooks change the `"post"` coefficients of `memory_coefficients`.

    Args:
        model: The model; it is not changed.
        layer: Index of the block; negative indices count from the end.
        memories: The memories of each image; repeated ones count once.
        sublayer: `mlp` or `attn`.
        factor: The factor of the coefficients, for all images or per image.
        means: Values to set coefficients to instead, such as `MemoryMeans.means()` of the block: mean ablation.

    Raises:
        ValueError: If there is no such block, sub-layer or memory.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> images = torch.zeros(2, 3, 64, 64)
    >>> hooks = edit_memories(model, 6, torch.tensor([[4, 8], [10, 4]]), factor=0)
    >>> model.run_with_hooks(images, fwd_hooks=hooks).shape
    torch.Size([2, 100])
    """
    cfg, total = model.cfg, n_memories(model.cfg, sublayer)
    if memories.numel() and not 0 <= int(memories.min()) <= int(memories.max()) < total:
        raise ValueError(f"expected memories from 0 to {total - 1}, got {int(memories.min())} to {int(memories.max())}")

    def edit(activation: Tensor, hook: Any) -> Tensor:
        coefficients = activation.flatten(2)
        if len(coefficients) != len(memories):
            raise ValueError(f"memories were chosen for {len(memories)} images, but the batch has {len(coefficients)}")
        index = memories[:, None].expand(-1, coefficients.shape[1], -1)
        if means is not None:
            new = means.to(coefficients).expand_as(coefficients).gather(2, index)
        else:
            factors = factor[:, None, None].to(coefficients) if isinstance(factor, Tensor) else factor
            new = coefficients.gather(2, index) * factors
        return coefficients.scatter(2, index, new).view(activation.shape)

    return [(name, edit) for name in coefficient_names(cfg, sublayer, "post", [layer])]


def intervention_name(intervention: str | float | int) -> str:
    """The name of an intervention in tables: `zero`, `mean`, or `x3` for coefficients times 3.

    Raises:
        ValueError: If it is none of these.

    >>> intervention_name("zero"), intervention_name(3)
    ('zero', 'x3')
    """
    if isinstance(intervention, str):
        if intervention not in ("zero", "mean"):
            raise ValueError(f"expected 'zero', 'mean' or a factor such as 3.0, got {intervention!r}")
        return intervention
    return f"x{intervention:g}"


class MemoryMeans(Analysis):
    """Mean `"post"` coefficient of every memory at every token position over a dataset, for mean ablation.

    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), MemoryMeans("mlp")
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> analysis.means().shape
    torch.Size([8, 65, 512])
    """

    sums: Tensor  # [layer token memory]
    n_images: Tensor

    def __init__(self, sublayer: MemorySublayer = "mlp"):
        """Configure the analysis.

        Args:
            sublayer: `mlp` or `attn`.

        Raises:
            ValueError: If there is no such sub-layer.
        """
        super().__init__()
        check_sublayer(sublayer)
        self.sublayer: MemorySublayer = sublayer
        # a scalar zero, to which sums of any shape can be added
        self.add_state("sums", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("n_images", torch.tensor(0), dist_reduce_fx="sum")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The coefficients."""
        return coefficient_names(cfg, self.sublayer, "post")

    def update(self, batch: AnalysisBatch) -> None:
        """Add a batch."""
        layers = range(batch.model.cfg.n_layers)
        coefficients = (memory_coefficients(batch.model, batch.cache, i, self.sublayer, "post") for i in layers)
        sums = torch.stack([values.sum(dim=0, dtype=torch.float64) for values in coefficients])
        self.sums = self.sums + sums.to(self.device)
        self.n_images = self.n_images + len(batch.labels)

    def means(self) -> Float[Tensor, "layer token memory"]:
        """The means.

        Raises:
            ValueError: If no image was seen.
        """
        if not int(self.n_images):
            raise ValueError("no image was seen: give update a batch first")
        return (self.sums / self.n_images).float()

    def compute(self) -> pd.DataFrame:
        """One row per block and memory: `layer`, `stream`, `memory`, `value` (the mean over tokens as well)."""
        means = self.means().mean(dim=1).cpu().numpy()
        n_layers, n_memories = means.shape
        index = pd.MultiIndex.from_product([range(n_layers), range(n_memories)], names=["layer", "memory"])
        table = pd.DataFrame({"value": means.ravel()}, index=index).reset_index()
        return table.assign(stream=f"{self.sublayer}_out")

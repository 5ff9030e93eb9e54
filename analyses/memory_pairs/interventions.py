"""Ablating and steering memories: hooks that set or scale the coefficients of some memories of each image."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.memory_pairs.coefficients import coefficient_names, memory_coefficients
from analyses.value_vectors.vectors import MemorySublayer, block_index, check_sublayer
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
    """Hooks for `run_with_hooks` or `hooks` that change some memories' coefficients at every token of each image.

    A memory then writes `factor * m_i v_i`: 0 ablates it, more than 1 steers towards what it speaks for. The values
    that are changed are the `"post"` coefficients of `memory_coefficients`.

    Args:
        model: Left as it is.
        layer: Which block; negative ones count from the end.
        memories: Which memories of each image; the same one twice counts once.
        sublayer: `mlp` or `attn`.
        factor: What coefficients are multiplied with, for all images or for each.
        means: Set coefficients to these instead, such as `MemoryMeans.means()` of the block: mean ablation.

    Raises:
        ValueError: If there is no such block, sub-layer or memory.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> images = torch.zeros(2, 3, 64, 64)
    >>> hooks = edit_memories(model, 6, torch.tensor([[4, 8], [10, 4]]), factor=0)
    >>> model.run_with_hooks(images, fwd_hooks=hooks).shape
    torch.Size([2, 100])
    """
    check_sublayer(sublayer)
    cfg, at = model.cfg, block_index(model.cfg, layer)
    n_memories = cfg.d_mlp if sublayer == "mlp" else cfg.n_heads * cfg.d_head
    if memories.numel() and not 0 <= int(memories.min()) <= int(memories.max()) < n_memories:
        raise ValueError(
            f"expected memories from 0 to {n_memories - 1}, got {int(memories.min())} to {int(memories.max())}"
        )

    def edit(activation: Tensor, hook: Any) -> Tensor:
        coefficients = activation.flatten(2)
        if len(coefficients) != len(memories):
            raise ValueError(f"memories were chosen for {len(memories)} images, the batch has {len(coefficients)}")
        index = memories[:, None].expand(-1, coefficients.shape[1], -1)
        if means is not None:
            new = means.to(coefficients).expand_as(coefficients).gather(2, index)
        else:
            by_image = factor[:, None, None].to(coefficients) if isinstance(factor, Tensor) else factor
            new = coefficients.gather(2, index) * by_image
        return coefficients.scatter(2, index, new).view(activation.shape)

    return [(name, edit) for name in coefficient_names(cfg, sublayer, "post", [at])]


def intervention_name(intervention: str | float | int) -> str:
    """How an intervention is called in tables: `zero`, `mean`, or `x3` for coefficients times 3.

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
    """Mean `"post"` coefficient of every memory at every token position over a dataset: what mean ablation sets.

    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), MemoryMeans("mlp")
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> analysis.means().shape
    torch.Size([8, 65, 512])
    """

    sums: Tensor  # [layer token memory]
    n_images: Tensor

    def __init__(self, sublayer: MemorySublayer = "mlp"):
        """Of one sub-layer's memories.

        Args:
            sublayer: `mlp` or `attn`.

        Raises:
            ValueError: If there is no such sub-layer.
        """
        super().__init__()
        check_sublayer(sublayer)
        self.sublayer: MemorySublayer = sublayer
        # a zero of no shape, to which sums of any shape add up
        self.add_state("sums", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("n_images", torch.tensor(0), dist_reduce_fx="sum")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The coefficients."""
        return coefficient_names(cfg, self.sublayer, "post")

    def update(self, batch: AnalysisBatch) -> None:
        """Add a batch."""
        layers = range(batch.model.cfg.n_layers)
        of_layers = (memory_coefficients(batch.model, batch.cache, i, self.sublayer, "post") for i in layers)
        sums = torch.stack([one.sum(dim=0, dtype=torch.float64) for one in of_layers])
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
        """A row for each block and memory: `layer`, `stream`, `memory`, `value` (mean over tokens too)."""
        means = self.means().mean(dim=1).cpu().numpy()
        n_layers, n_memories = means.shape
        index = pd.MultiIndex.from_product([range(n_layers), range(n_memories)], names=["layer", "memory"])
        table = pd.DataFrame({"value": means.ravel()}, index=index).reset_index()
        return table.assign(stream=f"{self.sublayer}_out")

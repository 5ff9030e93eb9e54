"""Semantic coherence: whether the top classes of a value vector are more similar in meaning than by chance."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.statistics.corrections import adjust_p_values
from analyses.value_vectors.taxonomy import Taxonomy, class_similarity
from analyses.value_vectors.vectors import MemorySublayer, value_logits
from hooked_vit import HookedViT

__all__ = ["SemanticCoherence", "coherence_of_classes", "semantic_coherence"]

CHUNK_ELEMENTS = 2**22  # similarities that are looked up at a time


@dataclass(frozen=True)
class SemanticCoherence:
    """How similar the top classes of value vectors are, 0 (nothing in common) to 1 (the same leaf).

    Attributes:
        sublayer: The sub-layer of the value vectors.
        k: Number of top classes that are compared.
        top_classes: The top classes, largest logit first.
        score: Mean similarity over pairs of top classes.
        p_value: For each value vector, the share of value vectors of the layer, over all permutations, that
            score as high.
        null: Each layer's mean score under each permutation of the class labels.
        layer_p_value: p-value of each layer's mean score.
    """

    sublayer: MemorySublayer
    k: int
    top_classes: Int[Tensor, "layer memory k"]
    score: Float[Tensor, "layer memory"]
    p_value: Float[Tensor, "layer memory"]
    null: Float[Tensor, "layer permutation"]
    layer_p_value: Float[Tensor, "layer"]

    def table(self) -> pd.DataFrame:
        """One row per layer.

        Columns `value` (mean score), `null` (its mean under permutation), `null_low`, `null_high` (95 %), `p_value`,
        `p_adjusted` (Holm's), `percent_coherent` (of value vectors, false discovery rate 5 %), `n_memories`.
        """
        null, p_values = self.null.double().cpu().numpy(), self.layer_p_value.double().cpu().numpy()
        coherent = [
            100 * np.mean(adjust_p_values(p_value, "fdr_bh") <= 0.05) for p_value in self.p_value.double().cpu().numpy()
        ]
        return pd.DataFrame(
            {
                "layer": range(len(null)),
                "stream": f"{self.sublayer}_out",
                "metric": "semantic_coherence",
                "value": self.score.mean(dim=-1).double().cpu().numpy(),
                "null": null.mean(axis=1),
                "null_low": np.quantile(null, 0.025, axis=1),
                "null_high": np.quantile(null, 0.975, axis=1),
                "p_value": p_values,
                "p_adjusted": adjust_p_values(p_values),
                "percent_coherent": coherent,
                "n_memories": self.score.shape[1],
            }
        )


def semantic_coherence(
    model: HookedViT,
    taxonomy: Taxonomy,
    sublayer: MemorySublayer = "mlp",
    k: int = 5,
    *,
    n_permutations: int = 999,
    seed: int = 0,
    layer_scale: bool = False,
) -> SemanticCoherence:
    """Score every value vector of a model: the mean similarity of the classes of its k largest logits.

    The null hypothesis is that logits are unrelated to meaning: class labels are permuted, in the same way for all
    value vectors of a layer, which preserves the dependence between them.

    Args:
        model: The model; it is not changed.
        taxonomy: One path per class (see `analyses.value_vectors.taxonomy`), such as `emoji_taxonomy()`.
        sublayer: `mlp` or `attn`.
        k: Number of top classes, at least two.
        n_permutations: Number of permutations of the class labels.
        seed: Seed of the permutations.
        layer_scale: As for `value_vectors`.

    Raises:
        ValueError: If the taxonomy does not match the model's classes, or k is out of range.

    >>> from analyses.value_vectors import emoji_taxonomy
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> coherence = semantic_coherence(model, emoji_taxonomy(), n_permutations=9)
    >>> coherence.score.shape, coherence.null.shape
    (torch.Size([8, 512]), torch.Size([8, 9]))
    """
    model.require_several_classes("semantic coherence")
    if not 2 <= k <= model.cfg.n_classes:
        raise ValueError(f"k must be from 2 to the number of classes, {model.cfg.n_classes}, got {k}")
    layers = range(model.cfg.n_layers)
    tops = torch.stack([value_logits(model, i, sublayer, layer_scale=layer_scale).topk(k).indices for i in layers])
    similarity = class_similarity(taxonomy).to(tops.device)
    if len(similarity) != model.cfg.n_classes:
        raise ValueError(
            f"expected one path per class, {model.cfg.n_classes}, got {len(similarity)}: pass a taxonomy of this "
            "model's classes"
        )
    scores, p_values, nulls = zip(*(coherence_of_classes(top, similarity, n_permutations, seed) for top in tops),
                                  strict=True)  # fmt: skip
    score, null = torch.stack(scores), torch.stack(nulls)
    as_high = (null >= score.mean(dim=-1, keepdim=True) - 1e-6).sum(dim=-1)
    return SemanticCoherence(
        sublayer=sublayer,
        k=k,
        top_classes=tops,
        score=score,
        p_value=torch.stack(p_values),
        null=null,
        layer_p_value=(1 + as_high) / (1 + n_permutations),
    )


def coherence_of_classes(
    top_classes: Int[Tensor, "memory k"],
    similarity: Float[Tensor, "n_classes n_classes"],
    n_permutations: int = 999,
    seed: int = 0,
) -> tuple[Float[Tensor, "memory"], Float[Tensor, "memory"], Float[Tensor, "permutation"]]:
    """Score and p-value of each row of classes, and the mean score of all rows under each permutation of the labels.

    >>> similarity = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> score, p_value, null = coherence_of_classes(torch.tensor([[0, 1], [1, 2]]), similarity, n_permutations=99)
    >>> score, null.shape
    (tensor([1., 0.]), torch.Size([99]))
    """
    pairs = torch.tensor(list(combinations(range(top_classes.shape[1]), 2)), device=top_classes.device)
    a, b = top_classes[:, pairs[:, 0]], top_classes[:, pairs[:, 1]]
    n_classes = len(similarity)
    score = similarity[a, b].mean(dim=-1)
    generator = torch.Generator().manual_seed(seed)
    means = []
    n_at_once = max(1, CHUNK_ELEMENTS // a.numel())
    for start in range(0, n_permutations, n_at_once):
        n = min(n_at_once, n_permutations - start)
        permuted = torch.stack([torch.randperm(n_classes, generator=generator) for _ in range(n)]).to(a.device)
        means.append(similarity[permuted[:, a], permuted[:, b]].mean(dim=-1))
    null = torch.cat(means)
    # with permuted labels, all rows of distinct classes are alike, so they share one null distribution
    pooled = null.flatten().sort().values
    as_high = len(pooled) - torch.searchsorted(pooled, score - 1e-6)
    return score, (1 + as_high) / (1 + len(pooled)), null.mean(dim=-1)

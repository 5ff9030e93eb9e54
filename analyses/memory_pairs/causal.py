"""The causal test: do the memories that speak for a class make the model say it?"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.analysis.tables import difference_rows
from analyses.memory_pairs.calls import tables_of_batch
from analyses.memory_pairs.choices import ChoiceDraws, contributing_memories, norm_matched_memories
from analyses.memory_pairs.coefficients import coefficient_names, memory_coefficients
from analyses.memory_pairs.interventions import edit_memories, intervention_name
from analyses.memory_pairs.lookup import TableStore
from analyses.statistics.intervals import Resampling
from analyses.value_vectors.vectors import MemorySublayer, block_index, check_sublayer
from hooked_vit import HookedViTConfig

__all__ = ["CausalMemories"]

_CHOICES = ("aligned", "aligned_other", "contribution", "contribution_other", "random")
_COMPARISONS = (
    ("aligned", "random"), ("aligned", "aligned_other"), ("contribution", "random"),
    ("contribution", "contribution_other"),
)  # fmt: skip
_METRICS = ("label_logit", "label_margin", "accuracy", "other_logit", "says_other")
_COLUMNS = [
    "layer", "stream", "intervention", "k", "memories", "against", "metric", "value", "low", "high", "n_images",
    "p_value", "p_adjusted", "effect_size",
]  # fmt: skip
# Images in a forward pass: on a CPU more are not faster.
_AT_ONCE_ON_CPU, _AT_ONCE_ON_GPU = 64, 1024


class CausalMemories(Analysis):
    """Ablate or steer memories of one block at every token, and see what becomes of the prediction.

    Which memories, `k` for each image of class c; c' is another class, drawn at random for the image:

    | `memories` | |
    |---|---|
    | `aligned` | the value vectors with the largest logits for c, which key-value agreement looks for |
    | `aligned_other` | those with the largest logits for c' |
    | `contribution` | those that wrote the most of c in this image: largest `sum_t m_i(t) v_i · E_c` |
    | `contribution_other` | those that wrote the most of c' in this image |
    | `random` | for each of `aligned`, one at random whose value vector is about as long |

    What becomes of it, after the intervention minus before it; `against` names the memories whose effect on the same
    images is taken from that of `memories`, and is missing where none is:

    | `metric` | value |
    |---|---|
    | `label_logit`, `other_logit` | the logit of c, of c' |
    | `label_margin` | the logit of c minus the largest other one |
    | `accuracy`, `says_other` | percent of images that the model takes for c, for c' |

    `intervention` is `zero`, `mean` or `x3`: coefficients set to zero, to their mean over a dataset, or multiplied by
    3 (steering). `low` and `high` are bootstrap intervals over images; tests are sign-flip permutation tests on images,
    `p_adjusted` is Holm's over blocks. Each block, intervention, k and choice costs the forward pass from its block on.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), CausalMemories(layers=[-1], ks=[5])
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> table = analysis.compute()
    >>> sorted(table["memories"].unique())
    ['aligned', 'aligned_other', 'contribution', 'contribution_other', 'random']
    """

    index: list[Tensor]  # [image]
    effect: list[Tensor]  # [image cell metric], a cell being layer, intervention, k, choice
    n_layers: Tensor

    def __init__(
        self,
        sublayer: MemorySublayer = "mlp",
        layers: Sequence[int] | None = None,
        ks: Sequence[int] = (1, 5, 20),
        interventions: Sequence[str | float | int] = ("zero",),
        means: Float[Tensor, "layer token memory"] | None = None,
        layer_scale: bool = False,
        resampling: Resampling = Resampling(),
        seed: int = 0,
    ):
        """Ask it.

        Args:
            sublayer: Whose memories: `mlp` or `attn`.
            layers: Of which blocks, one at a time; all by default.
            ks: How many memories of each image.
            interventions: Any of `"zero"`, `"mean"`, and factors such as 3.0.
            means: What `"mean"` sets coefficients to: `MemoryMeans(sublayer).means()` after a sweep.
            layer_scale: As for `value_vectors`: for the choice of memories alone.
            resampling: Bootstrap intervals and permutation tests.
            seed: Of the other classes and of the random memories.

        Raises:
            ValueError: If an argument does not fit.
        """
        super().__init__()
        check_sublayer(sublayer)
        if not len(ks) or min(ks) < 1 or not len(interventions):
            raise ValueError(f"expected ks from 1 on and interventions, got {list(ks)} and {list(interventions)}")
        self.names_of_interventions = [intervention_name(one) for one in interventions]
        if "mean" in interventions and means is None:
            raise ValueError("'mean' needs means: sweep `MemoryMeans(sublayer)` first and pass its `means()`")
        self.sublayer: MemorySublayer = sublayer
        self.layers, self.ks, self.interventions, self.means = layers, ks, interventions, means
        self.layer_scale, self.resampling, self.seed = layer_scale, resampling, seed
        self._store = TableStore()
        for name in ("index", "effect"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("n_layers", torch.tensor(0), dist_reduce_fx="max")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """Block inputs, and coefficients."""
        self._store.clear()  # whoever asks begins a pass, maybe with other weights
        for layer in self.layers or ():
            block_index(cfg, layer)
        layers = self._layers(cfg.n_layers)
        return [
            *(f"blocks.{layer}.hook_resid_pre" for layer in layers),
            *coefficient_names(cfg, self.sublayer, "post", layers),
        ]

    def _layers(self, n_layers: int) -> list[int]:
        cfg_layers: Sequence[int] = range(n_layers) if self.layers is None else self.layers
        return [layer % n_layers for layer in cfg_layers]

    @torch.no_grad()
    def update(self, batch: AnalysisBatch) -> None:
        """Run a batch again for each block, intervention, k and choice."""
        cfg = batch.model.cfg
        n_memories = cfg.d_mlp if self.sublayer == "mlp" else cfg.n_heads * cfg.d_head
        draws = ChoiceDraws.of_images(batch.index, batch.labels, cfg.n_classes, cfg.n_layers, n_memories, self.seed)
        before = _outcomes(batch.logits, batch.labels, draws.other)
        effects = []
        for layer in self._layers(cfg.n_layers):
            choices = self._choices(batch, layer, draws)
            for intervention in self.interventions:
                effects.append(self._outcomes_after(batch, layer, intervention, choices, draws.other) - before)
        self.n_layers = torch.tensor(cfg.n_layers, device=self.device)
        self.index.append(batch.index.to(self.device))
        self.effect.append(torch.cat(effects).movedim(1, 0).to(self.device, torch.float32))

    def _choices(self, batch: AnalysisBatch, layer: int, draws: ChoiceDraws) -> Int[Tensor, "choice batch k"]:
        k, labels = max(self.ks), batch.labels
        tables = tables_of_batch(batch, self._store, self.sublayer, k, self.layer_scale)
        coefficients = memory_coefficients(batch.model, batch.cache, layer, self.sublayer, "post")
        aligned = tables.memories_of_class[layer][labels]
        return torch.stack(
            [
                aligned,
                tables.memories_of_class[layer][draws.other],
                contributing_memories(coefficients, tables.all_label_logits(layer, labels), k),
                contributing_memories(coefficients, tables.all_label_logits(layer, draws.other), k),
                norm_matched_memories(aligned, tables.norms(layer), draws.priority[:, layer]),
            ]
        )

    def _outcomes_after(
        self,
        batch: AnalysisBatch,
        layer: int,
        intervention: str | float | int,
        choices: Int[Tensor, "choice batch k"],
        other: Int[Tensor, "batch"],
    ) -> Float[Tensor, "cell batch metric"]:
        """Of each k and choice, as many in one forward pass as is good."""
        residual = batch.cache[f"blocks.{layer}.hook_resid_pre"]
        # the first memory once more, in the place of those beyond k
        cells = torch.cat([torch.where(torch.arange(choices.shape[-1], device=choices.device) < k, choices,
                                       choices[..., :1]) for k in self.ks])  # fmt: skip
        means = None if intervention != "mean" or self.means is None else self.means[layer]
        factor = 0.0 if isinstance(intervention, str) else intervention
        at_once = _AT_ONCE_ON_CPU if residual.device.type == "cpu" else _AT_ONCE_ON_GPU
        after = []
        for part in cells.split(max(1, at_once // len(residual))):
            hooks = edit_memories(batch.model, layer, part.flatten(0, 1), self.sublayer, factor=factor, means=means)
            repeated = repeat(residual, "batch ... -> (cell batch) ...", cell=len(part))
            with batch.model.hooks(fwd_hooks=hooks):
                logits = batch.model(repeated, start_at_layer=layer)
            of_cells = logits.unflatten(0, (len(part), -1))
            after += [_outcomes(of_cell, batch.labels, other) for of_cell in of_cells]
        return torch.stack(after)

    def compute(self) -> pd.DataFrame:
        """One row for each block, intervention, k, choice of memories or comparison of two, and metric.

        Raises:
            ValueError: If no image was seen.
        """
        (effect,) = (one.astype(np.float64) for one in self.by_image("effect"))
        layers, stream = self._layers(int(self.n_layers)), f"{self.sublayer}_out"
        shape = (len(layers), len(self.interventions), len(self.ks), len(_CHOICES), len(_METRICS))
        by_choice = np.moveaxis(effect.reshape(-1, *shape), 4, 0)  # [choice image layer intervention k metric]
        rows = pd.DataFrame(
            [
                {"layer": layer, "stream": stream, "intervention": name, "k": int(k), "metric": metric}
                for layer, name, k, metric in product(layers, self.names_of_interventions, self.ks, _METRICS)
            ]
        )
        of_choice = {choice: one.reshape(len(effect), -1) for choice, one in zip(_CHOICES, by_choice, strict=True)}
        tables = []
        for choice, values in of_choice.items():
            interval = self.resampling.interval(values)
            numbers: dict[str, Any] = {"value": interval.estimate, "low": interval.low, "high": interval.high}
            tables.append(rows.assign(memories=choice, **numbers, n_images=len(values)))
        resampling = self.resampling
        for choice, against in _COMPARISONS:
            compared = difference_rows(of_choice[choice], of_choice[against], rows, resampling, paired=True)
            tables.append(compared.assign(memories=choice, against=against))
        return pd.concat([one for one in tables if len(one)], ignore_index=True).reindex(columns=_COLUMNS)


def _outcomes(
    logits: Float[Tensor, "batch n_classes"], labels: Int[Tensor, "batch"], other: Int[Tensor, "batch"]
) -> Float[Tensor, "batch metric"]:
    """`_METRICS`, in their order."""
    of_label, of_other = (logits.gather(1, one[:, None])[:, 0] for one in (labels, other))
    largest_other = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=-1)
    says = logits.argmax(dim=-1)
    shares = [100.0 * (says == one) for one in (labels, other)]
    return torch.stack([of_label, of_label - largest_other, shares[0], of_other, shares[1]], dim=-1)

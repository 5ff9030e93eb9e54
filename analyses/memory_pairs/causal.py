"""The causal test: whether the memories that promote a class make the model predict it."""

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
from analyses.value_vectors.vectors import MemorySublayer, block_index, check_sublayer, n_memories
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
IMAGES_ON_CPU, IMAGES_ON_GPU = 64, 1024  # images in a forward pass; on a CPU, more are not faster


class CausalMemories(Analysis):
    """Ablate or steer memories of one block at every token, and measure the effect on the prediction.

    The memories, `k` per image of class c; c' is another class, drawn at random for each image:

    | `memories` | |
    |---|---|
    | `aligned` | the value vectors with the largest logits for c, as in key-value agreement |
    | `aligned_other` | those with the largest logits for c' |
    | `contribution` | those that contributed most to c in this image: largest `sum_t m_i(t) v_i · E_c` |
    | `contribution_other` | those that contributed most to c' in this image |
    | `random` | for each of `aligned`, a random one whose value vector has about the same norm |

    The effect is the value after the intervention minus the value before. `against` names the memories whose effect on
    the same images is subtracted from that of `memories`, and is missing where nothing is subtracted:

    | `metric` | value |
    |---|---|
    | `label_logit`, `other_logit` | the logit of c, of c' |
    | `label_margin` | the logit of c minus the largest other one |
    | `accuracy`, `says_other` | percent of images classified as c, as c' |

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
        """Configure the analysis.

        Args:
            sublayer: The sub-layer of the memories: `mlp` or `attn`.
            layers: Indices of blocks, edited one at a time; all by default.
            ks: Numbers of memories per image.
            interventions: Any of `"zero"`, `"mean"`, and factors such as 3.0.
            means: What `"mean"` sets coefficients to: `MemoryMeans(sublayer).means()` after a sweep.
            layer_scale: As for `value_vectors`, only for the choice of memories.
            resampling: Bootstrap intervals and permutation tests.
            seed: Seed of the other classes and of the random memories.

        Raises:
            ValueError: If an argument is invalid.
        """
        super().__init__()
        check_sublayer(sublayer)
        if not len(ks) or min(ks) < 1 or not len(interventions):
            raise ValueError(f"expected ks from 1 on and interventions, got {list(ks)} and {list(interventions)}")
        self.names_of_interventions = [intervention_name(intervention) for intervention in interventions]
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
        """Block inputs and coefficients."""
        self._store.clear()  # a new pass begins, perhaps with other weights
        for layer in self.layers or ():
            block_index(cfg, layer)
        layers = self._layers(cfg.n_layers)
        return [
            *(f"blocks.{layer}.hook_resid_pre" for layer in layers),
            *coefficient_names(cfg, self.sublayer, "post", layers),
        ]

    def _layers(self, n_layers: int) -> list[int]:
        layers: Sequence[int] = range(n_layers) if self.layers is None else self.layers
        return [layer % n_layers for layer in layers]

    @torch.no_grad()
    def update(self, batch: AnalysisBatch) -> None:
        """Run a batch again for each block, intervention, k and choice."""
        cfg = batch.model.cfg
        total = n_memories(cfg, self.sublayer)
        draws = ChoiceDraws.of_images(batch.index, batch.labels, cfg.n_classes, cfg.n_layers, total, self.seed)
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
        """The outcomes for each k and choice, several of them in one forward pass."""
        residual = batch.cache[f"blocks.{layer}.hook_resid_pre"]
        # beyond the k-th memory, the first is repeated, which counts once
        position = torch.arange(choices.shape[-1], device=choices.device)
        cells = torch.cat([torch.where(position < k, choices, choices[..., :1]) for k in self.ks])
        means = None if intervention != "mean" or self.means is None else self.means[layer]
        factor = 0.0 if isinstance(intervention, str) else intervention
        at_once = IMAGES_ON_CPU if residual.device.type == "cpu" else IMAGES_ON_GPU
        after, size = [], None if batch.images is None else (batch.images.shape[2], batch.images.shape[3])
        for part in cells.split(max(1, at_once // len(residual))):
            hooks = edit_memories(batch.model, layer, part.flatten(0, 1), self.sublayer, factor=factor, means=means)
            repeated = repeat(residual, "batch ... -> (cell batch) ...", cell=len(part))
            with batch.model.hooks(fwd_hooks=hooks):
                logits = batch.model(repeated, start_at_layer=layer, image_size=size)
            after += [
                _outcomes(cell_logits, batch.labels, other) for cell_logits in logits.unflatten(0, (len(part), -1))
            ]
        return torch.stack(after)

    def compute(self) -> pd.DataFrame:
        """One row per block, intervention, k, choice of memories (or comparison of two choices) and metric.

        Raises:
            ValueError: If no image was seen.
        """
        (effect,) = self.by_image("effect")
        effect = effect.astype(np.float64)
        layers, stream = self._layers(int(self.n_layers)), f"{self.sublayer}_out"
        shape = (len(layers), len(self.interventions), len(self.ks), len(_CHOICES), len(_METRICS))
        by_choice = np.moveaxis(effect.reshape(-1, *shape), 4, 0)  # [choice image layer intervention k metric]
        rows = pd.DataFrame(
            [
                {"layer": layer, "stream": stream, "intervention": name, "k": int(k), "metric": metric}
                for layer, name, k, metric in product(layers, self.names_of_interventions, self.ks, _METRICS)
            ]
        )
        effects = {choice: values.reshape(len(effect), -1) for choice, values in zip(_CHOICES, by_choice, strict=True)}
        tables = []
        for choice, values in effects.items():
            interval = self.resampling.interval(values)
            numbers: dict[str, Any] = {"value": interval.estimate, "low": interval.low, "high": interval.high}
            tables.append(rows.assign(memories=choice, **numbers, n_images=len(values)))
        for choice, against in _COMPARISONS:
            compared = difference_rows(effects[choice], effects[against], rows, self.resampling, paired=True)
            tables.append(compared.assign(memories=choice, against=against))
        return pd.concat([table for table in tables if len(table)], ignore_index=True).reindex(columns=_COLUMNS)


def _outcomes(
    logits: Float[Tensor, "batch n_classes"], labels: Int[Tensor, "batch"], other: Int[Tensor, "batch"]
) -> Float[Tensor, "batch metric"]:
    """The values of `_METRICS`, in their order."""
    label_logit, other_logit = (logits.gather(1, classes[:, None])[:, 0] for classes in (labels, other))
    largest_other = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=-1)
    prediction = logits.argmax(dim=-1)
    accuracy, says_other = (100.0 * (prediction == classes) for classes in (labels, other))
    return torch.stack([label_logit, label_logit - largest_other, accuracy, other_logit, says_other], dim=-1)

"""Ablation study over a dataset: the effect of removing each head and each MLP, one at a time."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.patching.plan import PatchPlan, PatchStream, plan_patches
from analyses.patching.runs import patched_runs, rows_within
from analyses.projection import class_ranks
from analyses.statistics.intervals import Resampling
from hooked_vit import HookedViT, HookedViTConfig
from hooked_vit.resuming import check_unhooked, resumable, resume_stream

__all__ = ["AblationStudy"]

_METRICS = ("accuracy", "label_logit", "identifiability")
_COLUMNS = [
    "layer", "component", "head", "metric", "class_index", "before", "after", "value", "low", "high", "n_images",
]  # fmt: skip


class AblationStudy(Analysis):
    """Ablate every head and every MLP, one at a time; measure accuracy, the patches' ranks, and each class's accuracy.

    A head is ablated at its `z`, an MLP at what it adds to the stream. By default they are replaced by their mean over
    images at each token position: the images of `means`, or else those of the batch. Without `means`, batches of fewer
    than `min_images` are not counted, since a mean over few images is close to each of them.

    `compute` has one row per layer, component (`head`, `mlp`) and metric, with `before`, `after` and `value`, their
    difference; `low` and `high` are its bootstrap interval over images:

    | metric | before, after |
    |---|---|
    | `accuracy` | percent of images |
    | `label_logit` | the correct class's logit, mean over images |
    | `identifiability` | of patch tokens in the last stream, `1 - rank / n_classes`, 0 to 1, mean |

    and one row per `class_index` for accuracy, without an interval; in all other rows `class_index` is missing.

    Each head and MLP costs one run from its layer on.

    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), AblationStudy(min_images=2)
    >>> names = analysis.names(model.cfg)
    >>> logits, cache = model.run_with_cache(torch.randn(2, 3, 64, 64), names_filter=names)
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2)))
    >>> analysis.compute().query("metric == 'identifiability'")["component"].value_counts().to_dict()
    {'head': 32, 'mlp': 8}
    """

    index: list[Tensor]  # [image]
    labels: list[Tensor]  # [image]
    outcomes: list[Tensor]  # [image run metric]: unablated, then layer by layer the heads and the MLP
    n_layers: Tensor
    n_heads: Tensor

    def __init__(
        self,
        method: Literal["mean", "zero"] = "mean",
        means: Mapping[str, Tensor] | None = None,
        min_images: int = 8,
        memory_limit: float | int | None = None,
        resampling: Resampling = Resampling(),
    ):
        """Configure the analysis.

        Args:
            method: What replaces a component's output: its mean over images, or zero.
            means: `mean_activations(model, batches, ["z", "mlp_out"])` of similar images.
            min_images: The smallest batch that a mean is taken of, without `means`.
            memory_limit: Bytes that the ablated runs may take at a time.
            resampling: Bootstrap intervals.

        Raises:
            ValueError: If there is no such method.
        """
        super().__init__()
        if method not in ("mean", "zero"):
            raise ValueError(f"expected method 'mean' or 'zero', got {method!r}")
        self.method, self.means, self.min_images, self.memory_limit = method, means, min_images, memory_limit
        self.resampling = resampling
        for name in ("index", "labels", "outcomes"):
            self.add_state(name, [], dist_reduce_fx="cat")
        for name in ("n_layers", "n_heads"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="max")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The outputs of heads and MLPs, the stream that they read, and the last one."""
        needed = resumable(cfg)
        streams = ["resid_pre", *dict.fromkeys(("z", *needed["z"], *needed["mlp_out"], "mlp_out"))]
        points = ["attn.hook_z" if stream == "z" else f"hook_{stream}" for stream in dict.fromkeys(streams)]
        names = [f"blocks.{layer}.{point}" for layer in range(cfg.n_layers) for point in points]
        return [*names, f"blocks.{cfg.n_layers - 1}.hook_resid_post"]

    @torch.no_grad()
    def update(self, batch: AnalysisBatch) -> None:
        """Run a batch again, from the layer on, for each head and MLP."""
        model, n_images = batch.model, len(batch.labels)
        if self.method == "mean" and self.means is None and n_images < self.min_images:
            return
        check_unhooked(model)
        unablated = _outcomes(model, batch.cache["resid_post", -1], batch.labels)
        runs = [unablated[None]]
        n_tokens = batch.cache["resid_pre", 0].shape[1]
        streams: tuple[PatchStream, PatchStream] = ("z", "mlp_out")
        plans = [plan_patches(model.cfg, stream, n_tokens, n_images, groups={"all": "any"}) for stream in streams]
        n_rows = rows_within(model, "z", n_tokens, self.memory_limit)
        for layer in range(model.cfg.n_layers):
            for plan in plans:
                runs += self._ablated(batch, plan, layer, unablated, n_rows)
        self.n_layers = torch.tensor(model.cfg.n_layers, device=self.device)
        self.n_heads = torch.tensor(model.cfg.n_heads, device=self.device)
        self.index.append(batch.index.to(self.device))
        self.labels.append(batch.labels.to(self.device))
        self.outcomes.append(torch.cat(runs).transpose(0, 1).to(self.device, torch.float32))

    def _ablated(
        self, batch: AnalysisBatch, plan: PatchPlan, layer: int, unablated: Tensor, n_rows: int
    ) -> list[Tensor]:
        cache = batch.cache
        value = cache[plan.stream, layer]
        name = batch.model.hook_names((plan.stream, layer))[0]
        context = {kept: cache[kept, layer] for kept in resumable(batch.model.cfg)[plan.stream]}
        context["labels"] = batch.labels

        def finish(ablated: Tensor, given: Mapping[str, Tensor]) -> Tensor:
            size = None if batch.images is None else (batch.images.shape[2], batch.images.shape[3])
            stream = resume_stream(batch.model, plan.stream, layer, ablated, given, image_size=size)
            return _outcomes(batch.model, stream, given["labels"].expand(len(stream)))

        return list(patched_runs(plan, value, self._replacement(name, value), context, finish, unablated, n_rows))

    def _replacement(self, name: str, value: Tensor) -> Tensor:
        if self.method == "zero":
            return torch.zeros_like(value)
        if self.means is None:
            return value.mean(dim=0, keepdim=True)
        if name not in self.means or self.means[name].shape != value.shape[1:]:
            raise ValueError(
                f"means must hold '{name}' of shape {tuple(value.shape[1:])}: make them with "
                "mean_activations(model, batches, ['z', 'mlp_out'])"
            )
        return self.means[name].to(value)[None]

    def compute(self) -> pd.DataFrame:
        """One row per layer, component and metric, and one per layer, component and class.

        Raises:
            ValueError: If no image was counted.
        """
        if not len(self.index):
            raise ValueError(
                f"no image was counted: give update batches of at least {self.min_images} images, or pass means to "
                "AblationStudy"
            )
        labels, outcomes = self.by_image("labels", "outcomes")
        outcomes = outcomes.astype(np.float64)
        n_layers, n_heads = int(self.n_layers), int(self.n_heads)
        components = pd.DataFrame(
            [
                {"layer": layer, "component": "mlp" if head == n_heads else "head", "head": head}
                for layer in range(n_layers)
                for head in range(n_heads + 1)
            ]
        )
        components["head"] = components["head"].where(components["component"] == "head").astype("Int64")
        before, after = outcomes[:, :1], outcomes[:, 1:]
        interval = self.resampling.interval(after - before)
        tables = []
        for i, metric in enumerate(_METRICS):
            numbers: dict[str, Any] = {
                "before": before[..., i].mean(), "after": after[..., i].mean(axis=0),
                "value": interval.estimate[:, i], "low": interval.low[:, i], "high": interval.high[:, i],
            }  # fmt: skip
            tables.append(components.assign(metric=metric, n_images=len(labels), **numbers))
        for label in np.unique(labels):
            members = labels == label
            accuracies = {"before": before[members, :, 0].mean(), "after": after[members, :, 0].mean(axis=0)}
            rows = components.assign(metric="accuracy", class_index=label, n_images=int(members.sum()), **accuracies)
            tables.append(rows.assign(value=rows["after"] - rows["before"]))
        return pd.concat(tables, ignore_index=True).reindex(columns=_COLUMNS).astype({"class_index": "Int64"})


def _outcomes(model: HookedViT, stream: Tensor, labels: Tensor) -> Tensor:
    """Accuracy in percent, the label's logit and identifiability, from a last residual stream: [image metric]."""
    logits = model(stream, start_at_layer=model.cfg.n_layers)
    accuracy = 100.0 * (logits.argmax(dim=-1) == labels)
    patches = stream[:, model.cfg.token_layout.n_prefix :]
    ranks = class_ranks(model.class_logits(patches), labels[:, None].expand(patches.shape[:2]))
    identifiable = 1 - ranks.to(logits.dtype).mean(dim=-1) / model.cfg.n_classes
    return torch.stack([accuracy.to(logits.dtype), logits.gather(-1, labels[:, None])[:, 0], identifiable], dim=-1)

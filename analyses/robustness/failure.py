"""Which quantities predict the model's errors: AUROC of each, against that of the softmax confidence."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.robustness.named import InputPerturbation
from analyses.robustness.over_dataset import checked_perturbations, perturbed_images
from analyses.robustness.quantities import BASELINE, BLOCK_QUANTITIES, failure_names, failure_quantities
from analyses.statistics.intervals import Resampling
from analyses.statistics.roc import bootstrap_auroc
from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache

__all__ = ["FailurePrediction", "predict_failure"]

_COLUMNS = [
    "condition", "quantity", "layer", "auroc", "low", "high", "value", "value_low", "value_high", "n_images", "n_wrong",
]  # fmt: skip


def predict_failure(
    quantities: Mapping[str, Float[np.ndarray, "image"]],
    correct: Bool[np.ndarray, "image"],
    baseline: str = BASELINE,
    resampling: Resampling = Resampling(),
) -> pd.DataFrame:
    """How well each quantity tells the images that are classified correctly from the others.

    Args:
        quantities: One number per image for each quantity, which should be larger where the answer is right.
        correct: Whether the answer is right.
        baseline: The quantity that the others are compared with.
        resampling: The bootstrap over images.

    Returns:
        A row for each quantity: `auroc`, the probability that the quantity of a right answer is above that of a wrong
        one, with `low` and `high`; and `value`, its difference from that of the baseline, with the interval
        `value_low`, `value_high` on the same resamples. Without a right or a wrong answer all are NaN.

    Raises:
        ValueError: If the baseline is not among the quantities, or their numbers differ.

    >>> scores = {"confidence": np.array([0.9, 0.6, 0.7, 0.5]), "margin": np.array([3.0, 2.5, 1.0, 0.5])}
    >>> table = predict_failure(scores, np.array([True, True, False, False]), resampling=Resampling(99))
    >>> table[["quantity", "auroc", "value"]].values.tolist()
    [['confidence', 0.75, 0.0], ['margin', 1.0, 0.25]]
    """
    if baseline not in quantities:
        raise ValueError(f"expected the baseline '{baseline}' among the quantities {', '.join(quantities)}")
    wrong_length = [name for name, values in quantities.items() if len(values) != len(correct)]
    if wrong_length:
        raise ValueError(
            f"expected a number of '{wrong_length[0]}' for each of {len(correct)} images, got "
            f"{len(quantities[wrong_length[0]])}"
        )
    scores = np.stack([np.asarray(values, dtype=np.float64) for values in quantities.values()], axis=1)
    found = bootstrap_auroc(scores, correct, list(quantities).index(baseline), resampling)
    return pd.DataFrame(
        {
            "quantity": list(quantities),
            "auroc": found.auroc.estimate,
            "low": found.auroc.low,
            "high": found.auroc.high,
            "value": found.difference.estimate,
            "value_low": found.difference.low,
            "value_high": found.difference.high,
            "n_images": len(correct),
            "n_wrong": int((~correct).sum()),
        }
    )


class FailurePrediction(Analysis):
    """Whether class space predicts the model's errors better than its confidence, on clean and perturbed images.

    `compute` returns a row for each `condition` (`clean`, and each perturbation), `quantity` and block: those of
    `failure_quantities`, and without a block `confidence`, the largest probability of the output. The columns are those
    of `predict_failure`: `auroc`, and `value`, its difference from that of `confidence` on the same images, both with
    bootstrap intervals over images. 0.5 is chance. The control is the same for the model freshly initialised.

    >>> from analyses.robustness import Occlusion
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), FailurePrediction({"hidden": Occlusion(0.5)})
    >>> images = torch.randn(2, 3, 64, 64)
    >>> logits, cache = model.run_with_cache(images, names_filter=analysis.names(model.cfg))
    >>> labels = torch.tensor([int(logits[0].argmax()), int(logits[1].argmin())])
    >>> analysis.update(AnalysisBatch(model, cache, logits, labels, torch.arange(2), images=images))
    >>> analysis.compute().groupby("condition").size().to_dict()  # 3 quantities of 8 blocks, and the confidence
    {'clean': 25, 'hidden': 25}
    """

    index: list[Tensor]  # [image]
    correct: list[Tensor]  # [image condition]
    confidence: list[Tensor]  # [image condition]
    quantities: list[Tensor]  # [image condition quantity layer]

    def __init__(
        self,
        perturbations: Mapping[str, InputPerturbation] | None = None,
        resampling: Resampling = Resampling(),
    ):
        """Configure the analysis.

        Args:
            perturbations: As for `Robustness`.
            resampling: The bootstrap over images.

        Raises:
            ValueError: As `Robustness`, or if a perturbation is called `clean`.
        """
        super().__init__()
        self.perturbations, self.resampling = checked_perturbations(perturbations), resampling
        if "clean" in self.perturbations:
            raise ValueError("'clean' names the unperturbed images: give the perturbation another name")
        for name in ("index", "correct", "confidence", "quantities"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The stream that leaves every block."""
        return failure_names(cfg)

    def passes(self, cfg: HookedViTConfig) -> float:
        """One for each perturbation, and what it takes itself."""
        return sum(1 + getattr(found, "passes", 0.0) for found in self.perturbations.values())

    def update(self, batch: AnalysisBatch) -> None:
        """Run the batch again with each perturbation."""
        model = batch.model
        found = [self._measured(model, batch.cache, batch.logits, batch.labels)]
        for name, perturb in self.perturbations.items():
            images = perturbed_images(batch, name, perturb)
            logits, cache = model.run_with_cache(images, names_filter=self.names(model.cfg))
            found.append(self._measured(model, cache, logits, batch.labels))
            batch.passed(1 + getattr(perturb, "passes", 0.0))
        self.index.append(batch.index.to(self.device))
        states = (self.correct, self.confidence, self.quantities)
        for state, values in zip(states, zip(*found, strict=True), strict=True):
            state.append(torch.stack(values, dim=1).to(self.device))

    @staticmethod
    def _measured(
        model: HookedViT, cache: ViTActivationCache, logits: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = failure_quantities(model, cache, logits)
        quantities = torch.stack([found[name].T for name in BLOCK_QUANTITIES], dim=1)
        # in float64, where probabilities near 1 still differ
        confidence = logits.double().softmax(dim=-1).amax(dim=-1)
        return logits.argmax(dim=-1) == labels, confidence, quantities

    def compute(self) -> pd.DataFrame:
        """One row for each condition, quantity and block.

        Raises:
            ValueError: If no image was seen.
        """
        correct, confidence, quantities = self.by_image("correct", "confidence", "quantities")
        places = [(name, layer) for name in BLOCK_QUANTITIES for layer in range(quantities.shape[3])]
        tables = []
        for at, condition in enumerate(("clean", *self.perturbations)):
            numbers = quantities[:, at].reshape(len(correct), -1).T
            scores = {f"{name} {layer}": values for (name, layer), values in zip(places, numbers, strict=True)}
            table = predict_failure({BASELINE: confidence[:, at], **scores}, correct[:, at], BASELINE, self.resampling)
            names = [(BASELINE, pd.NA), *places]
            table["quantity"] = [name for name, _ in names]
            table["layer"] = pd.array([layer for _, layer in names], dtype="Int64")
            tables.append(table.assign(condition=condition))
        return pd.concat(tables, ignore_index=True).reindex(columns=_COLUMNS)

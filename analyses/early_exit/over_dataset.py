"""Early exit over a dataset: accuracy against mean depth, calibrated on one part of the images, tested on the other."""

from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.early_exit.curves import exit_curve
from analyses.early_exit.readouts import ClassSpaceReadout, ProbeReadout, Readout
from analyses.early_exit.rules import ExitMeasure, agreement, calibrate, candidates, exit_layers, fewest_images, margin
from analyses.projection import Lens, stream_names
from analyses.statistics.intervals import Resampling
from hooked_vit import HookedViTConfig

__all__ = ["EarlyExit"]

_MEASURES: tuple[ExitMeasure, ...] = ("margin", "agreement")
_COLUMNS = ["readout", "measure", "point", "threshold", "depth", "metric", "value", "low", "high", "n_images"]


class EarlyExit(Analysis):
    """What early exit costs in accuracy and saves in depth, over a dataset.

    Depth is the mean number of blocks that an image passes. The images are divided at random: thresholds come from one
    part, and all numbers are measured on the other. `compute` has one row per `readout` (`class_space`, the model's
    own head on the stream; `tuned_lens` and `probe`, if they are given), `measure` (`margin`, `agreement`, or
    `fixed`: all images leave after the same block), `point` and `metric`:

    - `point` `curve`: `metric` `accuracy`, in percent, at each `threshold`, with its `depth`. The last threshold of
      margins is infinite: no image leaves before the last block.
    - `point` `calibrated`: `accuracy`, `accuracy_change` (minus that of the whole model, on the same images) and
      `depth` at the lowest threshold that costs at most `tolerance` points of accuracy on the calibration images. On
      the others expect it to cost more. Left out if a single calibration image is more than `tolerance` points: for the
      default of one point, if they are fewer than 100.
    - `point` `area`: `accuracy`, the mean of the curve over depth from 1 to all blocks.

    Intervals are bootstrap intervals over images; thresholds are not drawn again. The control is the same for the model
    freshly initialised.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), EarlyExit()
    >>> logits, cache = model.run_with_cache(torch.zeros(4, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.arange(4), torch.arange(4)))
    >>> table = analysis.compute()
    >>> table["measure"].unique().tolist(), table["point"].unique().tolist()
    (['fixed', 'margin', 'agreement'], ['curve', 'area'])
    """

    lens_tokens: ClassVar[Literal["all", "read"]] = "read"
    index: list[Tensor]
    confidence: list[Tensor]  # [image readout measure layer]
    correct: list[Tensor]  # [image readout layer]

    def __init__(
        self,
        lens: Lens | None = None,
        probes: ProbeReadout | None = None,
        calibration: float = 0.5,
        tolerance: float | int = 1.0,
        seed: int = 0,
        resampling: Resampling = Resampling(),
    ):
        """Configure the analysis.

        Args:
            lens: A tuned lens as a rival readout, best `fit_tuned_lens(model, images, tokens="read")`.
            probes: Linear probes as a rival readout, `fit_exit_probes(model, images)`.
            calibration: The share of the images that thresholds are chosen on.
            tolerance: How many points of accuracy the calibrated threshold may cost on those; on others, expect more.
            seed: Which images those are.
            resampling: The bootstrap intervals.

        Raises:
            ValueError: If `calibration` is not between 0 and 1, or `tolerance` not from 0 to 100.
        """
        super().__init__()
        if not 0 < calibration < 1:
            raise ValueError(f"calibration is a share of the images, between 0 and 1, got {calibration}")
        if not 0 <= tolerance <= 100:
            raise ValueError(f"the tolerance is in percentage points of accuracy, from 0 to 100, got {tolerance}")
        self.lens, self.probes, self.calibration, self.tolerance = lens, probes, calibration, tolerance
        self.seed, self.resampling = seed, resampling
        for name in ("index", "confidence", "correct"):
            self.add_state(name, [], dist_reduce_fx="cat")

    @property
    def readouts(self) -> dict[str, Readout]:
        """The readouts by name."""
        found: dict[str, Readout] = {"class_space": ClassSpaceReadout()}
        found |= {} if self.lens is None else {"tuned_lens": ClassSpaceReadout(self.lens)}
        return found | ({} if self.probes is None else {"probe": self.probes})

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The stream that leaves each block."""
        return stream_names(cfg, "resid_post")

    def update(self, batch: AnalysisBatch) -> None:
        """Read out every block of a batch."""
        model, last = batch.model, batch.model.cfg.n_layers - 1
        confidence, correct = [], []
        for readout in self.readouts.values():
            readout.check(model)
            margins, tops = [], []
            for layer in range(last):
                class_logits = readout.class_logits(model, batch.cache["resid_post", layer], layer)
                margins.append(margin(class_logits))
                tops.append(class_logits.argmax(dim=-1))
            margins.append(margin(batch.logits))
            tops.append(batch.logits.argmax(dim=-1))
            top = torch.stack(tops)
            confidence.append(torch.stack([torch.stack(margins).float(), agreement(top).float()]))
            correct.append(top == batch.labels)
        self.index.append(batch.index.to(self.device))
        self.confidence.append(torch.stack(confidence).movedim(-1, 0).to(self.device))
        self.correct.append(torch.stack(correct).movedim(-1, 0).to(self.device))

    def compute(self) -> pd.DataFrame:
        """One row per readout, measure, point and metric.

        Raises:
            ValueError: If no image was seen, or a single one, which cannot be divided.
        """
        confidence, correct = self.by_image("confidence", "correct")
        n = len(correct)
        if n < 2:
            raise ValueError("early exit is calibrated on some images and tested on others: expected at least 2, got 1")
        order = np.random.default_rng(self.seed).permutation(n)
        n_calibration = min(max(1, round(self.calibration * n)), n - 1)
        chosen, tested = np.sort(order[:n_calibration]), np.sort(order[n_calibration:])
        rows: list[dict[str, Any]] = []
        for r, readout in enumerate(self.readouts):
            right = torch.from_numpy(correct[:, r].T)
            rows += self._fixed(readout, right[:, tested])
            for m, measure in enumerate(_MEASURES):
                values = torch.from_numpy(confidence[:, r, m].T)
                key = {"readout": readout, "measure": measure}
                thresholds = candidates(measure, values[:, chosen])
                curve = exit_curve(values[:, tested], right[:, tested], thresholds, self.resampling)
                rows += [{**key, **row} for row in curve]
                if n_calibration >= fewest_images(self.tolerance):
                    threshold = calibrate(values[:, chosen], right[:, chosen], measure, tolerance=float(self.tolerance))
                    rows += [{**key, **row} for row in self._calibrated(values[:, tested], right[:, tested], threshold)]
        return pd.DataFrame(rows).assign(n_images=len(tested)).reindex(columns=_COLUMNS)

    def _fixed(self, readout: str, correct: Tensor) -> list[dict[str, Any]]:
        n_layers = len(correct)
        thresholds = torch.arange(1, n_layers + 1, dtype=torch.float64)
        depth = thresholds[:, None].expand(-1, correct.shape[1])
        rows = exit_curve(depth, correct, thresholds, self.resampling)
        return [{"readout": readout, "measure": "fixed", **row, "threshold": np.nan} for row in rows]

    def _calibrated(self, confidence: Tensor, correct: Tensor, threshold: float) -> list[dict[str, Any]]:
        left = exit_layers(confidence, threshold)
        right = correct.gather(0, left[None])[0].double().numpy()
        depth = left.double().numpy() + 1
        numbers = {
            "accuracy": 100 * right,
            "accuracy_change": 100 * (right - correct[-1].double().numpy()),
            "depth": depth,
        }
        rows = []
        for metric, values in numbers.items():
            interval = self.resampling.interval(values)
            shown = {"value": interval.estimate, "low": interval.low, "high": interval.high}
            key = {"point": "calibrated", "threshold": threshold, "depth": depth.mean(), "metric": metric}
            rows.append({**key, **{name: float(number) for name, number in shown.items()}})
        return rows

"""What a study will cost, measured on a few of its images before it starts."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from analyses.analysis.base import Analysis
from analyses.data.dataset import LabelledImages
from analyses.sweep.run import sweep
from hooked_vit import HookedViT

__all__ = ["Cost", "measure_cost"]


@dataclass(frozen=True)
class Cost:
    """The expected cost of a study.

    Attributes:
        n_images: Images of the dataset.
        seconds: Expected time, null control included.
        peak_bytes: The most memory that this process had used when the measurement ended; 0 where the system does not
            report it. A study needs about as much.
    """

    n_images: int
    seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        memory = f", {self.peak_bytes / 1e9:.1f} GB of memory" if self.peak_bytes else ""
        return f"{self.n_images:,} images, about {duration(self.seconds)}{memory}"


def duration(seconds: float | int) -> str:
    """A time in words, to two digits.

    >>> duration(7), duration(340), duration(9300)
    ('7 s', '6 min', '2.6 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def measure_cost(
    model: HookedViT,
    dataset: LabelledImages,
    sweeps: Sequence[Sequence[Analysis]],
    batch_size: int,
) -> Cost:
    """Time one batch of each sweep of a study, and scale it to the dataset.

    Args:
        model: The model.
        dataset: The dataset.
        sweeps: The analyses of each sweep. Their state is lost.
        batch_size: Images per forward pass.

    Raises:
        ValueError: If the dataset is empty, or none of the first images can be read.
    """
    n_images = len(dataset)
    limit = min(n_images, batch_size)
    seconds = 0.0
    for analyses in sweeps:
        start = time.perf_counter()
        sweep(model, dataset, analyses, batch_size, limit=limit, progress=False)
        seconds += time.perf_counter() - start
    return Cost(n_images, seconds * n_images / max(limit, 1), _peak_bytes())


def _peak_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak

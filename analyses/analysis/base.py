"""The base of every dataset-level analysis: the hook points it reads, a state that adds up over batches, a table."""

import re
from abc import abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from analyses.data.dataset import LabelledImages
from analyses.projection import Lens, Projection, Stream, project
from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache

__all__ = ["Analysis", "AnalysisBatch", "Fitted", "analysis_name", "snake_case"]

_Result = TypeVar("_Result")


def snake_case(class_name: str) -> str:
    """A class's name in snake case.

    >>> snake_case("CategoricalUpdates")
    'categorical_updates'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()


def analysis_name(analysis: type) -> str:
    """The name of an analysis: that of its class in snake case. Tables, records and the catalogue use it.

    A module path would change whenever a file moves, and finished sweeps would no longer be recognised.
    """
    return snake_case(analysis.__name__)


def _nobody_counts(passes: float | int) -> None:
    pass


@dataclass(frozen=True)
class AnalysisBatch:
    """One batch of a dataset after its forward pass: the input of an analysis.

    `index` is each image's index in the dataset; `object_mask` is True on the object's pixels, `None` where the
    dataset has no masks; `images` are the preprocessed pixels, which a sweep provides. The cache holds the hook points
    that the analyses of the sweep name, and no others. An analysis whose `passes` is not zero calls `passed` with the
    number of passes per image that it has done since, for the progress bar.
    """

    model: HookedViT
    cache: ViTActivationCache
    logits: Float[Tensor, "batch n_classes"]
    labels: Int[Tensor, "batch"]
    index: Int[Tensor, "batch"]
    object_mask: Bool[Tensor, "batch height width"] | None = None
    images: Float[Tensor, "batch channel height width"] | None = None
    passed: Callable[[float], None] = field(default=_nobody_counts, repr=False, compare=False)
    _computed: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: Hashable, compute: Callable[[], _Result]) -> _Result:
        """The result of `compute`, computed once for all analyses that ask for it under this key."""
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    def projection(
        self,
        stream: Stream,
        layers: tuple[int, ...] | None = None,
        *,
        sublayer_norm: bool = False,
        lens: Lens | None = None,
    ) -> Projection:
        """The labels' ranks and logits in a stream, and its top class: `project`, done once for all analyses.

        Needs the hook points of `stream_names(cfg, stream, layers)`. Analyses that pass one lens share its projection.
        """
        options: dict[str, Any] = {"layers": layers, "sublayer_norm": sublayer_norm, "lens": lens}
        # by id: not every lens can be hashed. It is kept, so that its id is not given to another one
        self.once(("lens", id(lens)), lambda: lens)
        return self.once(
            ("projection", stream, layers, sublayer_norm, id(lens)),
            lambda: project(self.model, self.cache, stream, self.labels, k=1, **options),
        )


@runtime_checkable
class Fitted(Protocol):
    """What was fitted to a model and to images, such as a `TunedLens`: a sweep needs that model and other images."""

    def check_sweep(self, model: HookedViT, dataset: LabelledImages, tokens: Literal["all", "read"]) -> None:
        """Raise a `ValueError` if it was fitted to another model, to these images, or to fewer tokens."""
        ...


class Analysis(Metric):
    """A question asked of a whole dataset, one batch after another.

    States are added with torchmetrics' `add_state` and reduced by `"sum"` (or `"cat"` for one small row per image), so
    that shards merge exactly and processes synchronise. No state may hold tokens or classes of every image.
    """

    full_state_update = False
    lens_tokens: ClassVar[Literal["all", "read"]] = "all"
    """Which tokens it projects through a lens: all kinds, or those alone that the head reads."""

    def before_sweep(self, model: HookedViT, dataset: LabelledImages) -> None:
        """Check that what the analysis was given was fitted to this model and to other images; prepare what it needs.

        Every process of a sweep calls this first, and again when the sweep is resumed: what it prepares must depend on
        the model and the dataset alone.

        Raises:
            ValueError: If something was fitted to another model, or to these images.
        """
        for given in vars(self).values():
            if isinstance(given, Fitted):
                given.check_sweep(model, dataset, self.lens_tokens)

    @abstractmethod
    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The hook points that `update` reads from the batch's cache."""

    def passes(self, cfg: HookedViTConfig) -> float:
        """About how many forward passes `update` takes per image, besides the one that all analyses share."""
        return 0.0

    @abstractmethod
    def update(self, batch: AnalysisBatch) -> None:
        """Add one batch."""

    def by_image(self, *names: str) -> tuple[np.ndarray, ...]:
        """States of one row per image, as arrays in the order of the dataset, whatever the order of the shards.

        Needs a state `index`, each image's index in the dataset.

        Raises:
            ValueError: If no image was seen.
        """
        index: Any = self.index
        if not len(index):
            raise ValueError("no image was seen: give update a batch first")
        order = torch.argsort(dim_zero_cat(index), stable=True)
        return tuple(dim_zero_cat(getattr(self, name))[order].cpu().numpy() for name in names)

    @abstractmethod
    def compute(self) -> pd.DataFrame:
        """The result in tidy form: one observation per row, `layer` from 0, `token_type` in `cls`, `patch`."""

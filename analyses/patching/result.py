"""The result of a patching sweep: numbers with named axes, as an array, a tidy table, or on the patch grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from analyses.patching.plan import PatchPlan
from hooked_vit import HookedViT, TokenLayout

__all__ = ["Agreement", "Direction", "PatchResult", "agreement", "as_result", "check_direction"]

Direction = Literal["denoising", "noising"]


@dataclass(frozen=True)
class PatchResult:
    """A metric after each of many patches, made one at a time.

    Attributes:
        stream: The patched activation.
        direction: `denoising`: activations of the clean run copied into the corrupt one; `noising`: the reverse.
        axes: The names of the axes of `values`: `layer`, then `head` or `neuron`, then `token`, `query` or `group`,
            where the sweep has them; `image` last, if the metric was kept per image.
        labels: The labels along each axis, such as the indices of the tokens.
        values: The metric after each patch, in its own unit.
        base: The metric of the run that was patched, before patching: one number, or one per image.
        source: The metric of the run that patches came from.
        layout: The roles of the tokens: prefix tokens and the patch grid.
    """

    stream: str
    direction: Direction
    axes: tuple[str, ...]
    labels: Mapping[str, tuple[Any, ...]]
    values: Float[Tensor, "*axes"]
    base: Float[Tensor, "*image"]
    source: Float[Tensor, "*image"]
    layout: TokenLayout

    @property
    def effect(self) -> Float[Tensor, "*axes"]:
        """The change of the metric by each patch: `values - base`."""
        return self.values - self.base

    @property
    def recovered(self) -> Float[Tensor, "*axes"]:
        """`(values - base) / (source - base)`: 0 without an effect, 1 where a patch carries the whole difference."""
        return self.effect / (self.source - self.base)

    def at(self, **labels: Any) -> Float[Tensor, "*rest"]:
        """The values at given labels of some axes, such as `at(layer=3, head=1)`.

        Raises:
            ValueError: If there is no such axis or label.
        """
        return self.values[self.index(**labels)]

    def index(self, **labels: Any) -> tuple[Any, ...]:
        """The index into `values`, `effect` and `recovered` of given labels of some axes.

        Raises:
            ValueError: If there is no such axis or label.
        """
        for axis, label in labels.items():
            if axis not in self.axes:
                raise ValueError(f"expected axes out of {', '.join(self.axes)}, got '{axis}'")
            if label not in self.labels[axis]:
                known = ", ".join(map(str, self.labels[axis][:12]))
                raise ValueError(f"no {axis} {label!r} in this sweep: it has {known}")
        return tuple(self.labels[axis].index(labels[axis]) if axis in labels else slice(None) for axis in self.axes)

    def on_grid(
        self, what: Literal["values", "effect", "recovered"] = "recovered"
    ) -> Float[Tensor, "*axes row column"]:
        """The patches' numbers on the patch grid: the axis of tokens becomes `row` and `column`, at the end.

        Patches that the sweep left out are NaN.

        Raises:
            ValueError: If the sweep has no axis of tokens, or images larger than the model's own.
        """
        axis = next((name for name in ("token", "query") if name in self.axes), None)
        if axis is None:
            raise ValueError(f"only a sweep over tokens has a grid, and this one is over {', '.join(self.axes)}")
        numbers = getattr(self, what).movedim(self.axes.index(axis), -1)
        if max(self.labels[axis]) >= self.layout.n_tokens:
            raise ValueError(f"the grid has {self.layout.n_patches} patches, but the sweep is over more tokens")
        tokens = np.array(self.labels[axis])
        is_patch = tokens >= self.layout.n_prefix
        full = numbers.new_full((*numbers.shape[:-1], self.layout.n_patches), float("nan"))
        full[..., tokens[is_patch] - self.layout.n_prefix] = numbers[..., is_patch]
        return self.layout.to_grid(full)

    def table(self) -> pd.DataFrame:
        """One row per patch (and image): its labels, `value`, `effect` and `recovered`.

        Tokens also have a `token_type`, patch tokens a `row` and a `column`.
        """
        rows = list(product(*(self.labels[axis] for axis in self.axes)))
        table = pd.DataFrame(rows, columns=list(self.axes)).assign(stream=self.stream, direction=self.direction)
        token = next((name for name in ("token", "query") if name in table), None)
        if token is not None and max(self.labels[token]) < self.layout.n_tokens:
            types = np.array(self.layout.token_types)
            table["token_type"] = types[table[token].to_numpy()]
            patch = table[token] - self.layout.n_prefix
            width = self.layout.grid[1]
            for name, position in (("row", patch // width), ("column", patch % width)):
                table[name] = position.where(patch >= 0).astype("Int64")
        for name, numbers in (("value", self.values), ("effect", self.effect), ("recovered", self.recovered)):
            table[name] = numbers.flatten().cpu().double().numpy()
        return table


@dataclass(frozen=True)
class Agreement:
    """How well one sweep predicts another: correlations over patches and the mean absolute difference.

    Attributes:
        pearson: Correlation of the effects, -1 to 1.
        spearman: Correlation of their ranks.
        mean_absolute_difference: Mean absolute difference of the effects, in the metric's unit.
        n_patches: Number of patches.
    """

    pearson: float
    spearman: float
    mean_absolute_difference: float
    n_patches: int


def agreement(a: PatchResult, b: PatchResult) -> Agreement:
    """Compare the effects of two sweeps over the same patches, such as an approximate and an exact one.

    Raises:
        ValueError: If they are not over the same patches.
    """
    if (a.stream, a.direction, a.axes, dict(a.labels)) != (b.stream, b.direction, b.axes, dict(b.labels)):
        raise ValueError(
            f"expected two sweeps over the same patches, got '{a.stream}' ({a.direction}) over {', '.join(a.axes)} "
            f"{tuple(a.values.shape)} and '{b.stream}' ({b.direction}) over {', '.join(b.axes)} {tuple(b.values.shape)}"
        )
    x, y = (result.effect.flatten().cpu().double().numpy() for result in (a, b))
    constant = len(x) < 2 or not np.ptp(x) > 0 or not np.ptp(y) > 0
    pearson: Any = (float("nan"),) if constant else stats.pearsonr(x, y)
    spearman: Any = (float("nan"),) if constant else stats.spearmanr(x, y)
    return Agreement(float(pearson[0]), float(spearman[0]), float(np.abs(x - y).mean()), len(x))


def as_result(
    plan: PatchPlan, direction: Direction, model: HookedViT, values: Tensor, base: Tensor, source: Tensor
) -> PatchResult:
    """The result of a plan, from its values [layer cell] or [layer cell batch]: with named axes."""
    axes, labels = plan.axes, dict(plan.labels)
    if base.ndim:
        axes, labels["image"] = (*axes, "image"), tuple(range(len(base)))
    shape = tuple(len(labels[axis]) for axis in axes)
    return PatchResult(plan.stream, direction, axes, labels, values.reshape(shape), base, source, model.token_layout)


def check_direction(direction: str) -> None:
    """Raise ValueError if there is no such direction."""
    if direction not in ("denoising", "noising"):
        raise ValueError(f"expected direction 'denoising' or 'noising', got {direction!r}")

"""Over a dataset: how well a dictionary reconstructs, and what the model keeps when it is spliced in."""

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.data.dataset import LabelledImages
from analyses.dictionaries.dictionary import Dictionary
from analyses.dictionaries.images import image_batches
from analyses.dictionaries.loading import embedded_dictionaries, load_dictionary
from analyses.dictionaries.null import random_dictionary
from analyses.dictionaries.tokens import chosen_tokens, edit_written, per_token
from analyses.statistics.intervals import Interval, Resampling
from hooked_vit import HookedViT, HookedViTConfig

__all__ = ["DictionaryFidelity", "embedded_dictionary_for"]

Ablation = Literal["zero", "mean"]
_COLUMNS = ["layer", "point", "dictionary", "metric", "value", "low", "high", "n_images", "n_tokens"]
_NULL_IMAGES = 32
_SUMS = ("tokens", "error", "norm", "active")
_RUNS = ("loss", "accuracy")


def embedded_dictionary_for(width: int) -> str:
    """The name of the first embedded dictionary that reads activations of a width.

    Raises:
        ValueError: If there is none.
    """
    for name in embedded_dictionaries():
        if load_dictionary(name).config.d_in == width:
            return name
    known = ", ".join(embedded_dictionaries()) or "none"
    raise ValueError(
        f"no dictionary comes with the package for a model of width {width} (there are: {known}): train one with "
        "train_dictionary, and pass it"
    )


class DictionaryFidelity(Analysis):
    """How well a dictionary reconstructs activations, and how much of the model it keeps, over a dataset.

    `compute` has one row per `dictionary` (`given`; `random`, of random directions, with as many active latents
    and their best size) and `metric`:

    | metric | value |
    |---|---|
    | `explained_variance` | `1 - sum |x - x_hat|^2 / sum |x - mean(x)|^2`, over all tokens and dimensions |
    | `l0` | mean number of active latents of a token |
    | `dead_percent` | latents that were active at no token of the dataset |
    | `loss`, `accuracy` | of the model with the reconstruction instead of the activation (its error dropped), in nats and in percent; as `dictionary` also `plain`, the model as it is, and `ablated` |
    | `loss_recovered`, `accuracy_recovered` | `(ablated - spliced) / (ablated - plain)`; ablated: all of the dictionary's tokens set to zero, or to a given mean |

    `low` and `high` are bootstrap intervals over images (explained variance: with the variance of the whole dataset; none
    for `dead_percent`). How many latents are dead depends on the number of tokens, which is a column.

    Reconstructions of random directions have the wrong size, so one factor is fitted by least squares, to the first 32
    images of the dataset (without a sweep, to the first batch).

    >>> from analyses.dictionaries.dictionary import DictionaryConfig
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> point = "blocks.5.hook_resid_post"
    >>> config = DictionaryConfig("topk", 128, 128, 256, point, point, k=4)
    >>> analysis = DictionaryFidelity(random_dictionary(Dictionary(config)))
    >>> images = torch.randn(2, 3, 64, 64)
    >>> logits, cache = model.run_with_cache(images, names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2), images=images))
    >>> analysis.compute().query("metric == 'l0'")["value"].tolist()
    [4.0, 4.0]
    """  # noqa: E501

    index: list[Tensor]
    sums: list[Tensor]  # [image dictionary _SUMS]
    runs: list[Tensor]  # [image run _RUNS]: the spliced ones, plain, ablated
    centred: Any  # [d_out]
    fired: Any  # [dictionary d_dict]

    def __init__(
        self,
        dictionary: Dictionary | str | Path | None = None,
        ablation: Ablation = "zero",
        mean: Tensor | None = None,
        seed: int = 0,
        k: int | None = None,
        random: Dictionary | None = None,
        resampling: Resampling = Resampling(),
    ):
        """Configure the analysis.

        Args:
            dictionary: The dictionary, its file, or the name of an embedded one; by default the embedded one that fits
                the model.
            ablation: `zero`, or `mean`: what the activation is replaced by for the worst case.
            mean: For `mean`: of shape [d_out] or [token d_out], such as `mean_activations(model, batches, [point])`
                returns.
            seed: Seed of the random dictionary.
            k: Its number of active latents per token; by default the dictionary's k, or else the mean number at the
                end of its training, or else, where its record does not have it, over the first batch.
            random: The random dictionary itself, instead of a seed and k: `random_dictionary(dictionary,
                activations=...)`.
            resampling: The bootstrap intervals.

        Raises:
            ValueError: If the ablation is unknown, a mean is missing or superfluous, or the random dictionary is for
                other activations.
            FileNotFoundError: If there is no such file.
        """
        super().__init__()
        if ablation not in get_args(Ablation):
            raise ValueError(f"expected ablation 'zero' or 'mean', got {ablation!r}")
        if (ablation == "mean") != (mean is not None):
            raise ValueError(
                f"expected a mean with ablation='mean' only, got ablation={ablation!r} and "
                f"{'no mean' if mean is None else 'a mean'}: `mean_activations` of hooked_vit.interventions computes it"
            )
        given = load_dictionary(dictionary) if isinstance(dictionary, str | Path) else dictionary
        # in a list and with its config, so that a sweep's record tells dictionaries apart: a module would be registered
        # as a part of this one
        self.given, self.config = [given], None if given is None else given.config
        self.ablation, self.mean, self.seed, self.k, self.resampling = ablation, mean, seed, k, resampling
        self._default: Dictionary | None = None
        if random is not None and (given is None or random.config.point != given.config.point):
            of = "a dictionary that is passed, too" if given is None else f"{given.config.point!r}"
            raise ValueError(f"expected a random dictionary of {of}, got one of {random.config.point!r}")
        self.random, self._random = [random], random
        for name in ("index", "sums", "runs"):
            self.add_state(name, [], dist_reduce_fx="cat")
        for name in ("centred", "fired"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """What the dictionary reads and writes."""
        config = self._for_width(cfg.d_model).config
        return list(dict.fromkeys([config.reads, config.writes]))

    def passes(self, cfg: HookedViTConfig) -> float:
        """One run for each of the two dictionaries, and the ablated one."""
        return 3.0

    @torch.no_grad()
    def before_sweep(self, model: HookedViT, dataset: LabelledImages) -> None:
        """Fit the random dictionary to the first images."""
        super().before_sweep(model, dataset)
        given = self._for_width(model.cfg.d_model)
        given.check_fits(model)
        names = self.names(model.cfg)
        for batch in image_batches(model, dataset, names, limit=_NULL_IMAGES, progress=False, skip=True):
            x, y = (per_token(batch.cache[name]) for name in (given.config.reads, given.config.writes))
            chosen = chosen_tokens(model, given.config.tokens, y.shape[1])
            self._null(given.to(y.device), x[:, chosen], y[:, chosen])

    @torch.no_grad()
    def update(self, batch: AnalysisBatch) -> None:
        """Reconstruct a batch's activations, and run the model on them."""
        if batch.images is None:
            raise ValueError("a spliced run needs pixels: give the batch its `images`, as a sweep does")
        model, given = batch.model, self._for_width(batch.model.cfg.d_model)
        given.check_fits(model)
        config = given.config
        x, y = (per_token(batch.cache[name]) for name in (config.reads, config.writes))
        chosen = chosen_tokens(model, config.tokens, y.shape[1])
        given = given.to(y.device)
        random = self._null(given, x[:, chosen], y[:, chosen]).to(y.device)
        # subtracting this first keeps the variance from cancelling where activations lie far from zero
        centre = given.decode(torch.zeros(config.d_dict, device=y.device, dtype=given.W_dec.dtype))
        target = y[:, chosen]
        centred = (target - centre).double()
        sums, runs, fired = [], [], []
        for dictionary in (given, random):
            latents = dictionary.encode(x[:, chosen])
            active = latents != 0
            reconstruction = dictionary.decode(latents).to(y)
            error = (target - reconstruction).double().square().sum(dim=(1, 2))
            n_active = active.sum(dim=(1, 2)).double()
            n_tokens = torch.full_like(error, target.shape[1])
            sums.append(torch.stack([n_tokens, error, centred.square().sum(dim=(1, 2)), n_active], dim=1))
            fired.append(active.sum(dim=(0, 1)))
            runs.append(self._measured(self._replaced(batch, given, chosen, reconstruction), batch.labels))
            batch.passed(1)
        mean = torch.zeros_like(y[:1]) if self.mean is None else self.mean.to(y).expand_as(y[:1])
        ablated = mean[:, chosen].expand_as(target)
        runs += [self._measured(batch.logits, batch.labels)]
        runs += [self._measured(self._replaced(batch, given, chosen, ablated), batch.labels)]
        batch.passed(1)
        self.index.append(batch.index.to(self.device))
        self.sums.append(torch.stack(sums, dim=1).to(self.device))
        self.runs.append(torch.stack(runs, dim=1).to(self.device))
        self.centred = self.centred + centred.sum(dim=(0, 1)).to(self.device)
        self.fired = self.fired + torch.stack(fired).to(self.device)

    @staticmethod
    def _replaced(batch: AnalysisBatch, dictionary: Dictionary, chosen: Tensor, values: Tensor) -> Tensor:
        """The logits with other values at the dictionary's tokens."""

        def replace(activation: Tensor) -> Tensor:
            edited = activation.clone()
            edited[:, chosen] = values
            return edited

        hooks: list[Any] = edit_written(batch.model, dictionary, replace)
        return batch.model.run_with_hooks(batch.images, fwd_hooks=hooks)

    @staticmethod
    def _measured(logits: Tensor, labels: Tensor) -> Float[Tensor, "batch metric"]:
        loss = F.cross_entropy(logits.double(), labels, reduction="none")
        return torch.stack([loss, (logits.argmax(dim=-1) == labels).double()], dim=1)

    def _for_width(self, width: int) -> Dictionary:
        if self.given[0] is not None:
            return self.given[0]
        if self._default is None:
            self._default = load_dictionary(embedded_dictionary_for(width))
        return self._default

    def _null(self, given: Dictionary, x: Tensor, y: Tensor) -> Dictionary:
        if self._random is None:
            k = given.config.k if self.k is None else self.k
            trained: Any = given.record.get("losses")
            if k is None and trained:
                k = max(1, round(trained[-1]["active"]))
            if k is None:
                k = max(1, round(float((given.encode(x) != 0).sum(dim=-1).double().mean())))
            self._random = random_dictionary(given, self.seed, k, x, y if given.config.is_transcoder else None)
        return self._random

    def compute(self) -> pd.DataFrame:
        """One row per dictionary and metric.

        Raises:
            ValueError: If no image was seen.
        """
        sums, runs = self.by_image("sums", "runs")
        config = self._for_width(0).config
        n_tokens = sums[:, 0, 0]
        rows = []
        mean_square = float((self.centred / n_tokens.sum()).square().sum())
        fired = self.fired.cpu().numpy()
        for d, name in enumerate(("given", "random")):
            tokens, error, norm, active = np.moveaxis(sums[:, d], 1, 0)
            variance = norm.sum() / tokens.sum() - mean_square  # of a token, over the whole dataset
            left = self._ratio(error, tokens * variance)
            ends = (np.asarray(1 - end) for end in (left.estimate, left.high, left.low))
            explained = Interval(*ends, level=left.level)
            rows += [(name, "explained_variance", explained), (name, "l0", self._ratio(active, tokens))]
            rows += [(name, "dead_percent", 100 * float((fired[d] == 0).mean()))]
            for m, metric in enumerate(_RUNS):
                spliced, plain, ablated = runs[:, d, m], runs[:, 2, m], runs[:, 3, m]
                rows += [(name, metric, self._mean(spliced, metric))]
                # of sums: the ratio of means, as the definition has it
                rows += [(name, f"{metric}_recovered", self._ratio(ablated - spliced, ablated - plain))]
        for r, name in ((2, "plain"), (3, "ablated")):
            rows += [(name, metric, self._mean(runs[:, r, m], metric)) for m, metric in enumerate(_RUNS)]
        table = pd.DataFrame([self._row(config.writes, *row) for row in rows])
        return table.assign(n_images=len(sums), n_tokens=int(n_tokens.sum())).reindex(columns=_COLUMNS)

    def _ratio(self, numerators: np.ndarray, denominators: np.ndarray) -> Interval:
        return self.resampling.ratio(numerators, denominators)

    def _mean(self, values: np.ndarray, metric: str) -> Interval:
        return self.resampling.interval(values * (100 if metric == "accuracy" else 1))

    @staticmethod
    def _row(point: str, dictionary: str, metric: str, value: Interval | float) -> dict[str, Any]:
        parts = point.split(".")
        layer = int(parts[1]) if parts[0] == "blocks" else pd.NA
        row = {"layer": layer, "point": point, "dictionary": dictionary, "metric": metric}
        if isinstance(value, Interval):
            return {**row, "value": float(value.estimate), "low": float(value.low), "high": float(value.high)}
        return {**row, "value": value, "low": np.nan, "high": np.nan}

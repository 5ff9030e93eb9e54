"""Fitting one dictionary to batches of activations: steps, dead latents, and a state that can be stored."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from analyses.dictionaries.dictionary import Dictionary, DictionaryConfig
from analyses.dictionaries.training.objectives import Weights, auxiliary_loss, objective

__all__ = ["DictionaryFit", "FitOptions"]

_MEASURED = 4096  # activations that the encoder's first scale is measured on
_AVERAGED = 0.01  # least weight of a batch in the running threshold
_SETTLED = 0.8  # the share of the training after which the threshold is averaged anew, over weights that hardly move
_AUXILIARY_SHARE = 8  # the auxiliary loss is computed on one of so many activations


@dataclass(frozen=True)
class FitOptions:
    """How a dictionary is fitted.

    Attributes:
        learning_rate: Adam's, after the warm-up and before the decay.
        warm_up: The share of the training in which the learning rate and the penalty rise to their full size.
        decay: The share at its end in which the learning rate falls to zero.
        penalty: The weight of the sparsity penalty of `relu` and `jump_relu`; see `objective`.
        bandwidth: Of the straight-through estimate of `jump_relu`, as there.
        first_threshold: Where the thresholds of `jump_relu` start.
        auxiliary: The weight of the auxiliary loss for dead latents.
        auxiliary_k: How many dead latents may explain a residual.
        dead_after: A latent is dead if it was not active in so many activations.

    Raises:
        ValueError: If a value is outside its range.
    """

    learning_rate: float = 1e-3
    warm_up: float = 0.05
    decay: float = 0.3
    penalty: float = 0.01
    bandwidth: float = 0.1
    first_threshold: float = 0.1
    auxiliary: float = 1 / 32
    auxiliary_k: int = 64
    dead_after: int = 100_000

    def __post_init__(self) -> None:
        above_zero = ("learning_rate", "bandwidth", "auxiliary_k", "dead_after")
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0) or (name in above_zero and value == 0):
                raise ValueError(f"{name} must be {'above 0' if name in above_zero else '0 or more'}, got {value}")
            if name in ("warm_up", "decay") and value > 1:
                raise ValueError(f"{name} is a share of the training, from 0 to 1, got {value}")


class DictionaryFit:
    """A dictionary that is being fitted.

    The rows of the decoder have unit length throughout. Activations are normalised by their mean and by one number, so
    that they have mean zero and mean square one; both are measured on the first batch that `measure` gets.

    Args:
        config: What to fit; its `normalisation` is `"mean_and_scale"`.
        options: How.
        seed: Seed of the first weights.
        device: Where.

    >>> config = DictionaryConfig("topk", 4, 4, 8, "hook_tokens", "hook_tokens", k=2, normalisation="mean_and_scale")
    >>> fit, x = DictionaryFit(config), torch.randn(64, 4)
    >>> fit.measure(x, x)
    >>> fit.step(x, x)["unexplained"] > fit.step(x, x)["unexplained"]
    True
    """

    def __init__(
        self,
        config: DictionaryConfig,
        options: FitOptions | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        if config.normalisation != "mean_and_scale":
            raise ValueError(f"a fit measures mean and scale, got normalisation={config.normalisation!r}")
        self.config, self.options = config, options or FitOptions()
        generator = torch.Generator().manual_seed(seed)

        def directions(width: int) -> Tensor:
            return F.normalize(torch.randn(config.d_dict, width, generator=generator), dim=-1)

        dec = directions(config.d_out)
        enc = directions(config.d_in) if config.is_transcoder else dec.clone()
        first = {"enc": enc, "b_enc": torch.zeros(config.d_dict), "dec": dec, "b_dec": torch.zeros(config.d_out)}
        if config.kind == "jump_relu":
            first["threshold"] = torch.full((config.d_dict,), self.options.first_threshold)
        self._parameters = {name: nn.Parameter(tensor.to(device)) for name, tensor in first.items()}
        self._optimiser = torch.optim.Adam(self._parameters.values(), fused=True)
        dead = torch.zeros(config.d_dict, dtype=torch.long, device=device)
        self._kept = {"inactive_for": dead, "threshold_average": torch.zeros((), device=device)}
        self._kept |= {"last_smallest": torch.zeros((), device=device)}
        self._kept |= {"n_averaged": torch.zeros((), dtype=torch.long, device=device)}
        self._kept |= {"has_settled": torch.zeros((), dtype=torch.bool, device=device)}
        self._kept |= {"in_mean": torch.zeros(config.d_in, device=device), "in_scale": torch.ones((), device=device)}
        self._kept |= {"out_mean": torch.zeros(config.d_out, device=device), "out_scale": torch.ones((), device=device)}

    def measure(self, x: Float[Tensor, "activation d_in"], y: Float[Tensor, "activation d_out"]) -> None:
        """Measure mean and scale of what is read and written.

        Raises:
            ValueError: If there are no activations, they are not finite, or they do not vary.
        """
        if not len(x):
            raise ValueError("no activations to train on: the dataset is empty, or none of its images could be read")
        for side, values in (("in", x), ("out", y)):
            if side == "out" and not self.config.is_transcoder:
                mean, scale = self._kept["in_mean"], self._kept["in_scale"]
            else:
                mean = values.double().mean(dim=0)
                scale = (values.double() - mean).square().mean().sqrt()
            if not torch.isfinite(scale) or scale == 0:
                name = self.config.reads if side == "in" else self.config.writes
                what = "do not vary" if scale == 0 else "are not finite"
                raise ValueError(f"the activations of '{name}' {what}: no dictionary can be trained on them")
            self._kept[f"{side}_mean"].copy_(mean)
            self._kept[f"{side}_scale"].copy_(scale)
        self._scale_encoder(x[:_MEASURED], y[:_MEASURED])

    @torch.no_grad()
    def _scale_encoder(self, x: Tensor, y: Tensor) -> None:
        """Scale the encoder so that the first reconstructions have the best size; random ones are too large."""
        kept, weights = self._kept, Weights(**self._parameters)
        reads, writes = (x - kept["in_mean"]) / kept["in_scale"], (y - kept["out_mean"]) / kept["out_scale"]
        reconstruction = writes - objective(self.config, weights, reads, writes).residual
        size = (writes * reconstruction).sum() / reconstruction.square().sum().clamp_min(1e-12)
        weights.enc.mul_(size.clamp(0.02, 1.0))

    def step(
        self, x: Float[Tensor, "activation d_in"], y: Float[Tensor, "activation d_out"], progress: float = 0.5
    ) -> dict[str, float]:
        """One step of Adam.

        Args:
            x: What is read.
            y: What is reconstructed; x itself, unless it is a transcoder.
            progress: The share of the training that is done, which the learning rate follows.

        Returns:
            `loss`, `unexplained` (share of variance), `active` (latents per activation), `dead` (share of latents).

        Raises:
            ValueError: If the loss is not finite, or all latents are dead; the weights are those of the last step.
        """
        kept, options = self._kept, self.options
        reads = (x - kept["in_mean"]) / kept["in_scale"]
        writes = (y - kept["out_mean"]) / kept["out_scale"] if self.config.is_transcoder else reads
        weights, rise = Weights(**self._parameters), min(1.0, (progress + 1e-3) / max(options.warm_up, 1e-3))
        found = objective(
            self.config, weights, reads, writes, options.penalty * rise, options.bandwidth,
            0.8 * float(kept["last_smallest"]),
        )  # fmt: skip
        loss, dead = found.loss, kept["inactive_for"] >= options.dead_after
        n_dead = int(dead.sum())
        if n_dead == len(dead):
            raise ValueError(
                f"all {n_dead} latents are dead: none was active in the last {options.dead_after} activations. Lower "
                "the penalty or the learning rate, or raise k"
            )
        if n_dead and options.auxiliary:
            some = slice(0, max(1, len(x) // _AUXILIARY_SHARE))
            loss = loss + options.auxiliary * auxiliary_loss(
                weights, reads[some], found.residual[some], dead, options.auxiliary_k
            )
        value = float(loss.detach())
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(
                f"the loss became {value}: lower the learning rate (it is {options.learning_rate}), or check that the "
                f"activations of '{self.config.reads}' are finite"
            )
        self._descend(loss, progress, rise)
        self._count(found.was_active, len(x))
        if found.smallest is not None:
            self._average(found.smallest, progress)
        unexplained = float(found.unexplained.detach())
        return {"loss": value, "unexplained": unexplained, "active": found.n_active, "dead": n_dead / len(dead)}

    def _average(self, smallest: float, progress: float) -> None:
        """The mean of the smallest active values: of all at first, later a running one, from the last part on anew."""
        kept = self._kept
        if progress >= _SETTLED and not kept["has_settled"]:
            kept["has_settled"].fill_(True)
            kept["n_averaged"].zero_()
        kept["n_averaged"].add_(1)
        average = kept["threshold_average"]
        average.add_(max(_AVERAGED, 1 / int(kept["n_averaged"])) * (smallest - average))
        kept["last_smallest"].fill_(smallest)

    def _descend(self, loss: Tensor, progress: float, rise: float) -> None:
        for group in self._optimiser.param_groups:
            falls = min(1.0, (1 - progress) / self.options.decay) if self.options.decay else 1.0
            group["lr"] = self.options.learning_rate * min(rise, falls)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        dec = self._parameters["dec"]
        with torch.no_grad():
            assert dec.grad is not None
            # what would change a row's length is taken out, because its length is restored
            dec.grad.addcmul_(torch.linalg.vecdot(dec.grad, dec)[:, None], dec, value=-1)
            self._optimiser.step()
            dec.div_(torch.linalg.vector_norm(dec, dim=-1, keepdim=True).clamp_min(1e-12))
            if "threshold" in self._parameters:
                self._parameters["threshold"].clamp_(min=0)

    def _count(self, was_active: Tensor, n_activations: int) -> None:
        self._kept["inactive_for"].add_(n_activations).masked_fill_(was_active, 0)

    @property
    def n_dead(self) -> int:
        """The number of latents that are dead now."""
        return int((self._kept["inactive_for"] >= self.options.dead_after).sum())

    @torch.no_grad()
    def dictionary(self, record: Mapping[str, Any] | None = None) -> Dictionary:
        """The dictionary as it is now.

        Raises:
            ValueError: If its weights are not finite.
        """
        made = Dictionary(self.config, record)
        parameters = self._parameters
        broken = [name for name, tensor in parameters.items() if not tensor.isfinite().all()]
        if broken:
            raise ValueError(
                f"the training ended with weights that are not finite ({', '.join(broken)}): lower the learning rate "
                f"(it is {self.options.learning_rate})"
            )
        tensors = {"W_enc": parameters["enc"].T, "b_enc": parameters["b_enc"], "W_dec": parameters["dec"]}
        tensors |= {"b_dec": parameters["b_dec"]}
        tensors |= {name: self._kept[name] for name in ("in_mean", "in_scale", "out_mean", "out_scale")}
        if self.config.kind == "jump_relu":
            tensors["threshold"] = parameters["threshold"]
        elif hasattr(made, "threshold"):
            tensors["threshold"] = self._kept["threshold_average"]
        made.load_state_dict(tensors)
        return made.to(parameters["enc"].device).eval()

    def state(self) -> dict[str, Tensor]:
        """Everything that further steps depend on."""
        tensors = {**{f"parameter.{name}": tensor.detach() for name, tensor in self._parameters.items()}}
        tensors |= {f"kept.{name}": tensor for name, tensor in self._kept.items()}
        for name, parameter in self._parameters.items():
            tensors |= {f"adam.{name}.{key}": value for key, value in self._optimiser.state[parameter].items()}
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a state.

        Raises:
            ValueError: If it is that of an earlier version, without all that is needed; nothing is changed.
        """
        missing = [name for name in self._kept if f"kept.{name}" not in tensors]
        if missing:
            raise ValueError(
                f"the checkpoint is of an earlier version and has no {', '.join(missing)}: start over with resume=False"
            )
        for group, held in (("parameter", self._parameters), ("kept", self._kept)):
            for name, tensor in held.items():
                tensor.copy_(tensors[f"{group}.{name}"])
        for name, parameter in self._parameters.items():
            prefix = f"adam.{name}."
            found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            self._optimiser.state[parameter] = {key: value.clone().to(parameter.device) for key, value in found.items()}

"""What says the class of an image after a block: the head itself, directly or through a lens, or linear probes."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.data.dataset import LabelledImages
from analyses.data.reading import ItemReader
from analyses.linear_probe.ridge import RidgeProbe, fit_ridge_probe
from analyses.projection import Lens, stream_names
from analyses.sweep.describe import describe
from analyses.sweep.held_out import refuse_fitted
from hooked_vit import HookedViT

__all__ = ["ClassSpaceReadout", "ProbeReadout", "Readout", "fit_exit_probes"]


@runtime_checkable
class Readout(Protocol):
    """Class logits of images from the stream after a block."""

    def check(self, model: HookedViT) -> None:
        """Raise a `ValueError` if the readout does not fit the model."""
        ...

    def class_logits(
        self, model: HookedViT, residual: Float[Tensor, "batch token d_model"], layer: int
    ) -> Float[Tensor, "batch n_classes"]:
        """Logits from `resid_post` of a block, whatever comes after it."""
        ...


@dataclass(frozen=True)
class ClassSpaceReadout:
    """The model's own head on the stream after a block: what it would answer if the block were the last.

    Attributes:
        lens: A map that the stream passes first, such as `fit_tuned_lens(model, images, tokens="read")`.
    """

    lens: Lens | None = None

    def check(self, model: HookedViT) -> None:
        """Check that the model has classes, and the lens its shape."""
        model.require_several_classes("early exit")
        if self.lens is not None:
            self.lens.check(model)

    def class_logits(
        self, model: HookedViT, residual: Float[Tensor, "batch token d_model"], layer: int
    ) -> Float[Tensor, "batch n_classes"]:
        """As `Readout`.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> logits, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64), names_filter=("resid_post", -1))
        >>> torch.allclose(ClassSpaceReadout().class_logits(model, cache["resid_post", -1], 7), logits, atol=1e-5)
        True
        """
        if model.cfg.pool in ("cls", "cls_and_dist"):
            residual = residual[:, model.cfg.read_tokens]
        if self.lens is not None:
            residual = self.lens.translate(residual, "resid_post", layer)
        return model.head_logits(residual)


@dataclass(frozen=True)
class ProbeReadout:
    """A linear probe for each block on what the head reads there (the mean, if it reads several tokens).

    Attributes:
        probe: One probe per block, from `fit_exit_probes`.
        data: A description of the images that they were fitted to, on which `sweep` refuses to measure them.
    """

    probe: RidgeProbe
    data: Any = None

    def check_sweep(self, model: HookedViT, dataset: LabelledImages, tokens: Literal["all", "read"] = "read") -> None:
        """Check that the probes fit the model, and were fitted to other images."""
        self.check(model)
        refuse_fitted(self.data, dataset, "the probe of each block")

    def check(self, model: HookedViT) -> None:
        """Check that there is a probe for each block, of the model's width and classes."""
        expected = (model.cfg.n_layers, model.cfg.d_model, model.cfg.n_classes)
        if self.probe.weight.shape != expected:
            raise ValueError(
                f"expected a probe for each block of the model, [layer d_model n_classes] = {expected}, got "
                f"{tuple(self.probe.weight.shape)}: `fit_exit_probes` makes them"
            )

    def class_logits(
        self, model: HookedViT, residual: Float[Tensor, "batch token d_model"], layer: int
    ) -> Float[Tensor, "batch n_classes"]:
        """As `Readout`."""
        return read_features(model, residual) @ self.probe.weight[layer].to(residual) + self.probe.bias[layer].to(
            residual
        )


def read_features(model: HookedViT, residual: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch d_model"]:
    """The mean of the tokens that the head reads, without norm."""
    weights = model.cfg.read_weights(residual.shape[1]).to(residual)
    return torch.einsum("btd,t->bd", residual, weights)


@torch.no_grad()
def fit_exit_probes(
    model: HookedViT, dataset: LabelledImages, *, alpha: float = 1.0, batch_size: int = 32
) -> ProbeReadout:
    """Fit a ridge probe after each block to what the head reads there, as a rival of exits in class space.

    What is kept in memory is `n_layers · d_model` numbers per image.

    Args:
        model: The model.
        dataset: Images with labels, other ones than those to classify.
        alpha: The penalty.
        batch_size: Images per forward pass.

    Raises:
        ValueError: If an image cannot be read, or there is none.

    >>> from analyses.data import EmojiScenes
    >>> fit_exit_probes(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(4, seed=2)).probe.weight.shape
    torch.Size([8, 128, 100])
    """
    model.require_several_classes("a probe of classes")
    if not len(dataset):
        raise ValueError("expected at least one image to fit probes to, got an empty dataset")
    names = stream_names(model.cfg, "resid_post")
    reader = ItemReader(dataset, model.cfg, model.data_config, skip=False)
    features: list[Tensor] = []
    labels: list[Tensor] = []
    for start in range(0, len(dataset), batch_size):
        read = reader.__getitems__(range(start, min(start + batch_size, len(dataset))))
        assert read.images is not None
        _, cache = model.run_with_cache(read.images.to(model.embed.weight), names_filter=names)
        features.append(torch.stack([read_features(model, cache[name]) for name in names]))
        labels.append(read.labels)
    probe = fit_ridge_probe(torch.cat(features, dim=1), torch.cat(labels), model.cfg.n_classes, alpha)
    return ProbeReadout(probe, describe(dataset))

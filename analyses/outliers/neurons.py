"""The neurons that make outlier tokens: by their activation there, and by what they add to the norm."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.outliers.scores import THRESHOLD, check_threshold, norm_ratios
from hooked_vit import HookedViT, ViTActivationCache
from hooked_vit.components.block import Block
from hooked_vit.input_checks import require_one_grid

__all__ = ["OutlierNeurons", "RankedBy", "register_neurons"]

RankedBy = Literal["activation", "norm_share"]


@dataclass(frozen=True)
class OutlierNeurons:
    """Every neuron up to a block, at the outlier patches of that block's stream and at the other patches.

    Attributes:
        layer: The block after which outliers were found.
        threshold: The norm ratio above which a patch is an outlier.
        n_images: Number of images.
        n_outliers: Number of outlier patches in them.
        largest_ratio: The largest norm ratio of a patch.
        at_outliers: The mean activation at outliers.
        at_others: The mean activation at the other patches.
        norm_share: The mean over outliers of the share of their squared norm that the neuron writes directly: its
            activation times the dot product of its value vector and the stream, divided by the squared norm. The
            shares of all parts that write to the stream sum to 1.
    """

    layer: int
    threshold: float
    n_images: int
    n_outliers: int
    largest_ratio: float
    at_outliers: Float[Tensor, "layer neuron"]
    at_others: Float[Tensor, "layer neuron"]
    norm_share: Float[Tensor, "layer neuron"]

    def scores(self, by: RankedBy = "norm_share") -> Float[Tensor, "layer neuron"]:
        """What neurons are ranked by: the difference of mean activations, or the share of the squared norm.

        Raises:
            ValueError: If `by` is unknown, or there was no outlier.
        """
        if by not in get_args(RankedBy):
            raise ValueError(f"expected by='activation' or 'norm_share', got {by!r}")
        if not self.n_outliers:
            raise ValueError(
                f"no patch of {self.n_images} images is an outlier after block {self.layer}: the largest norm is "
                f"{self.largest_ratio:.2f} times the median, the threshold is {self.threshold:g}"
            )
        return self.at_outliers - self.at_others if by == "activation" else self.norm_share

    def top(self, k: int = 10, by: RankedBy = "norm_share") -> dict[int, list[int]]:
        """The `k` neurons with the largest scores, by block, as `move_neurons` takes them.

        Raises:
            ValueError: As `scores`, or if there are fewer than `k` neurons.
        """
        chosen: dict[int, list[int]] = {}
        for layer, neuron in sorted(self._ranked(k, by)):
            chosen.setdefault(layer, []).append(neuron)
        return chosen

    def table(self, k: int = 10, by: RankedBy = "norm_share") -> pd.DataFrame:
        """The `k` neurons with the largest scores: `layer`, `neuron`, and the three numbers of each.

        Raises:
            ValueError: As `top`.
        """
        ranked = self._ranked(k, by)
        numbers = {"at_outliers": self.at_outliers, "at_others": self.at_others, "norm_share": self.norm_share}
        columns = {name: [float(values[at]) for at in ranked] for name, values in numbers.items()}
        places = {"layer": [layer for layer, _ in ranked], "neuron": [neuron for _, neuron in ranked]}
        return pd.DataFrame({**places, **columns})

    def _ranked(self, k: int, by: RankedBy) -> list[tuple[int, int]]:
        scores = self.scores(by)
        if not 1 <= k <= scores.numel():
            raise ValueError(f"expected k from 1 to the number of neurons, {scores.numel()}, got {k}")
        best = scores.flatten().topk(k).indices.tolist()
        return [divmod(place, scores.shape[1]) for place in best]


@torch.no_grad()
def register_neurons(
    model: HookedViT,
    batches: Iterable[Float[Tensor, "_ channel _ _"]],
    layer: int,
    threshold: float | int = THRESHOLD,
) -> OutlierNeurons:
    """Compare every neuron's activation at outlier patches with that at the others (Jiang et al. 2025, section 3).

    The published method ranks neurons by their mean activation at outliers, and calls the first of them register
    neurons: they fire at outliers only, and before these have a large norm.

    Args:
        model: The model.
        batches: Batches of preprocessed images; only one batch is held at a time. Where the model takes any size,
            each batch may have its own.
        layer: The block after which outliers are found: one where `Outliers` shows them. Neurons of this block and of
            all before it are compared.
        threshold: The norm ratio above which a patch is an outlier.

    Raises:
        ValueError: If there are no images, the model does not take them, the layer does not exist, or the threshold
            is not above 1.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> found = register_neurons(model, torch.randn(4, 3, 64, 64).split(2), layer=3, threshold=1.2)
    >>> found.at_outliers.shape, len(found.table(5))
    (torch.Size([4, 512]), 5)
    """
    check_threshold(threshold)
    n_layers = model.cfg.n_layers
    if not -n_layers <= layer < n_layers:
        raise ValueError(f"expected a layer from 0 to {n_layers - 1} (or negative from the end), got {layer}")
    layer %= n_layers
    names = model.hook_names([("resid_post", layer), *(("post", at) for at in range(layer + 1))])
    if model.cfg.write_norms is not None:
        names += model.hook_names([("scale", at, model.cfg.write_norms[1]) for at in range(layer + 1)])
    sums = torch.zeros(3, layer + 1, model.cfg.d_mlp, dtype=torch.float64)
    n_images, n_outliers, n_patches, largest = 0, 0, 0, 0.0
    for images in batches:
        require_one_grid(images)
        _, cache = model.run_with_cache(images, names_filter=names, stop_at_layer=layer + 1)
        residual, layout = cache["resid_post", layer], model.cfg.token_layout_at(images.shape[-2], images.shape[-1])
        patches = layout.patches
        ratios = norm_ratios(residual, layout)[:, patches]
        is_outlier = ratios > threshold
        for at in range(layer + 1):
            sums[:, at] += _sums(model.blocks[at], cache, at, residual[:, patches], is_outlier, patches).cpu()
        n_images, n_patches = n_images + len(images), n_patches + ratios.numel()
        n_outliers, largest = n_outliers + int(is_outlier.sum()), max(largest, float(ratios.max()))
    if not n_images:
        raise ValueError("expected at least one batch of images, got none")
    counts = torch.tensor([n_outliers, n_patches - n_outliers, n_outliers])[:, None, None]
    means = (sums / counts).float()
    return OutlierNeurons(layer, float(threshold), n_images, n_outliers, largest, means[0], means[1], means[2])


def _sums(
    block: Block, cache: ViTActivationCache, layer: int, residual: Tensor, is_outlier: Tensor, patches: slice
) -> Float[Tensor, "number neuron"]:
    """Activations at outliers, and at the others, and shares of the squared norm at outliers, summed over patches."""
    post = cache["post", layer][:, patches]
    at_outliers, stream = post[is_outlier].double(), residual[is_outlier].double()
    along = stream / stream.square().sum(dim=-1, keepdim=True)
    # from a direction of the stream to the direction of W_out's output that becomes it
    norm = block.write_norms[1]
    if norm is not None:
        name = f"blocks.{layer}.{(cache.model.cfg.write_norms or ('', ''))[1]}.hook_scale"
        scale = cache[name][:, patches][is_outlier].double()
        weighted = along if norm.weight is None else along * norm.weight
        along = norm.centre(weighted) / scale
    elif block.mlp_ls is not None:
        along = along * block.mlp_ls
    shares = at_outliers * (along @ block.mlp.W_out.T.double())
    others = post[~is_outlier].double()
    return torch.stack([at_outliers.sum(dim=0), others.sum(dim=0), shares.sum(dim=0)])

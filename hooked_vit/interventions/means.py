"""Mean activations over any number of images, position by position, for mean ablation."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from hooked_vit.hook_names import NamesFilter
from hooked_vit.input_checks import require_one_grid
from hooked_vit.model import HookedViT


@torch.no_grad()
def mean_activations(
    model: HookedViT,
    batches: Iterable[Float[Tensor, "_ channel _ _"]],
    names: NamesFilter,
) -> dict[str, Tensor]:
    """The mean of activations over images; tokens, heads and neurons keep their axes.

    Args:
        model: The model.
        batches: Batches of preprocessed images; only one batch is held at a time.
        names: The hook points, as for `model.hook_names`.

    Returns:
        For each full name, a tensor of the activation's shape without its batch axis.

    Raises:
        ValueError: If there are no images, or they differ in size.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> means = mean_activations(model, torch.randn(6, 3, 64, 64).split(2), "z")
    >>> means["blocks.3.attn.hook_z"].shape
    torch.Size([65, 4, 32])
    """
    n_images, sums, dtypes = 0, {}, {}
    for images in batches:
        require_one_grid(images)
        _, cache = model.run_with_cache(images, names_filter=names)
        n_images += len(images)
        for name, activation in cache.items():
            total, dtypes[name] = activation.sum(dim=0, dtype=_sum_dtype(activation)), activation.dtype
            if name in sums and sums[name].shape != total.shape:
                raise ValueError(
                    f"expected images of the same size, got '{name}' of shape {tuple(sums[name].shape)} and then of "
                    f"{tuple(total.shape)}"
                )
            sums[name] = sums[name] + total if name in sums else total
    if not n_images:
        raise ValueError("expected at least one batch of images, got none")
    return {name: (total / n_images).to(dtypes[name]) for name, total in sums.items()}


def _sum_dtype(activation: Tensor) -> torch.dtype:
    return torch.float32 if activation.device.type == "mps" else torch.float64

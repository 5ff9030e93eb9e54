"""Grad-CAM on a ViT: channels of the residual stream, weighted by how they pull on a class."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.feature_importance.class_gradients import checked_classes
from hooked_vit import HookedViT

__all__ = ["grad_cam"]


def grad_cam(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    layer: int = -1,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """Grad-CAM (Selvaraju et al., 2017) on the stream entering a block: `(x · mean over patches of d logit_k / dx)⁺`.

    By default the last block: behind it, patches no longer reach a CLS readout, so that every gradient is zero.
    It is computed here rather than by captum, whose `LayerGradCam` takes a ViT's tokens for channels.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> grad_cam(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14])).shape
    torch.Size([2, 64])
    """
    name, chosen = ("resid_pre", layer), checked_classes(classes, len(images), model)
    _, cache, gradients = model.run_with_gradients(
        images, lambda logits: logits.gather(1, chosen)[:, 0], name, start_at_layer=start_at_layer
    )
    n_prefix = model.cfg.token_layout.n_prefix
    stream, gradient = cache[name][:, n_prefix:], gradients[name][:, n_prefix:]
    return torch.einsum("bsd,bd->bs", stream, gradient.mean(dim=1)).relu()

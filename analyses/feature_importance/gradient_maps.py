"""Maps from the class logit's gradient within the model: relevance, gradient × attention, and Grad-CAM."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.feature_importance.attention_maps import readout_row
from analyses.feature_importance.memory import within_budget
from hooked_vit import HookedViT, ViTActivationCache
from hooked_vit.absent_points import refuse_absent

__all__ = ["grad_cam", "gradient_attention", "relevance"]


@within_budget(gradients=True, patterns=5)
def relevance(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """Chefer, Gur and Wolf's relevance ("Generic Attention-Model Explainability", ICCV 2021), self-attention rule.

        Ā_b = mean over heads of (d logit_k / d A_b * A_b)⁺,     R ← R + Ā_b R,  from R = I, block after block

    The map is the row of R of the token that the head reads, or the mean of several rows where the head pools. No
    layer-wise relevance propagation is involved, so it works for any block; the rule ignores everything but attention.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> relevance(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14])).shape
    torch.Size([2, 64])
    """
    patterns, gradients = _patterns_and_gradients(model, images, classes, start_at_layer)
    steps = [(g * a).clamp(min=0).mean(dim=1) for a, g in zip(patterns, gradients, strict=True)]
    return readout_row(steps, 1.0, model.cfg)


@within_budget(gradients=True, patterns=5)
def gradient_attention(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """Gradient × attention: `sum over blocks, heads and read tokens q of  d logit_k / d A[q, s] · A[q, s]`.

    To first order, what the logit would lose if the tokens that the head reads did not attend to patch s, in any block.
    The gradient is taken through the whole model; that of feature importance is local to a block.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> gradient_attention(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14])).shape
    torch.Size([2, 64])
    """
    patterns, gradients = _patterns_and_gradients(model, images, classes, start_at_layer)
    read, n_prefix = model.cfg.read_weights(patterns[0].shape[-1]) > 0, model.cfg.token_layout.n_prefix
    products = [(g * a)[:, :, read, n_prefix:].sum(dim=(1, 2)) for a, g in zip(patterns, gradients, strict=True)]
    return sum(products[1:], products[0])


@within_budget(gradients=True)
def grad_cam(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    layer: int = -1,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """Grad-CAM (Selvaraju et al., 2017) on the stream entering a block: `(x · mean over patches of d logit_k / dx)⁺`.

    By default the last block: after it, patches no longer reach a CLS readout, so every gradient is zero.
    It is computed here because captum's `LayerGradCam` mistakes a ViT's tokens for channels.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> grad_cam(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14])).shape
    torch.Size([2, 64])
    """
    name, n_prefix = ("resid_pre", layer), model.cfg.token_layout.n_prefix
    cache, gradients = _run_with_gradients(model, images, classes, name, start_at_layer)
    stream, gradient = cache[name][:, n_prefix:], gradients[name][:, n_prefix:]
    return torch.einsum("bsd,bd->bs", stream, gradient.mean(dim=1)).relu()


def _patterns_and_gradients(
    model: HookedViT, images: Tensor, classes: Tensor, start_at_layer: Literal[0] | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Each block's attention, [batch head query key], and the class logit's gradient with respect to it."""
    refuse_absent(["blocks.0.attn.hook_pattern"], model.cfg)
    cache, gradients = _run_with_gradients(model, images, classes, "pattern", start_at_layer)
    layers = range(model.cfg.n_layers)
    return [cache["pattern", layer] for layer in layers], [gradients["pattern", layer] for layer in layers]


def _run_with_gradients(
    model: HookedViT, images: Tensor, classes: Tensor, name: str | tuple[str, int], start_at_layer: Literal[0] | None
) -> tuple[ViTActivationCache, ViTActivationCache]:
    """Activations and the class logit's gradients with respect to them."""
    chosen = model.class_indices(classes, len(images), several=True)
    _, cache, gradients = model.run_with_gradients(
        images, lambda logits: logits.gather(1, chosen)[:, 0], name, start_at_layer=start_at_layer
    )
    return cache, gradients

"""The explanation methods by name, and the signature that they share."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from analyses.feature_importance.attention_maps import attention_rollout, raw_attention
from analyses.feature_importance.baseline import random_map
from analyses.feature_importance.gradient_maps import grad_cam, gradient_attention, relevance
from analyses.feature_importance.importance import importance_map
from analyses.feature_importance.pixel_maps import input_gradients, integrated_gradients
from hooked_vit import HookedViT

__all__ = ["CLASS_AGNOSTIC", "METHODS", "Explainer", "explainer", "needs_pixels"]


@runtime_checkable
class Explainer(Protocol):
    """An explanation method, from images and classes to one number per patch: `maps = method(model, images, classes)`.

    Larger is more important for the image's class; the scale is the method's own, so maps are compared by their order.
    `images` is the stream's start (`hook_tokens`) with `start_at_layer=0`; methods that differentiate with respect to
    pixels reject that.
    """

    def __call__(
        self,
        model: HookedViT,
        images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
        classes: Int[Tensor, "batch"],
        *,
        start_at_layer: Literal[0] | None = None,
    ) -> Float[Tensor, "batch patch"]: ...


METHODS: Mapping[str, Explainer] = {
    "importance": importance_map,
    "relevance": relevance,
    "gradient_attention": gradient_attention,
    "raw_attention": raw_attention,
    "rollout": attention_rollout,
    "grad_cam": grad_cam,
    "input_gradients": input_gradients,
    "integrated_gradients": integrated_gradients,
    "random": random_map,
}
"""The methods by name. Probe order is not among them: it needs probes (`ProbeOrder`)."""

CLASS_AGNOSTIC = tuple(name for name, method in METHODS.items() if getattr(method, "class_agnostic", False))
"""Methods whose map is the same for every class."""


def explainer(name: str) -> Explainer:
    """The method of this name, one of `METHODS`.

    Raises:
        ValueError: If there is no such method; the nearest name is suggested.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> maps = explainer("importance")(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14]))
    >>> model.token_layout.to_grid(maps).shape
    torch.Size([2, 8, 8])
    """
    if name not in METHODS:
        near = get_close_matches(name, METHODS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ValueError(f"no method is called '{name}': {hint}there are {', '.join(METHODS)}")
    return METHODS[name]


def needs_pixels(method: str | Explainer) -> bool:
    """Whether a method, given by name or as itself, differentiates with respect to pixels.

    If so, the stream's start is not enough. Your own explainers declare this with an attribute `needs_pixels`.

    >>> needs_pixels("input_gradients"), needs_pixels(explainer("importance"))
    (True, False)
    """
    return getattr(METHODS.get(method) if isinstance(method, str) else method, "needs_pixels", False)

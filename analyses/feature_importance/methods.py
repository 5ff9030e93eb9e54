"""What every explanation method is: a function from images and classes to a number for each patch; and their names."""

from difflib import get_close_matches
from importlib import import_module
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from hooked_vit import HookedViT

__all__ = ["CLASS_AGNOSTIC", "METHODS", "Explainer", "explainer", "needs_pixels"]

METHODS: dict[str, tuple[str, str]] = {
    "importance": ("analyses.feature_importance.importance", "importance_map"),
    "relevance": ("analyses.feature_importance.gradient_maps", "relevance"),
    "gradient_attention": ("analyses.feature_importance.gradient_maps", "gradient_attention"),
    "raw_attention": ("analyses.feature_importance.attention_maps", "raw_attention"),
    "rollout": ("analyses.feature_importance.attention_maps", "attention_rollout"),
    "grad_cam": ("analyses.feature_importance.gradient_maps", "grad_cam"),
    "input_gradients": ("analyses.feature_importance.pixel_maps", "input_gradients"),
    "integrated_gradients": ("analyses.feature_importance.pixel_maps", "integrated_gradients"),
    "random": ("analyses.feature_importance.baseline", "random_map"),
}
"""Module and function of each method, by its name. Probe order is not among them: it needs probes (`ProbeOrder`)."""

CLASS_AGNOSTIC = ("raw_attention", "rollout", "random")
"""Methods whose map is the same for every class."""

_ON_PIXELS = ("input_gradients", "integrated_gradients")


@runtime_checkable
class Explainer(Protocol):
    """A method: `maps = method(model, images, classes)`.

    Larger is more important for the image's class; the scale is the method's own, so maps are compared by their order.
    `images` is the stream's start (`hook_tokens`) with `start_at_layer=0`; methods that differentiate with respect to
    pixels refuse that.
    """

    def __call__(
        self,
        model: HookedViT,
        images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
        classes: Int[Tensor, "batch"],
        *,
        start_at_layer: Literal[0] | None = None,
    ) -> Float[Tensor, "batch patch"]: ...


def explainer(name: str) -> Explainer:
    """A method by its name, one of `METHODS`.

    Raises:
        ValueError: If there is no such method; near names are suggested.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> maps = explainer("importance")(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14]))
    >>> model.token_layout.to_grid(maps).shape
    torch.Size([2, 8, 8])
    """
    if name not in METHODS:
        near = get_close_matches(name, METHODS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ValueError(f"no method is called '{name}': {hint}there are {', '.join(METHODS)}")
    module, function = METHODS[name]
    method: Any = getattr(import_module(module), function)
    return method


def needs_pixels(method: str | Explainer) -> bool:
    """Whether a method, by name or itself, differentiates with respect to pixels: the stream's start is not enough.

    Explainers of your own say so by an attribute `needs_pixels`.

    >>> needs_pixels("input_gradients"), needs_pixels(explainer("importance"))
    (True, False)
    """
    if isinstance(method, str):
        return method in _ON_PIXELS
    of_ours = (getattr(method, "__module__", None), getattr(method, "__name__", None))
    return of_ours in [METHODS[name] for name in _ON_PIXELS] or getattr(method, "needs_pixels", False)

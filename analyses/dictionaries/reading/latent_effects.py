"""Which latents carry the difference between two images: an estimate with error nodes, and exact patching."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.dictionaries.dictionary import Dictionary
from analyses.dictionaries.reading.class_space import check_latents
from analyses.dictionaries.tokens import chosen_tokens, edit_written, per_token
from analyses.patching.metrics import Metric, checked_metric
from hooked_vit import HookedViT

__all__ = ["LatentAttribution", "latent_attribution", "latent_patching"]


@dataclass(frozen=True)
class LatentAttribution:
    """Estimates of how far a metric moves when one node takes its value in another run.

    Attributes:
        latents: Each latent's effect at all tokens together, for each image's share of the metric.
        error: The effect of the error node, what the dictionary does not reconstruct.
        by_token: The effect of each latent at each of the dictionary's tokens; `None` unless requested.
        clean: The metric in the clean run.
        corrupt: The metric in the corrupt run.
    """

    latents: Float[Tensor, "batch latent"]
    error: Float[Tensor, "batch"]
    by_token: Float[Tensor, "batch token latent"] | None
    clean: Float[Tensor, ""]
    corrupt: Float[Tensor, ""]

    @property
    def effect(self) -> Float[Tensor, "latent"]:
        """The estimated effect of each latent on the metric: the sum over images."""
        return self.latents.sum(dim=0)

    def top(self, k: int) -> list[int]:
        """The k latents with the largest effects, in absolute value."""
        return self.effect.abs().topk(min(k, len(self.effect))).indices.tolist()


def latent_attribution(
    model: HookedViT,
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Float[Tensor, "batch channel height width"],
    metric: Metric,
    dictionary: Dictionary,
    *,
    steps: int = 0,
    by_token: bool = False,
) -> LatentAttribution:
    """Attribution patching over latents with an error node (Marks et al. 2024, sparse feature circuits, section 3).

    The activation is a sum: the decoder's bias, `z_i d_i` for each latent, and the error. With g the metric's gradient
    at the activation, the effect of giving one node its value of the corrupt run is estimated as

        latent i:  sum over tokens of (z_i corrupt - z_i clean) d_i · g        error:  (e corrupt - e clean) · g

    so latents and error together are the first-order estimate for the whole activation. With `steps` the gradient is
    the mean along the straight path from clean to corrupt, at the midpoints of so many steps; then they add up to the
    exact effect of patching the whole activation, as steps grow (integrated gradients).

    Args:
        model: The model.
        clean: Images.
        corrupt: Their counterparts, image by image.
        metric: From logits to one number, such as `logit_difference(3, against=14)`.
        dictionary: A dictionary of this model; of a transcoder, latents come from what it reads.
        steps: Number of gradients along the path; 0 for the one at the clean images.
        by_token: Whether to also return effects at each token.

    Raises:
        ValueError: If the images differ in shape, the dictionary is of another model, or steps are negative.

    >>> from analyses.dictionaries.dictionary import DictionaryConfig
    >>> from analyses.patching.metrics import logit_difference
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> point = "blocks.5.hook_resid_post"
    >>> dictionary = Dictionary(DictionaryConfig("topk", 128, 128, 40, point, point, k=2))
    >>> clean, corrupt = torch.randn(2, 1, 3, 64, 64)
    >>> latent_attribution(model, clean, corrupt, logit_difference(3, against=14), dictionary).latents.shape
    torch.Size([1, 40])
    """
    if steps < 0:
        raise ValueError(f"expected 0 steps, for the gradient at the clean images, or more, got {steps}")
    pair = _NodePair.of(model, clean, corrupt, dictionary, metric)
    shares = [None] if steps == 0 else [(step + 0.5) / steps for step in range(steps)]
    total = torch.zeros_like(pair.written_difference)
    for share in shares:
        moved = None if share is None else pair.clean_written + share * pair.written_difference
        hooks = [] if moved is None else edit_written(model, dictionary, pair.replacing(moved))
        [name] = model.hook_names([dictionary.config.writes])
        _, _, gradients = model.run_with_gradients(clean, metric, [name], fwd_hooks=hooks)
        total = total + per_token(gradients[name])[:, pair.chosen]
    with torch.no_grad():
        gradient = total / len(shares)
        effects = pair.latent_difference * (gradient @ dictionary.directions.detach().T)
        error = (pair.error_difference * gradient).sum(dim=(1, 2))
    return LatentAttribution(
        effects.sum(dim=1), error, effects if by_token else None, pair.clean_value, pair.corrupt_value
    )


@torch.no_grad()
def latent_patching(
    model: HookedViT,
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Float[Tensor, "batch channel height width"],
    metric: Metric,
    dictionary: Dictionary,
    latents: Sequence[int],
) -> Float[Tensor, "latent_and_error"]:
    """How far a metric moves when one latent takes its value of the corrupt run, at all tokens; then the error node.

    Exact: one run for each latent, with the error and all other latents as in the clean run. The same as patching
    `….dictionary.hook_latents` in a spliced model.

    Args:
        model: The model.
        clean: Images.
        corrupt: Their counterparts, image by image.
        metric: From logits to one number.
        dictionary: A dictionary of this model.
        latents: Their indices, such as `latent_attribution(…).top(20)`.

    Returns:
        One number for each latent, and one for the error node: metric after patching minus metric of the clean run.

    Raises:
        ValueError: As `latent_attribution`; or if there is no such latent.
    """
    chosen = check_latents(dictionary, latents)
    pair = _NodePair.of(model, clean, corrupt, dictionary, metric)
    directions = dictionary.directions.detach()
    moves = (pair.latent_difference[..., [latent]] * directions[latent] for latent in chosen)
    values = []
    for move in (*moves, pair.error_difference):
        hooks: list[Any] = edit_written(model, dictionary, pair.replacing(pair.clean_written + move))
        values.append(checked_metric(metric, model.run_with_hooks(clean, fwd_hooks=hooks), per_image=False))
    return torch.stack(values) - pair.clean_value


@dataclass(frozen=True)
class _NodePair:
    """The nodes of both runs at the dictionary's tokens, as differences, corrupt minus clean."""

    chosen: Tensor
    clean_written: Tensor
    written_difference: Tensor
    latent_difference: Tensor
    error_difference: Tensor
    clean_value: Tensor
    corrupt_value: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: HookedViT, clean: Tensor, corrupt: Tensor, dictionary: Dictionary, metric: Metric
    ) -> "_NodePair":
        if clean.shape != corrupt.shape:
            raise ValueError(
                f"expected a corrupt image for each clean one, of the same shape, got {tuple(corrupt.shape)} and "
                f"{tuple(clean.shape)}"
            )
        dictionary.check_fits(model)
        config = dictionary.config
        names = model.hook_names([config.reads, config.writes])
        values, written, latents = [], [], []
        for images in (clean, corrupt):
            logits, cache = model.run_with_cache(images, names_filter=names)
            y = per_token(cache[config.writes])
            chosen = chosen_tokens(model, config.tokens, y.shape[1])
            values.append(checked_metric(metric, logits, per_image=False))
            written.append(y[:, chosen])
            latents.append(dictionary.encode(per_token(cache[config.reads])[:, chosen]))
        latent_difference = latents[1] - latents[0]
        written_difference = written[1] - written[0]
        # the decoder is affine: its bias cancels
        error_difference = written_difference - latent_difference @ dictionary.directions
        return cls(chosen, written[0], written_difference, latent_difference, error_difference, *values)  # pyright: ignore[reportPossiblyUnbound]

    def replacing(self, values: Tensor) -> Callable[[Tensor], Tensor]:
        """The change of an activation that puts these values at the dictionary's tokens."""

        def replace(activation: Tensor) -> Tensor:
            edited = activation.clone()
            edited[:, self.chosen] = values
            return edited

        return replace

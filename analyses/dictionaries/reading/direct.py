"""The direct effect of each latent on a class logit: what it adds to the logit past all later blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from analyses.attribution import readout_gradient, readout_names
from analyses.dictionaries.dictionary import Dictionary
from analyses.dictionaries.reading.class_space import stream_directions
from analyses.dictionaries.tokens import chosen_tokens, per_token
from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache

__all__ = ["DirectEffects", "direct_effect_names", "direct_effects"]

_STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "hook_tokens")


@dataclass(frozen=True)
class DirectEffects:
    """Direct contributions to a class logit, in logits; together, those of the activation at the dictionary's tokens.

    Attributes:
        latents: Each latent, over all tokens that the head reads.
        bias: What the decoder gives without any latent.
        error: What the dictionary does not reconstruct.
        whole: The activation itself: the sum of the three.
    """

    latents: Float[Tensor, "batch latent"]
    bias: Float[Tensor, "batch"]
    error: Float[Tensor, "batch"]
    whole: Float[Tensor, "batch"]


def direct_effect_names(cfg: HookedViTConfig, dictionary: Dictionary) -> list[str]:
    """The hook points that `direct_effects` reads: a `names_filter` for `run_with_cache`."""
    config = dictionary.config
    return list(dict.fromkeys([*readout_names(cfg), config.reads, config.writes]))


@torch.no_grad()
def direct_effects(
    model: HookedViT,
    cache: ViTActivationCache,
    dictionary: Dictionary,
    classes: int | str | Sequence[int] | Int[Tensor, "batch"],
) -> DirectEffects:
    """Decompose what an activation adds to a class logit directly into a dictionary's latents.

    With the final norm's scale frozen at its value in the run, the logit is linear in the last stream, with gradient g
    (see `logit_attribution`). Latent i with activation `z_i` and direction `d_i` adds `z_i d_i · g` at each token that
    the head reads. What it does through later blocks is not in it: that is what `latent_attribution` estimates.

    Args:
        model: The model.
        cache: Holds the hook points of `direct_effect_names`, with a batch axis.
        dictionary: A dictionary of the stream, or of what a sub-layer adds to it.
        classes: The class, by index or name, or one index per image.

    Raises:
        ValueError: If none of the dictionary's tokens is read by the head (patches, where it reads CLS), it is of
            another activation, or the head does not read the stream linearly.

    >>> from analyses.dictionaries.dictionary import DictionaryConfig
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> point = "blocks.7.hook_resid_post"
    >>> dictionary = Dictionary(DictionaryConfig("relu", 128, 128, 40, point, point))
    >>> names = direct_effect_names(model.cfg, dictionary)
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=names)
    >>> direct_effects(model, cache, dictionary, "dog").latents.shape
    torch.Size([2, 40])
    """
    config = dictionary.config
    if config.writes.rsplit(".", 1)[-1] not in _STREAM:
        raise ValueError(
            f"expected a dictionary of the residual stream or of what a sub-layer adds to it, got one of "
            f"'{config.writes}': a direct effect is defined for what is added to the stream"
        )
    directions = stream_directions(model, dictionary)
    cache.require(direct_effect_names(model.cfg, dictionary), how="direct_effect_names(model.cfg, dictionary)")
    x, y = per_token(cache[config.reads]), per_token(cache[config.writes])
    gradient = readout_gradient(model, cache, classes, y.shape[1])
    chosen = chosen_tokens(model, config.tokens, y.shape[1])
    gradient = F.pad(gradient, (0, 0, 0, y.shape[1] - gradient.shape[1]))[:, chosen]
    if not gradient.any():
        raise ValueError(
            f"the head reads none of the tokens that this dictionary is for ('{config.tokens}'), so its latents have "
            "no direct effect: use latent_attribution, which follows them through later blocks"
        )
    latents = dictionary.encode(x[:, chosen])
    nothing = dictionary.decode(latents.new_zeros(config.d_dict))
    whole = (y[:, chosen] * gradient).sum(dim=(1, 2))
    by_latent = (latents * (gradient @ directions.T)).sum(dim=1)
    bias = (gradient @ nothing).sum(dim=1)
    error = ((y[:, chosen] - dictionary.decode(latents)) * gradient).sum(dim=(1, 2))
    return DirectEffects(by_latent, bias, error, whole)

"""Random dictionaries of the same sizes: the null model for any claim about a trained one."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from analyses.dictionaries.dictionary import Dictionary

__all__ = ["random_dictionary"]


@torch.no_grad()
def random_dictionary(
    like: Dictionary,
    seed: int = 0,
    k: int | None = None,
    activations: Float[Tensor, "*axes d_in"] | None = None,
    targets: Float[Tensor, "*axes d_out"] | None = None,
) -> Dictionary:
    """A dictionary of random directions, with as many active latents per token as a given one.

    Its directions have unit length and are drawn uniformly; it reads along the same directions (independent ones in a
    transcoder). It keeps the normalisation, and is of kind `"topk"`: whatever the activations are, k latents are active
    unless fewer are positive.

    Its latents have an arbitrary size, and reconstructions of the wrong size explain little or nothing, whatever their
    directions. Before you compare reconstructions, pass `activations`: one factor for all latents is then fitted to
    them by least squares, and a dictionary without a normalisation is centred on their mean. Rankings of activations,
    such as AUROC, do not depend on the factor.

    Args:
        like: The dictionary whose sizes, hook points, tokens and normalisation it has.
        seed: Seed of the draw.
        k: Active latents per token; the given dictionary's k by default.
        activations: What the given dictionary reads, to fit the size of the reconstructions to; some hundred tokens are
            enough.
        targets: For a transcoder, what it writes at the same tokens.

    Raises:
        ValueError: If the given dictionary has no k and none is passed, there are activations without a transcoder's
            targets or the other way round, or they do not vary or are not finite.

    >>> from analyses.dictionaries.dictionary import DictionaryConfig
    >>> like = Dictionary(DictionaryConfig("topk", 24, 24, 96, "hook_tokens", "hook_tokens", k=4))
    >>> random_dictionary(like).encode(torch.randn(5, 24)).count_nonzero(dim=-1)
    tensor([4, 4, 4, 4, 4])
    """
    active = like.config.k if k is None else k
    if active is None:
        raise ValueError(
            f"a dictionary of kind '{like.config.kind}' fixes no number of active latents: pass k, such as its mean "
            "number of active latents per token"
        )
    drawn = Dictionary(replace(like.config, kind="topk", k=active, group_sizes=()), {"random": True, "seed": seed})
    generator = torch.Generator().manual_seed(seed)

    def directions(width: int) -> torch.Tensor:
        return F.normalize(torch.randn(like.config.d_dict, width, generator=generator, dtype=torch.float64), dim=-1)

    drawn.W_dec.copy_(directions(like.config.d_out))
    drawn.W_enc.copy_(directions(like.config.d_in).T if like.config.is_transcoder else drawn.W_dec.T)
    for name in ("in_mean", "in_scale", "out_mean", "out_scale"):
        getattr(drawn, name).copy_(getattr(like, name))
    drawn = drawn.to(like.W_dec).eval()
    if activations is None and targets is None:
        return drawn
    if activations is None or like.config.is_transcoder != (targets is not None):
        raise ValueError(
            "expected activations, and for a transcoder (no other dictionary) their targets, got "
            f"{'no ' if activations is None else ''}activations and {'no ' if targets is None else ''}targets"
        )
    return _fitted(drawn, activations, activations if targets is None else targets)


def _fitted(drawn: Dictionary, activations: Tensor, targets: Tensor) -> Dictionary:
    """The dictionary with the centre (if it has none) and the size that suit activations best."""
    x, y = (values.flatten(0, -2).to(drawn.W_dec) for values in (activations, targets))
    if drawn.config.normalisation == "none":
        drawn.config = replace(drawn.config, normalisation="mean_and_scale")
        drawn.in_mean.copy_(x.mean(dim=0))
        drawn.out_mean.copy_(y.mean(dim=0))
    target, reconstruction = (values.double() - drawn.out_mean for values in (y, drawn(x)))
    factor = (target * reconstruction).sum() / reconstruction.square().sum()
    if not torch.isfinite(factor) or factor == 0:
        raise ValueError(
            "a random dictionary was fitted to activations that do not vary or are not finite: pass others"
        )
    # a transcoder's directions have arbitrary signs; those of the decoder keep their unit length
    drawn.W_enc.mul_(factor.abs())
    drawn.W_dec.mul_(factor.sign())
    return drawn

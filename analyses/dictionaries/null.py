"""Random dictionaries of the same sizes: the null model for any claim about a trained one."""

from dataclasses import replace

import torch
from torch.nn import functional as F

from analyses.dictionaries.dictionary import Dictionary

__all__ = ["random_dictionary"]


@torch.no_grad()
def random_dictionary(like: Dictionary, seed: int = 0, k: int | None = None) -> Dictionary:
    """A dictionary of random directions, with as many active latents per token as a given one.

    Its directions have unit length and are drawn uniformly; it reads along the same directions (independent ones in a
    transcoder). It keeps the normalisation, and is of kind `"topk"`: whatever the activations are, k latents are active
    unless fewer are positive.

    Args:
        like: The dictionary whose sizes, hook points, tokens and normalisation it has.
        seed: Seed of the draw.
        k: Active latents per token; the given dictionary's k by default.

    Raises:
        ValueError: If the given dictionary has no k, and none is passed.

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
    return drawn.to(like.W_dec).eval()

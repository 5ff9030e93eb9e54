"""The tokens that a dictionary is for, and activations as one vector per token."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.dictionaries.dictionary import Dictionary
from hooked_vit import HookedViT
from hooked_vit.interventions.replacing import Intervention, edit
from hooked_vit.interventions.selection import token_group

__all__ = ["chosen_tokens", "edit_written", "per_token"]


def per_token(activation: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch token width"]:
    """An activation with one vector per token: heads flattened; a vector per image becomes one token.

    >>> per_token(torch.zeros(2, 5, 3, 4)).shape, per_token(torch.zeros(2, 7)).shape
    (torch.Size([2, 5, 12]), torch.Size([2, 1, 7]))
    """
    return activation[:, None] if activation.ndim == 2 else activation.flatten(2)


def chosen_tokens(model: HookedViT, tokens: str, n_tokens: int) -> Bool[Tensor, "token"]:
    """The tokens of a run that belong to a group, on the model's device.

    Args:
        model: The model.
        tokens: A group of `hooked_vit.interventions`: `any`, `cls`, `patch`, ….
        n_tokens: The number of tokens that the activation has.

    Raises:
        ValueError: If there is no such group, or the model has no such token.

    >>> chosen_tokens(HookedViT.from_pretrained("emoji-vit"), "cls", 65).nonzero().tolist()
    [[0]]
    """
    device = model.embed.weight.device
    if tokens == "any":  # also of activations that have other tokens than the stream
        return torch.ones(n_tokens, dtype=torch.bool, device=device)
    return token_group(model.token_layout, tokens, n_tokens).to(device)


def edit_written(
    model: HookedViT,
    dictionary: Dictionary,
    change: Callable[[Float[Tensor, "batch token d_out"]], Float[Tensor, "batch token d_out"]],
) -> Intervention:
    """Hooks that replace what a dictionary reconstructs, at its tokens, by `change` of it.

    >>> from analyses.dictionaries.dictionary import DictionaryConfig
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> point = "blocks.7.hook_resid_post"
    >>> patches = Dictionary(DictionaryConfig("relu", 128, 128, 4, point, point, tokens="patch"))
    >>> images = torch.zeros(1, 3, 64, 64)
    >>> erased = model.run_with_hooks(images, fwd_hooks=edit_written(model, patches, torch.zeros_like))
    >>> torch.equal(erased, model(images))  # this head reads CLS
    True
    """

    def changed(activation: Tensor, name: str) -> Tensor:
        return change(per_token(activation)).reshape(activation.shape)

    where = {} if dictionary.tokens == "any" else {"tokens": dictionary.tokens}
    return edit(model, [dictionary.config.writes], changed, **where)

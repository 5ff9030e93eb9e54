"""How attention, MLPs and heads move tokens towards their class, and where a block's top class comes from."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from analyses.categorical_updates.block_projections import BlockProjections, Reference, Sublayer
from analyses.projection import Lens
from hooked_vit import HookedViT, ViTActivationCache
from hooked_vit.interventions.selection import Tokens, select_tokens

__all__ = [
    "ResidualComposition",
    "SimilarityChangeRate",
    "residual_composition",
    "similarity_change_rate",
    "similarity_increase",
]


@dataclass(frozen=True)
class SimilarityChangeRate:
    """Share of tokens that a sub-layer's output moves towards their class; for heads, with a head axis.

    Attributes:
        patch: Share of all patch tokens.
        prefix: Share for each prefix token (CLS, distillation, registers), in the order of the token layout.
    """

    patch: Float[Tensor, "layer *head"]
    prefix: Float[Tensor, "layer prefix *head"]


@dataclass(frozen=True)
class ResidualComposition:
    """Percent of tokens whose top class after a block is that of one of its parts; parts may agree with each other.

    Attributes:
        previous: The top class is that of the block's input.
        attn: It is that of what attention adds.
        mlp: It is that of what the MLP adds.
        none: It is that of none of the three: the class is a composition.
    """

    previous: Float[Tensor, "layer"]
    attn: Float[Tensor, "layer"]
    mlp: Float[Tensor, "layer"]
    none: Float[Tensor, "layer"]


def similarity_increase(
    model: HookedViT,
    cache: ViTActivationCache,
    labels: Int[Tensor, "batch"],
    sublayer: Sublayer,
    reference: Reference = "block_input",
    *,
    sublayer_norm: bool = False,
    lens: Lens | None = None,
) -> Float[Tensor, "layer batch token *head"]:
    """How much greater the correct class's logit is in a sub-layer's output than in the reference.

    `p_c(output) - p_c(reference)`, both projected with their own norm statistics (paper, section 5.1).

    Args:
        model: The model that the cache comes from.
        cache: With `resid_pre`, `resid_post`, what the sub-layer adds (`attn_out`, `mlp_out`; for heads `attn.hook_z`)
            and, for the MLP's `layer_input`, `resid_mid`.
        labels: The class of each image.
        sublayer: `attn`, `mlp`, `heads` (each head's share of `attn_out`, with a head axis), or `block` (the stream
            after the block).
        reference: `block_input`, as in the published figures, or `layer_input`: what the sub-layer itself reads (in
            parallel blocks the same).
        sublayer_norm: As for `project`.
        lens: As for `project`.

    Raises:
        ValueError: If the cache lacks a hook point, `sublayer` or `reference` is unknown, or the model has a single
            class.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64))
    >>> similarity_increase(model, cache, torch.tensor([3, 14]), "heads").shape
    torch.Size([8, 2, 65, 4])
    """
    return BlockProjections.of_cache(model, cache, labels, sublayer_norm, lens).increase(sublayer, reference)


def similarity_change_rate(
    model: HookedViT,
    cache: ViTActivationCache,
    labels: Int[Tensor, "batch"],
    sublayer: Sublayer,
    reference: Reference = "block_input",
    *,
    sublayer_norm: bool = False,
    lens: Lens | None = None,
) -> SimilarityChangeRate:
    """Class-similarity change rate (paper, section 5.1): share of tokens with a `similarity_increase` above zero.

    Arguments are those of `similarity_increase`.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64))
    >>> rate = similarity_change_rate(model, cache, torch.tensor([3, 14]), "mlp")
    >>> rate.patch.shape, rate.prefix.shape
    (torch.Size([8]), torch.Size([8, 1]))
    """
    increase = similarity_increase(model, cache, labels, sublayer, reference, sublayer_norm=sublayer_norm, lens=lens)
    rises, layout = (increase > 0).float(), model.token_layout
    return SimilarityChangeRate(
        patch=rises[:, :, layout.patches].mean(dim=(1, 2)), prefix=rises[:, :, layout.prefix].mean(dim=1)
    )


def residual_composition(
    model: HookedViT,
    cache: ViTActivationCache,
    tokens: Tokens = "any",
    *,
    sublayer_norm: bool = False,
    lens: Lens | None = None,
) -> ResidualComposition:
    """Residual stream composition (paper, section 5.1): where the top class after a block comes from.

    The published code counts a token as composed (`none`) where its class is neither the previous block's nor
    attention's: it tests attention twice and the MLP never. Here `none` leaves out all three, so it is smaller
    than published.

    Args:
        model: The model that the cache comes from.
        cache: With `resid_pre`, `attn_out`, `mlp_out` and `resid_post`.
        tokens: Which tokens are counted, as for interventions: indices, a slice, a group such as `"patch"`, or a bool
            mask, [token] or [batch token]; all (`"any"`, also `"all"`) in the published figures.
        sublayer_norm: As for `project`.
        lens: As for `project`.

    Raises:
        ValueError: If there are no such tokens, none is counted, or the model has a single class.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64))
    >>> residual_composition(model, cache).none.shape
    torch.Size([8])
    """
    model.require_several_classes("the top class after a block")
    matches = BlockProjections.of_cache(model, cache, None, sublayer_norm, lens).matches()
    n_images, n_tokens = matches.shape[2:]
    group = "any" if isinstance(tokens, str) and tokens == "all" else tokens
    counted = select_tokens(group, model.token_layout, n_tokens, n_images=n_images).expand(n_images, n_tokens)
    if not counted.any():
        raise ValueError("expected at least one token to count, got a mask without any")
    return ResidualComposition(*(100 * matches[..., counted.to(matches.device)].float().mean(dim=2)))

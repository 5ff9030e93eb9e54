"""What gives a number to every token: a dictionary's latents, and the baselines that they are compared with."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from analyses.data.dataset import LabelledImages
from analyses.dictionaries.dictionary import Dictionary
from analyses.dictionaries.images import image_batches
from analyses.dictionaries.tokens import chosen_tokens, per_token
from analyses.value_vectors.vectors import block_index, value_vectors
from hooked_vit import HookedViT

__all__ = ["Features", "latent_features", "neuron_features", "pca_features", "value_vector_features"]


@dataclass(frozen=True)
class Features:
    """Numbers that each token has: latents, neurons, or coordinates along directions.

    Attributes:
        name: What tables call them.
        reads: The hook point, by its full name.
        encode: From the activation there to the features.
        tokens: The group of tokens that has them: `any`, `cls`, `patch`, ….
    """

    name: str
    reads: str
    encode: Callable[[Float[Tensor, "*axes d_in"]], Float[Tensor, "*axes feature"]]
    tokens: str = "any"

    def called(self, name: str) -> "Features":
        """The same under another name."""
        return replace(self, name=name)


def latent_features(dictionary: Dictionary, name: str = "latents") -> Features:
    """The latents of a dictionary.

    >>> from analyses.dictionaries.dictionary import DictionaryConfig
    >>> config = DictionaryConfig("relu", 24, 24, 96, "hook_tokens", "hook_tokens", tokens="patch")
    >>> latent_features(Dictionary(config)).tokens
    'patch'
    """
    return Features(name, dictionary.config.reads, dictionary.encode, dictionary.config.tokens)


def neuron_features(model: HookedViT, layer: int, tokens: str = "any") -> Features:
    """The neurons of a block's MLP, after the non-linearity.

    >>> neuron_features(HookedViT.from_pretrained("emoji-vit"), 5).reads
    'blocks.5.mlp.hook_post'
    """
    return Features("neurons", f"blocks.{block_index(model.cfg, layer)}.mlp.hook_post", _identity, tokens)


def value_vector_features(model: HookedViT, layer: int, reads: str, tokens: str = "any") -> Features:
    """How far an activation points along each value vector of a block's MLP: the dot product at unit length.

    Both signs are features of their own, as for principal components: either side may be what a factor moves.

    >>> features = value_vector_features(HookedViT.from_pretrained("emoji-vit"), 5, "blocks.5.hook_resid_post")
    >>> features.encode(torch.zeros(2, 65, 128)).shape
    torch.Size([2, 65, 1024])
    """
    return Features("value vectors", reads, _both_sides(F.normalize(value_vectors(model, layer), dim=-1)), tokens)


@torch.no_grad()
def pca_features(
    model: HookedViT,
    dataset: LabelledImages,
    reads: str,
    tokens: str = "any",
    *,
    batch_size: int = 32,
    limit: int | None = None,
) -> Features:
    """The principal components of an activation's tokens over a dataset, with both signs.

    Streaming: only sums and products of tokens are held.

    Args:
        model: The model.
        dataset: Images; labels play no part.
        reads: The hook point, by its full name.
        tokens: As for `Features`.
        batch_size: Images per forward pass.
        limit: Only so many images.

    Raises:
        ValueError: If the hook point or the tokens do not exist.

    >>> from analyses.data import EmojiScenes
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> pca = pca_features(model, EmojiScenes(8, seed=0), "blocks.5.hook_resid_post", "patch")
    >>> pca.encode(torch.zeros(2, 65, 128)).shape
    torch.Size([2, 65, 256])
    """
    [name] = model.hook_names([reads])
    n_seen, total, products = 0, torch.zeros(()), torch.zeros(())
    for batch in image_batches(model, dataset, [name], batch_size=batch_size, limit=limit, progress=False):
        activation = per_token(batch.cache[name])
        kept = activation[:, chosen_tokens(model, tokens, activation.shape[1])].flatten(0, 1)
        wide = kept.cpu().double()  # mps has no float64
        n_seen, total, products = n_seen + len(wide), total + wide.sum(dim=0), products + wide.T @ wide
    mean = total / n_seen
    components = torch.linalg.eigh(products / n_seen - torch.outer(mean, mean)).eigenvectors.T.flip(0)
    weight = model.embed.weight
    return Features("PCA", name, _both_sides(components.to(weight), mean.to(weight)), tokens)


def _identity(activation: Tensor) -> Tensor:
    return activation


def _both_sides(directions: Float[Tensor, "direction d_in"], centre: Tensor | None = None) -> Callable[..., Tensor]:
    def along(activation: Float[Tensor, "*axes d_in"]) -> Float[Tensor, "*axes feature"]:
        centred = activation if centre is None else activation - centre
        coordinates = centred @ directions.T
        return torch.cat([coordinates, -coordinates], dim=-1)

    return along

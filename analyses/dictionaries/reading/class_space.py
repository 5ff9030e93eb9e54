"""Latents in class space: which classes each direction promotes, by the functions that read value vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from analyses.dictionaries.dictionary import Dictionary
from analyses.value_vectors.coherence import coherence_of_classes
from analyses.value_vectors.taxonomy import Taxonomy, class_similarity
from analyses.value_vectors.vectors import check_k, read_by_head, value_logits, value_vectors
from hooked_vit import HookedViT
from hooked_vit.interventions import random_directions

__all__ = [
    "LatentCoherence", "compare_coherence", "decoder_logits", "latent_classes", "latent_coherence", "stream_directions",
]  # fmt: skip

_IN_STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "hook_embed",
              "hook_tokens")  # fmt: skip


@torch.no_grad()
def stream_directions(model: HookedViT, dictionary: Dictionary) -> Float[Tensor, "latent d_model"]:
    """What one unit of each latent adds to the residual stream.

    That is its decoder direction, in the activation's own units. A dictionary of an MLP's neurons or of the heads' z is
    multiplied by the output matrix, as value vectors are stored, LayerScale included (and, as there, without the norm
    of a post-norm block).

    Raises:
        ValueError: If the dictionary is of another model, or reconstructs something else than the stream, what is added
            to it, neurons or z.

    >>> from analyses.dictionaries.dictionary import DictionaryConfig
    >>> neurons = Dictionary(DictionaryConfig("relu", 512, 512, 40, "blocks.2.mlp.hook_post", "blocks.2.mlp.hook_post"))
    >>> stream_directions(HookedViT.from_pretrained("emoji-vit"), neurons).shape
    torch.Size([40, 128])
    """
    dictionary.check_fits(model)
    name = dictionary.config.writes
    directions = dictionary.directions.detach()
    if name.rsplit(".", 1)[-1] in _IN_STREAM:
        return directions
    for last, sublayer in ((".mlp.hook_post", "mlp"), (".attn.hook_z", "attn")):
        if name.startswith("blocks.") and name.endswith(last):
            return directions @ value_vectors(model, int(name.split(".")[1]), sublayer, layer_scale=True)  # pyright: ignore[reportArgumentType]
    raise ValueError(
        f"'{name}' adds nothing to the residual stream that classes could be read from: expected a dictionary of the "
        "stream, attn_out, mlp_out, mlp.hook_post or attn.hook_z"
    )


@torch.no_grad()
def decoder_logits(
    model: HookedViT, dictionary: Dictionary, *, unit_length: bool = False
) -> Float[Tensor, "latent n_classes"]:
    """Project the decoder's directions onto the classes: `D W_U`, without norm and without bias, as `value_logits`.

    Args:
        model: The model.
        dictionary: A dictionary of this model.
        unit_length: Whether to normalise directions and class embeddings to unit length: cosines, -1 to 1.

    Raises:
        ValueError: As `stream_directions`; or if the model has no classes.

    >>> from analyses.dictionaries.dictionary import DictionaryConfig
    >>> point = "blocks.5.hook_resid_post"
    >>> dictionary = Dictionary(DictionaryConfig("relu", 128, 128, 40, point, point))
    >>> decoder_logits(HookedViT.from_pretrained("emoji-vit"), dictionary).shape
    torch.Size([40, 100])
    """
    directions = stream_directions(model, dictionary)
    if not unit_length:
        return model.class_logits(directions, normalise=False, bias=False)
    return F.normalize(read_by_head(model, directions), dim=-1) @ F.normalize(model.W_U, dim=0)


def latent_classes(
    model: HookedViT,
    dictionary: Dictionary,
    latents: Sequence[int] | None = None,
    k: int = 5,
    *,
    unit_length: bool = False,
) -> pd.DataFrame:
    """The classes that latents promote: those with the `k` largest logits of each direction.

    Args:
        model: The model.
        dictionary: A dictionary of this model.
        latents: Their indices; by default all.
        k: Number of classes.
        unit_length: As for `decoder_logits`.

    Returns:
        Columns `latent`, `place` (from 1), `class_index`, `class_name`, `logit`.

    Raises:
        ValueError: As `decoder_logits`; if there is no such latent, or k is out of range.
    """
    model.require_several_classes("the top classes of a latent")
    check_k(k, model.cfg.n_classes, "classes")
    chosen = check_latents(dictionary, range(dictionary.config.d_dict) if latents is None else latents)
    top = decoder_logits(model, dictionary, unit_length=unit_length)[chosen].topk(k)
    names = model.class_names
    return pd.DataFrame(
        {
            "latent": torch.tensor(chosen).repeat_interleave(k).numpy(),
            "place": torch.arange(1, k + 1).repeat(len(chosen)).numpy(),
            "class_index": top.indices.flatten().cpu().numpy(),
            "class_name": [names[index] for index in top.indices.flatten().tolist()],
            "logit": top.values.flatten().cpu().double().numpy(),
        }
    )


def check_latents(dictionary: Dictionary, latents: Sequence[int]) -> list[int]:
    """Latents as a list; ValueError if there is none, or one does not exist."""
    chosen, n = [int(latent) for latent in latents], dictionary.config.d_dict
    outside = [latent for latent in chosen if not 0 <= latent < n]
    if outside or not chosen:
        raise ValueError(f"expected latents from 0 to {n - 1}, got {outside or 'none'}")
    return chosen


@dataclass(frozen=True)
class LatentCoherence:
    """How similar in meaning the top classes of directions are, 0 (nothing in common) to 1 (the same leaf).

    Attributes:
        top_classes: The top classes, largest logit first.
        score: Mean similarity over pairs of top classes.
        p_value: For each direction, the share of all directions, over all permutations of the class labels, that score
            as high.
        null: The mean score under each permutation.
    """

    top_classes: Int[Tensor, "latent k"]
    score: Float[Tensor, "latent"]
    p_value: Float[Tensor, "latent"]
    null: Float[Tensor, "permutation"]


@torch.no_grad()
def latent_coherence(
    model: HookedViT,
    dictionary: Dictionary,
    taxonomy: Taxonomy,
    k: int = 5,
    *,
    n_permutations: int = 999,
    seed: int = 0,
) -> LatentCoherence:
    """Score every latent: the mean similarity of the classes of its direction's k largest logits.

    The same score as `semantic_coherence` gives value vectors.

    Raises:
        ValueError: As `decoder_logits`; if the taxonomy does not match the classes, or k is out of range.

    >>> from analyses.dictionaries.dictionary import DictionaryConfig
    >>> from analyses.value_vectors import emoji_taxonomy
    >>> point = "blocks.5.hook_resid_post"
    >>> dictionary = Dictionary(DictionaryConfig("relu", 128, 128, 40, point, point))
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> latent_coherence(model, dictionary, emoji_taxonomy(), n_permutations=9).score.shape
    torch.Size([40])
    """
    model.require_several_classes("semantic coherence")
    return _coherence(decoder_logits(model, dictionary), _similarity(model, taxonomy), k, n_permutations, seed)


@torch.no_grad()
def compare_coherence(
    model: HookedViT,
    dictionary: Dictionary,
    taxonomy: Taxonomy,
    layer: int,
    k: int = 5,
    *,
    n_permutations: int = 999,
    seed: int = 0,
) -> pd.DataFrame:
    """Semantic coherence of latents beside that of a block's value vectors and of random directions.

    Args:
        model: The model.
        dictionary: A dictionary of this model.
        taxonomy: One path per class.
        layer: The block whose MLP's value vectors are compared.
        k: Number of top classes.
        n_permutations: Number of permutations of the class labels.
        seed: Seed of the permutations and of the random directions, one per latent and as long.

    Returns:
        One row each for `latents`, `value vectors`, `random directions`: `directions`, `n_directions`, `value` (mean
        score), `null` (its mean under permutation), `p_value`.

    Raises:
        ValueError: As `latent_coherence`; or if there is no such block.
    """
    model.require_several_classes("semantic coherence")
    similarity = _similarity(model, taxonomy)
    drawn = random_directions(stream_directions(model, dictionary), seed)
    kinds = {
        "latents": decoder_logits(model, dictionary),
        "value vectors": value_logits(model, layer, "mlp"),
        "random directions": model.class_logits(drawn, normalise=False, bias=False),
    }
    rows: list[dict[str, Any]] = []
    for name, logits in kinds.items():
        found = _coherence(logits, similarity, k, n_permutations, seed)
        mean = float(found.score.mean())
        as_high = int((found.null >= mean - 1e-6).sum())
        rows.append(
            {
                "directions": name,
                "n_directions": len(logits),
                "value": mean,
                "null": float(found.null.mean()),
                "p_value": (1 + as_high) / (1 + n_permutations),
            }
        )
    return pd.DataFrame(rows)


def _similarity(model: HookedViT, taxonomy: Taxonomy) -> Tensor:
    similarity = class_similarity(taxonomy)
    if len(similarity) != model.cfg.n_classes:
        raise ValueError(
            f"expected one path per class, {model.cfg.n_classes}, got {len(similarity)}: pass a taxonomy of this "
            "model's classes"
        )
    return similarity


def _coherence(logits: Tensor, similarity: Tensor, k: int, n_permutations: int, seed: int) -> LatentCoherence:
    if not 2 <= k <= logits.shape[1]:
        raise ValueError(f"k must be from 2 to the number of classes, {logits.shape[1]}, got {k}")
    top = logits.topk(k).indices
    score, p_value, null = coherence_of_classes(top, similarity.to(top.device), n_permutations, seed)
    return LatentCoherence(top, score, p_value, null)

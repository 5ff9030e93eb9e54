"""The numbers of a dictionary page: for each latent its frequency, pictures, maps, classes and best factor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.data.dataset import LabelledImages
from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.dictionaries.dictionary import Dictionary
from analyses.dictionaries.reading.class_space import decoder_logits, latent_coherence
from analyses.dictionaries.reading.top_pictures import LatentSurvey, histogram_edges, latent_maps, survey_latents
from analyses.dictionaries.scores.factors import Factors, label_factors, scene_factors
from analyses.dictionaries.scores.features import latent_features
from analyses.dictionaries.scores.measurable import MIN_IMAGES, measurable, permuted
from analyses.dictionaries.scores.monosemanticity import FOUND
from analyses.dictionaries.scores.pooling import PooledFeatures, halves, pool_features
from analyses.dictionaries.scores.ranking import auroc
from analyses.pages.explorer.packing import packed
from analyses.value_vectors.taxonomy import taxonomy_of
from hooked_vit import HookedViT

__all__ = ["DictionaryContent", "dictionary_content", "true_factors"]

_LEVELS = 255
_N_CLASSES = 5
_N_PERMUTATIONS = 5


@dataclass(frozen=True)
class DictionaryContent:
    """What a page shows.

    Attributes:
        data: For the page's script.
        pictures: The indices in the dataset of the pictures that it shows, in the order in which `data` counts them.
        survey: What the pass over the dataset found.
        latents: The latents that the page lists.
    """

    data: dict[str, Any]
    pictures: list[int]
    survey: LatentSurvey
    latents: list[int]


def dictionary_content(
    model: HookedViT,
    dataset: LabelledImages,
    dictionary: Dictionary,
    *,
    n_latents: int,
    n_pictures: int,
    min_images: int = MIN_IMAGES,
    limit: int | None = None,
    batch_size: int = 32,
    progress: bool | None = None,
) -> DictionaryContent:
    """The content of a dictionary page, from two passes over a dataset.

    Latents are those that fire most often, `n_latents` at most, in the order of their index. The best factor of a
    latent is the factor value with the largest AUROC on one half of the images; its AUROC is that of the other half.
    Values with fewer than `min_images` images, with or without, in one of the halves are left out.

    Raises:
        ValueError: If the dictionary is of another model, no latent fires, or a number is not positive.
    """
    if n_latents < 1:
        raise ValueError(f"expected at least one latent on the page, got {n_latents}")
    survey = survey_latents(
        model, dataset, dictionary, n_pictures, limit=limit, batch_size=batch_size, progress=progress
    )
    fires = survey.n_active > 0
    if not fires.any():
        raise ValueError(f"none of the {len(fires)} latents is active at any token of {survey.total_images} pictures")
    most = survey.n_active.argsort(descending=True, stable=True)[: min(n_latents, int(fires.sum()))]
    latents = most.sort().values
    shown = latents.tolist()
    maps = latent_maps(model, dataset, dictionary, survey, shown, batch_size=batch_size)
    index = survey.index[latents]
    pictures = index[index >= 0].unique()
    pooled = pool_features(
        model, dataset, [latent_features(dictionary)], limit=limit, batch_size=batch_size, progress=progress
    )["latents"]
    logits = decoder_logits(model, dictionary)[latents.to(model.embed.weight.device)].cpu()
    top = logits.topk(min(_N_CLASSES, logits.shape[1]))
    bottom = (-logits).topk(min(_N_CLASSES, logits.shape[1]))
    layout = model.token_layout
    taxonomy = taxonomy_of(model.class_names)
    coherence = None if taxonomy is None else latent_coherence(model, dictionary, taxonomy, n_permutations=99)
    frequency = survey.frequency[latents]
    data = {
        "latents": shown,
        "frequency": [float(f"{value:.4g}") for value in frequency.tolist()],
        "coherence": None if coherence is None else _rounded(coherence.score[latents]),
        "largest": _rounded(survey.activation[latents, 0]),
        "picture": packed(torch.where(index >= 0, torch.searchsorted(pictures, index), len(pictures))),
        "maps": packed(_quantised(maps)),
        "peaks": packed(maps.amax(dim=-1)),
        "histogram": packed(survey.histogram[latents]),
        "edges": histogram_edges().tolist(),
        "top": [top.indices.tolist(), [_rounded(row) for row in top.values]],
        "bottom": [bottom.indices.tolist(), [_rounded(-row) for row in bottom.values]],
        "classes": list(model.class_names),
        "labels": survey_labels(survey, latents, pictures),
        "grid": list(layout.grid),
        "prefix": list(layout.token_types[: layout.n_prefix]),
        "n_images": survey.total_images,
        "n_tokens": survey.total_tokens,
        "n_all": dictionary.config.d_dict,
        "n_dead": int((~fires).sum()),
        "found": FOUND,
        **factor_numbers(pooled, true_factors(model, dataset, pooled), shown, min_images),
    }
    return DictionaryContent(data, pictures.tolist(), survey, shown)


def survey_labels(survey: LatentSurvey, latents: Tensor, pictures: Tensor) -> list[int]:
    """The class of each picture that is shown."""
    index, label = survey.index[latents].flatten(), survey.label[latents].flatten()
    labels = torch.zeros(len(pictures), dtype=torch.long)
    known = index >= 0
    labels[torch.searchsorted(pictures, index[known])] = label[known]
    return labels.tolist()


def factor_numbers(
    pooled: PooledFeatures, factors: Factors, latents: Sequence[int], min_images: int = MIN_IMAGES
) -> dict[str, Any]:
    """The best factor values of each latent: chosen on one half of the images, measured on the other.

    `factors` are the names of factor and value; `best` the three best values of each latent, `best_auroc` theirs on
    the images they were not chosen on; `null_found` how many latents would tell a factor apart if the factors belonged
    to other images (mean of permutations). Values with fewer than `min_images` in one half are left out, `n_left_out`
    of them.
    """
    first, second = halves(len(pooled))
    columns = measurable(factors.truth, first, second, min_images=min_images)
    values, truth = pooled.values[:, torch.tensor(list(latents))].float(), factors.truth[:, columns]
    best, areas = _best_values(values, truth, first, second)
    null = [
        _best_values(values, permuted(truth, first, second, seed=seed), first, second)[1][:, :1]
        for seed in range(_N_PERMUTATIONS)
    ]
    return {
        "factors": [list(factors.names[column]) for column in columns],
        "best": best.tolist(),
        "best_auroc": [_rounded(row) for row in areas],
        "null_found": sum(int((one >= FOUND).sum()) for one in null) / len(null),
        "n_left_out": len(factors.names) - len(columns),
        "min_images": min_images,
    }


def _best_values(values: Tensor, truth: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The three best columns of each latent on the first half, and their AUROC on the second: [latent 3]."""
    best = auroc(values[first], truth[first]).topk(min(3, truth.shape[1]), dim=1).indices
    return best, auroc(values[second], truth[second]).gather(1, best)


def true_factors(model: HookedViT, dataset: LabelledImages, pooled: PooledFeatures) -> Factors:
    """The true factors of the images of a dataset: of Emoji Scenes all, of others the class and its taxonomy."""
    if isinstance(dataset, EmojiScenes):
        return scene_factors(dataset, pooled.index)
    return label_factors(pooled.labels, model.class_names, taxonomy_of(model.class_names))


def _quantised(maps: Float[Tensor, "latent k token"]) -> Tensor:
    """Maps as whole numbers, relative to the largest number of each; not 0 where the latent is active."""
    largest = maps.amax(dim=-1, keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    stored = (maps.clamp_min(0) / largest * _LEVELS).ceil()
    return stored.to(torch.int64)


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]

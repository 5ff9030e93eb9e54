"""Where latents fire: how often, how strongly, in which pictures of a dataset and at which of their patches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.data.dataset import LabelledImages
from analyses.dictionaries.dictionary import Dictionary
from analyses.dictionaries.images import image_batches, images_of
from analyses.dictionaries.reading.class_space import check_latents
from analyses.dictionaries.tokens import chosen_tokens, per_token
from hooked_vit import HookedViT

__all__ = ["LatentSurvey", "histogram_edges", "latent_maps", "survey_latents"]

_LOWEST, _HIGHEST, _PER_OCTAVE = -6, 10, 2


@dataclass(frozen=True)
class LatentSurvey:
    """What a pass over a dataset says of each latent.

    Attributes:
        activation: The largest activation in each of the pictures that activate it most, largest first; 0 where fewer
            pictures activate it.
        index: The index of these pictures in the dataset; -1 where there are fewer.
        label: Their classes; -1 where there are fewer.
        n_active: The number of tokens at which it was active.
        n_images: The number of pictures in which it was active somewhere.
        histogram: How many of its active tokens are in each bin of `histogram_edges`.
        total_tokens: The number of tokens that were seen.
        total_images: The number of pictures.
    """

    activation: Float[Tensor, "latent k"]
    index: Int[Tensor, "latent k"]
    label: Int[Tensor, "latent k"]
    n_active: Int[Tensor, "latent"]
    n_images: Int[Tensor, "latent"]
    histogram: Int[Tensor, "latent bin"]
    total_tokens: int
    total_images: int

    @property
    def frequency(self) -> Float[Tensor, "latent"]:
        """The share of tokens at which a latent is active."""
        return self.n_active.double() / self.total_tokens


def histogram_edges() -> Float[Tensor, "edge"]:
    """The upper edges of the histogram's bins but the last: half octaves from 2^-6 to 2^10.

    What is smaller counts in the first bin, what is larger in the last.

    >>> edges = histogram_edges()
    >>> len(edges), float(edges[0]), float(edges[-1])
    (33, 0.015625, 1024.0)
    """
    return 2.0 ** torch.arange(_LOWEST, _HIGHEST + 1e-9, 1 / _PER_OCTAVE)


@torch.no_grad()
def survey_latents(
    model: HookedViT,
    dataset: LabelledImages,
    dictionary: Dictionary,
    k: int = 9,
    *,
    batch_size: int = 32,
    limit: int | None = None,
    progress: bool | None = None,
) -> LatentSurvey:
    """Count every latent's activations over a dataset, and keep the k pictures that activate it most.

    Memory does not grow with the dataset: k pictures are kept per latent, by their index. Of equal pictures, the first.

    Args:
        model: The model.
        dataset: The pictures.
        dictionary: A dictionary of this model.
        k: Number of pictures per latent.
        batch_size: Images per forward pass.
        limit: Only so many images.
        progress: Whether to show a bar; by default on a terminal.

    Raises:
        ValueError: If the dictionary is of another model, or there is no image.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.dictionaries.dictionary import DictionaryConfig
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> point = "blocks.5.hook_resid_post"
    >>> dictionary = Dictionary(DictionaryConfig("topk", 128, 128, 40, point, point, k=2))
    >>> survey_latents(model, EmojiScenes(4, seed=0), dictionary, k=2, progress=False).index.shape
    torch.Size([40, 2])
    """
    dictionary.check_fits(model)
    if k < 1:
        raise ValueError(f"expected at least one picture per latent, got k={k}")
    d_dict, reads = dictionary.config.d_dict, model.hook_names([dictionary.config.reads])
    device = model.embed.weight.device
    best = torch.zeros(d_dict, k, device=device)
    index = torch.full((d_dict, k), -1, device=device)
    label = torch.full((d_dict, k), -1, device=device)
    edges = histogram_edges().to(device)
    n_bins = len(edges) + 1
    histogram = torch.zeros(d_dict * n_bins, dtype=torch.long, device=device)
    n_images = torch.zeros(d_dict, dtype=torch.long, device=device)
    total_tokens = total_images = 0
    for batch in image_batches(model, dataset, reads, batch_size=batch_size, limit=limit, progress=progress):
        latents = _encoded(model, dictionary, batch.cache[reads[0]])
        largest = latents.amax(dim=1).T.float()  # [latent image]
        n_images += (largest > 0).sum(dim=1)
        _, _, which = at = latents.nonzero(as_tuple=True)
        bins = torch.bucketize(latents[at].float(), edges)
        histogram += torch.bincount(which * n_bins + bins, minlength=len(histogram))
        values = torch.cat([best, largest], dim=1)
        # stable, so that the first of equal pictures is kept
        order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
        best = values.gather(1, order)
        index = torch.cat([index, batch.index.expand(d_dict, -1)], dim=1).gather(1, order)
        label = torch.cat([label, batch.labels.expand(d_dict, -1)], dim=1).gather(1, order)
        total_tokens += latents.shape[0] * latents.shape[1]
        total_images += len(latents)
    silent = best <= 0
    counts = histogram.reshape(d_dict, n_bins)
    return LatentSurvey(
        activation=best.cpu(),
        index=index.masked_fill(silent, -1).cpu(),
        label=label.masked_fill(silent, -1).cpu(),
        n_active=counts.sum(dim=1).cpu(),
        n_images=n_images.cpu(),
        histogram=counts.cpu(),
        total_tokens=total_tokens,
        total_images=total_images,
    )


@torch.no_grad()
def latent_maps(
    model: HookedViT,
    dataset: LabelledImages,
    dictionary: Dictionary,
    survey: LatentSurvey,
    latents: Sequence[int],
    *,
    batch_size: int = 32,
) -> Float[Tensor, "latent k token"]:
    """Each latent's activation at every token of its pictures in a survey; 0 where it has fewer pictures.

    Pictures are run again, each once.

    Args:
        model: The model.
        dataset: The dataset of the survey.
        dictionary: The dictionary of the survey.
        survey: Which pictures.
        latents: Which latents.
        batch_size: Images per forward pass.

    Returns:
        For the stream's tokens; tokens that the dictionary is not for are 0.

    Raises:
        ValueError: If there is no such latent.
    """
    chosen = torch.tensor(check_latents(dictionary, latents))
    wanted = survey.index[chosen]  # [latent k]
    pictures = wanted[wanted >= 0].unique()
    [reads] = model.hook_names([dictionary.config.reads])
    maps: Tensor | None = None
    for start in range(0, len(pictures), batch_size):
        part = pictures[start : start + batch_size]
        images = images_of(model, dataset, part.tolist())
        _, cache = model.run_with_cache(images, names_filter=[reads])
        activation = per_token(cache[reads])
        tokens = chosen_tokens(model, dictionary.config.tokens, activation.shape[1])
        if maps is None:
            maps = torch.zeros(*wanted.shape, activation.shape[1])
        latents_of_part = _encoded(model, dictionary, cache[reads]).float().cpu()
        row, place = torch.isin(wanted, part).nonzero(as_tuple=True)
        image = torch.searchsorted(part, wanted[row, place])
        filled = maps[row, place]
        filled[:, tokens.cpu()] = latents_of_part[image, :, chosen[row]]
        maps[row, place] = filled
    return torch.zeros(*wanted.shape, model.token_layout.n_tokens) if maps is None else maps


def _encoded(model: HookedViT, dictionary: Dictionary, activation: Tensor) -> Float[Tensor, "batch token latent"]:
    rows = per_token(activation)
    return dictionary.encode(rows[:, chosen_tokens(model, dictionary.config.tokens, rows.shape[1])])

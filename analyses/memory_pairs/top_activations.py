"""The images of a dataset, and the tokens in them, that activate a memory most."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.data.dataset import LabelledImages
from analyses.data.reading import ItemReader
from analyses.memory_pairs.coefficients import Coefficients, coefficient_names, memory_coefficients
from analyses.value_vectors.vectors import MemorySublayer, check_sublayer, memory_indices
from hooked_vit import HookedViT, HookedViTConfig

__all__ = ["TopActivations", "images_at"]

_TOKEN_TYPES = ("cls", "dist", "register", "patch")
_STATES = ("activation", "image", "label", "token_type", "patch")
_COLUMNS = [
    "layer", "stream", "coefficients", "memory", "place", "index", "label", "token_type", "row", "column", "value",
]  # fmt: skip


class TopActivations(Analysis):
    """The k images in which chosen memories have their largest coefficients, with the token of each image.

    Streaming: the k best images of each batch are kept for every memory, so the state grows by k numbers per memory and
    batch, not with images or tokens; shards merge exactly. `images_at` returns the images that were found.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> analysis = TopActivations(layer=6, memories=[4, 8], k=2)
    >>> logits, cache = model.run_with_cache(torch.zeros(3, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14, 0]), torch.arange(3)))
    >>> analysis.compute()[["memory", "place", "index"]].values.tolist()
    [[4, 1, 0], [4, 2, 1], [8, 1, 0], [8, 2, 1]]
    """

    activation: list[Tensor]  # [image memory], like the next four: the best of each batch
    image: list[Tensor]  # index in the dataset
    label: list[Tensor]
    token_type: list[Tensor]  # index in _TOKEN_TYPES
    patch: list[Tensor]  # index of the patch, -1 for a prefix token
    grid_width: Tensor

    def __init__(
        self,
        layer: int,
        memories: Sequence[int],
        sublayer: MemorySublayer = "mlp",
        coefficients: Coefficients = "post",
        k: int = 9,
        patches_only: bool = False,
    ):
        """Configure the analysis.

        Args:
            layer: Index of the block; negative indices count from the end.
            memories: Indices of neurons, or of flattened dimensions of heads.
            sublayer: `mlp` or `attn`.
            coefficients: As for `memory_coefficients`.
            k: Number of images.
            patches_only: Whether to leave out prefix tokens.

        Raises:
            ValueError: If there is no such sub-layer, no memory, or k is not positive.
        """
        super().__init__()
        check_sublayer(sublayer)
        if k < 1 or not len(memories):
            raise ValueError(f"expected at least one memory and one image, got {list(memories)} and k = {k}")
        self.layer, self.memories, self.k, self.patches_only = layer, memories, k, patches_only
        self.sublayer: MemorySublayer = sublayer
        self.coefficients: Coefficients = coefficients
        for name in _STATES:
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("grid_width", torch.tensor(0), dist_reduce_fx="max")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The block's coefficients."""
        return coefficient_names(cfg, self.sublayer, self.coefficients, [self.layer])

    def update(self, batch: AnalysisBatch) -> None:
        """Keep the best images of a batch."""
        model, layout = batch.model, batch.model.token_layout
        chosen = memory_indices(model.cfg, self.sublayer, self.memories)
        coefficients = memory_coefficients(model, batch.cache, self.layer, self.sublayer, self.coefficients)
        first = layout.n_prefix if self.patches_only else 0
        largest, token = coefficients[:, first:, chosen].max(dim=1)
        # stable, so that the first of equal images is kept
        best = largest.argsort(dim=0, descending=True, stable=True)[: self.k]
        token = token.gather(0, best).cpu() + first
        types = torch.tensor([_TOKEN_TYPES.index(name) for name in layout.token_types])
        values = {
            "activation": largest.gather(0, best).float(),
            "image": batch.index[best],
            "label": batch.labels[best],
            "token_type": types[token],
            "patch": torch.where(token >= layout.n_prefix, token - layout.n_prefix, -1),
        }
        for name, value in values.items():
            getattr(self, name).append(value.to(self.device))
        self.grid_width = torch.tensor(layout.grid[1], device=self.device)

    def compute(self) -> pd.DataFrame:
        """One row per memory and place, from 1.

        Columns `layer`, `stream`, `coefficients`, `memory`, `place`, `index` (of the image in the dataset), `label`,
        `token_type`, `row` and `column` (of a patch), `value`.

        Raises:
            ValueError: If no image was seen.
        """
        if not len(self.activation):
            raise ValueError("no image was seen: give update a batch first")
        states = {name: dim_zero_cat(getattr(self, name)).cpu().numpy() for name in _STATES}
        tables = []
        for i, memory in enumerate(self.memories):
            images = pd.DataFrame({name: values[:, i] for name, values in states.items()})
            best = images.sort_values(by=["activation", "image"], ascending=[False, True]).head(self.k)
            tables.append(best.assign(memory=int(memory), place=np.arange(1, len(best) + 1)))
        table = pd.concat(tables, ignore_index=True).rename(columns={"image": "index", "activation": "value"})
        row, column = divmod(table["patch"], int(self.grid_width))
        is_patch = table["patch"] >= 0
        types = [_TOKEN_TYPES[i] for i in table["token_type"]]
        table = table.assign(layer=self.layer, stream=f"{self.sublayer}_out", coefficients=self.coefficients)
        positions = {name: at.where(is_patch).astype("Int64") for name, at in (("row", row), ("column", column))}
        return table.assign(token_type=types, **positions).reindex(columns=_COLUMNS)


def images_at(
    model: HookedViT, dataset: LabelledImages, index: Sequence[int]
) -> Float[Tensor, "image channel height width"]:
    """Some images of a dataset, preprocessed, on the CPU: for thumbnails of the results of `TopActivations`.

    Raises:
        ValueError: If an image cannot be read.

    >>> from analyses.data import EmojiScenes
    >>> images_at(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(10, seed=0), [7, 3]).shape
    torch.Size([2, 3, 64, 64])
    """
    read = ItemReader(dataset, model.cfg, model.data_config, skip=False).__getitems__([int(i) for i in index])
    assert read.images is not None
    return read.images.cpu()

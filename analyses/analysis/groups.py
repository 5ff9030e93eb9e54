"""Groups of tokens that are counted together: by type, and patches also by whether they show the object."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from analyses.analysis.base import AnalysisBatch
from analyses.data.patch_labels import token_labels

__all__ = ["TOKEN_GROUPS", "count_ranks", "sum_by_group", "token_groups"]

TOKEN_GROUPS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "cls": ("cls", "all"),
        "dist": ("dist", "all"),
        "register": ("register", "all"),
        "patch": ("patch", "all"),
        "object": ("patch", "object"),
        "context": ("patch", "context"),
    }
)
"""Name of a group -> its `token_type` and `region` in tables, in the order of the group axis of every state.

The groups are the same for all models, so that states add up; groups without tokens are left out of tables.
"""


def token_groups(batch: AnalysisBatch) -> Bool[Tensor, "batch group token"]:
    """True where a token belongs to a group, for each of `TOKEN_GROUPS` in its order.

    Patches also belong to `object` (the paper's class-labelled tokens) or `context`, by `token_labels` of the batch's
    object masks; without masks, both groups are empty.

    >>> from hooked_vit import HookedViT
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter="resid_post")
    >>> batch = AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2))
    >>> dict(zip(TOKEN_GROUPS, token_groups(batch)[0].sum(-1).tolist()))
    {'cls': 1, 'dist': 0, 'register': 0, 'patch': 64, 'object': 0, 'context': 0}
    """
    layout = batch.model.token_layout
    names = [token_type for token_type, region in TOKEN_GROUPS.values() if region == "all"]
    types = torch.tensor([[token_type == name for token_type in layout.token_types] for name in names])
    types = repeat(types, "group token -> batch group token", batch=len(batch.labels))
    regions = torch.zeros_like(types[:, :2])
    if batch.object_mask is not None:
        labels = token_labels(batch.object_mask.cpu(), layout.grid)
        regions[..., layout.patches] = rearrange([labels, ~labels], "region batch patch -> batch region patch")
    return torch.cat([types, regions], dim=1).to(batch.logits.device)


def sum_by_group(
    values: Shaped[Tensor, "*axes batch token"], groups: Bool[Tensor, "batch group token"]
) -> Float[Tensor, "batch *axes group"]:
    """Sum of each image's values over the tokens of each group; whole numbers stay exact below 2^53.

    >>> groups = torch.tensor([[[True, False, False], [False, True, True]]])
    >>> sum_by_group(torch.tensor([[[1, 2, 3]], [[4, 5, 6]]]), groups)
    tensor([[[ 1.,  5.],
             [ 4., 11.]]], dtype=torch.float64)
    """
    if values.device.type == "mps":
        values, groups = values.cpu(), groups.cpu()  # mps has no float64
    # one matrix product per image, so that its result does not depend on the other images
    per_image = values.movedim(-2, 0).to(torch.float64)
    rows = per_image.flatten(1, -2) if per_image.ndim > 2 else per_image[:, None]
    sums = rows @ groups.transpose(1, 2).to(torch.float64)
    return sums.reshape(*per_image.shape[:-1], groups.shape[1])


def count_ranks(
    rank: Int[Tensor, "layer batch token"], groups: Bool[Tensor, "batch group token"], n_classes: int
) -> Int[Tensor, "layer group rank"]:
    """How many tokens of each group have each rank.

    >>> groups = torch.tensor([[[True, False, False], [False, True, True]]])
    >>> count_ranks(torch.tensor([[[2, 0, 0]]]), groups, n_classes=3)
    tensor([[[0, 0, 1],
             [2, 0, 0]]])
    """
    n_layers, n_groups = len(rank), groups.shape[1]
    ranks = repeat(rank, "layer batch token -> layer group (batch token)", group=n_groups)
    ones = repeat(groups, "batch group token -> layer group (batch token)", layer=n_layers)
    counts = torch.zeros(n_layers, n_groups, n_classes, dtype=torch.int64, device=rank.device)
    return counts.scatter_add_(-1, ranks, ones.to(torch.int64))

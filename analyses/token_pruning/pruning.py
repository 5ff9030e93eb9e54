"""Runs that drop patches at chosen blocks, and go on with fewer tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.feature_importance.baseline import random_map
from analyses.feature_importance.importance import importance_map
from analyses.projection import Lens
from analyses.token_pruning.scores import PatchScore, check_score, patch_scores
from hooked_vit import HookedViT, TokenLayout
from hooked_vit.input_checks import require_one_grid

__all__ = [
    "PrunedRun",
    "checked_schedule",
    "given_scores",
    "kept_mask",
    "largest",
    "pruned_logits",
    "take_patches",
]


@dataclass(frozen=True)
class PrunedRun:
    """The answers of a run with fewer and fewer patches.

    Attributes:
        class_logits: Of each image.
        kept: The patches that reach the last block.
    """

    class_logits: Float[Tensor, "batch n_classes"]
    kept: Bool[Tensor, "batch patch"]


@torch.no_grad()
def pruned_logits(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"],
    keep: Mapping[int, int],
    score: PatchScore = "class_space",
    *,
    labels: Int[Tensor, "batch"] | None = None,
    lens: Lens | None = None,
    seed: int = 0,
    index: Int[Tensor, "batch"] | None = None,
) -> PrunedRun:
    """Run images, and at the entrance of chosen blocks keep only the patches with the largest scores.

    Prefix tokens always stay. Dropped patches are not computed on: every image keeps the same number, so the batch
    stays without padding. `cls_attention` is EViT's (Liang et al. 2022): the mean over heads of the attention of CLS,
    here in the block before the entrance, where EViT drops in the middle of the block. `importance` is that of the
    class that the whole model names (`importance_map`), so it takes a whole run first, and saves no time.

    Args:
        model: The model.
        images: Preprocessed images of one size.
        keep: How many patches enter each of some blocks: `{3: 40, 6: 20}`. They must decrease.
        score: Which patches are kept; see `patch_scores`.
        labels: For the score `label`.
        lens: As for `project`, for the scores in class space.
        seed: For `random`.
        index: For `random`: each image's index in its dataset, which seeds its draw; by default its bytes do.

    Raises:
        ValueError: If a block or number is out of range, or the score lacks what it needs.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> run = pruned_logits(model, torch.rand(2, 3, 64, 64), {2: 40, 5: 10})
    >>> run.kept.sum(dim=1).tolist()
    [10, 10]
    """
    require_one_grid(images)
    size = (images.shape[-2], images.shape[-1])
    layout = model.cfg.token_layout_at(*size)
    schedule = checked_schedule(keep, layout.n_patches, model.cfg.n_layers)
    for layer in schedule:
        check_score(model, score, layer, labels is not None)
    given = given_scores(model, images, score, seed, index)
    residual = model(images, stop_at_layer=0)
    kept = torch.arange(layout.n_patches, device=residual.device).expand(len(images), -1)
    mask: Tensor | None = None
    start = 0
    for layer, n_kept in schedule.items():
        between: dict[str, Any] = {"start_at_layer": start, "stop_at_layer": layer, "token_mask": mask}
        now = None if given is None else given.gather(1, kept)
        if score == "cls_attention":
            name = ("pattern", layer - 1)
            residual, cache = model.run_with_cache(residual, names_filter=name, image_size=size, **between)
            now = cache[name][:, :, layout.cls, layout.n_prefix :].mean(dim=1)
        else:
            residual = model(residual, image_size=size, **between)
        values = patch_scores(model, residual, layer, score, labels=labels, given=now, lens=lens)
        chosen = largest(values, n_kept)
        residual = take_patches(residual, chosen, layout.n_prefix)
        kept, start = kept.gather(1, chosen), layer
        mask = kept_mask(kept, layout)
    logits = model(residual, start_at_layer=start, token_mask=mask, image_size=size)
    return PrunedRun(logits, kept_mask(kept, layout)[:, layout.patches])


def given_scores(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"],
    score: PatchScore,
    seed: int = 0,
    index: Int[Tensor, "batch"] | None = None,
) -> Float[Tensor, "batch patch"] | None:
    """Scores that are known before the run, `random` and `importance`; `None` for the others."""
    if score == "random":
        return random_map(model, images, torch.zeros(len(images), dtype=torch.long), seed=seed, index=index)
    if score == "importance":
        return importance_map(model, images, model(images).argmax(dim=-1))
    return None


def largest(values: Float[Tensor, "batch patch"], n_kept: int) -> Int[Tensor, "batch kept"]:
    """The places of the largest values, in the order of the image, as a token mask has them."""
    return values.topk(n_kept, dim=1).indices.sort(dim=1).values


def take_patches(
    residual: Float[Tensor, "batch token d_model"], chosen: Int[Tensor, "batch kept"], n_prefix: int
) -> Float[Tensor, "batch remaining d_model"]:
    """The prefix tokens and some of the patches, by their places among the patches of the stream."""
    patches = residual[:, n_prefix:]
    taken = patches.gather(1, chosen[..., None].expand(-1, -1, patches.shape[2]))
    return torch.cat([residual[:, :n_prefix], taken], dim=1)


def kept_mask(kept: Int[Tensor, "batch kept"], layout: TokenLayout) -> Bool[Tensor, "batch token"]:
    """The `token_mask` of a run with these patches of the image and all prefix tokens.

    >>> kept_mask(torch.tensor([[0, 2]]), TokenLayout(n_cls=1, n_dist=0, n_registers=0, grid=(1, 3)))
    tensor([[ True,  True, False,  True]])
    """
    mask = torch.zeros(len(kept), layout.n_tokens, dtype=torch.bool, device=kept.device)
    mask[:, layout.prefix] = True
    return mask.scatter_(1, layout.n_prefix + kept, True)


def checked_schedule(keep: Mapping[int, int], n_patches: int, n_layers: int) -> dict[int, int]:
    """How many patches enter which blocks, in the order of the blocks.

    Raises:
        ValueError: If there is no such block, or the numbers do not decrease from below `n_patches` to 1 or more.

    >>> checked_schedule({5: 10, 2: 40}, 64, 8)
    {2: 40, 5: 10}
    """
    if not keep or not all(0 <= layer < n_layers for layer in keep):
        raise ValueError(f"expected a number of patches for some of the blocks 0 to {n_layers - 1}, got {dict(keep)}")
    schedule = dict(sorted(keep.items()))
    numbers = [n_patches, *schedule.values()]
    if min(numbers) < 1 or any(later > earlier for earlier, later in pairwise(numbers)):
        raise ValueError(
            f"the numbers of patches to keep must be from 1 to {n_patches} and not rise from block to block, got "
            f"{schedule}"
        )
    return schedule

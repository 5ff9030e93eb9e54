"""A batch run unchanged and perturbed: with interventions, or with tokens dropped."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.data.patch_labels import token_labels
from analyses.projection import Lens, project, stream_names
from hooked_vit import HookedViT, KeptTokens, TokenLayout
from hooked_vit.input_checks import require_one_grid
from hooked_vit.running import Hooks

__all__ = ["PerturbedRun", "Region", "perturb", "perturb_stream", "region_mask"]

Region = Literal["object", "context", "untouched"]

_BEFORE_THE_STREAM = ("hook_patch_embed", "hook_embed", "hook_pos_embed", "hook_tokens", "ln_pre.")


@dataclass(frozen=True)
class PerturbedRun:
    """A batch before and after a perturbation.

    Attributes:
        n_classes: How many classes were ranked.
        kept: Tokens that are in both runs.
        rank_before: How many classes are strictly above the correct one, in `resid_post`.
        rank_after: That rank with the perturbation; for tokens that were not kept it has no meaning.
        correct_before: Whether the model's class is the correct one.
        correct_after: Whether it is with the perturbation.
    """

    n_classes: int
    kept: Bool[Tensor, "batch token"]
    rank_before: Int[Tensor, "layer batch token"]
    rank_after: Int[Tensor, "layer batch token"]
    correct_before: Bool[Tensor, "batch"]
    correct_after: Bool[Tensor, "batch"]


def region_mask(
    object_mask: Bool[Tensor, "batch height width"], layout: TokenLayout, keep: Region
) -> Bool[Tensor, "batch token"]:
    """A `token_mask` that keeps the prefix tokens and the patches of one region.

    `"object"` and `"context"` are those of `token_labels`, as in the paper: one pixel of a patch decides, so that a
    context patch may show a piece of the object. `"untouched"` patches show no pixel of it.

    Raises:
        ValueError: If the region is unknown.

    >>> mask, layout = torch.tensor([[[1, 0, 0, 1, 0, 0]]]).bool(), TokenLayout(1, 0, 0, grid=(1, 3))
    >>> region_mask(mask, layout, keep="context")
    tensor([[ True, False,  True,  True]])
    >>> region_mask(mask, layout, keep="untouched")
    tensor([[ True, False, False,  True]])
    """
    if keep not in get_args(Region):
        raise ValueError(f"expected a region out of {', '.join(map(repr, get_args(Region)))}, got {keep!r}")
    if keep == "untouched":
        # bins of adaptive pooling include every pixel that a patch overlaps
        patches = F.adaptive_max_pool2d(object_mask[:, None].float(), layout.grid).flatten(1) == 0
    else:
        on_object = token_labels(object_mask, layout.grid)
        patches = on_object if keep == "object" else ~on_object
    kept = torch.ones(len(patches), layout.n_tokens, dtype=torch.bool, device=patches.device)
    kept[:, layout.patches] = patches
    return kept


def perturb(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"],
    labels: Int[Tensor, "batch"],
    fwd_hooks: Hooks = (),
    token_mask: Bool[Tensor, "batch token"] | None = None,
    *,
    lens: Lens | None = None,
) -> PerturbedRun:
    """Run a batch unchanged and perturbed (paper, section 4: impact of attention, of context).

    Args:
        model: The model.
        images: Preprocessed images of the model's input size.
        labels: The class of each image.
        fwd_hooks: Interventions, such as `self_only(model)`.
        token_mask: True at the tokens to keep, such as `region_mask(masks, model.token_layout, keep="object")`.
        lens: As for `project`.

    Raises:
        ValueError: If the model refuses an input, or a hook comes before the start of the residual stream, from which
            the perturbed run starts.

    >>> from analyses.perturbation import self_only
    >>> from analyses.identifiability import identifiability_rate
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> run = perturb(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14]), fwd_hooks=self_only(model))
    >>> identifiability_rate(run.rank_after, model.token_layout).patches.shape
    torch.Size([8])
    """
    require_one_grid(images)
    names = ["hook_tokens", *stream_names(model.cfg, "resid_post")]
    with torch.no_grad():
        logits, cache = model.run_with_cache(images, names_filter=names)
        before = project(model, cache, "resid_post", labels, k=0, lens=lens).rank
        assert before is not None
        correct = logits.argmax(dim=-1) == labels
        return perturb_stream(model, cache["hook_tokens"], labels, before, correct, fwd_hooks, token_mask, lens)


def perturb_stream(
    model: HookedViT,
    tokens: Float[Tensor, "batch token d_model"],
    labels: Int[Tensor, "batch"],
    before: Int[Tensor, "layer batch token"],
    correct: Bool[Tensor, "batch"],
    fwd_hooks: Hooks,
    token_mask: Bool[Tensor, "batch token"] | None,
    lens: Lens | None = None,
) -> PerturbedRun:
    """`perturb` without the images: from the start of the stream (`hook_tokens`) and the results of an earlier run."""
    names = stream_names(model.cfg, "resid_post")
    early = [name for hook, _ in fwd_hooks for name in model.hook_names(hook) if name.startswith(_BEFORE_THE_STREAM)]
    if early:
        raise ValueError(
            f"'{early[0]}' comes before the start of the stream, where the perturbed run starts: hook ('resid_pre', 0)"
        )
    everything = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    mask = everything if token_mask is None else token_mask.to(tokens.device)
    kept = None if mask.all() else KeptTokens.from_mask(mask, model.token_layout)
    start, token_mask = (tokens, None) if kept is None else (kept.take(tokens), mask)
    with model.hooks(fwd_hooks=fwd_hooks):
        logits, cache = model.run_with_cache(start, names_filter=names, start_at_layer=0, token_mask=token_mask)
    rank = project(model, cache, "resid_post", labels, k=0, lens=lens).rank
    assert rank is not None
    if kept is not None:
        rank = before.clone().scatter_(2, kept.index.expand(len(rank), -1, -1), rank)
    return PerturbedRun(
        n_classes=model.cfg.n_classes,
        kept=mask,
        rank_before=before,
        rank_after=rank,
        correct_before=correct,
        correct_after=logits.argmax(dim=-1) == labels,
    )

"""Scores of patches in the stream that enters a block: which of them to keep."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.projection import Lens
from hooked_vit import HookedViT
from hooked_vit.absent_points import refuse_absent

__all__ = ["PATCH_SCORES", "PatchScore", "check_score", "patch_scores"]

PatchScore = Literal["class_space", "label", "cls_attention", "importance", "norm", "random"]
PATCH_SCORES: tuple[PatchScore, ...] = get_args(PatchScore)


def check_score(model: HookedViT, score: str, layer: int, has_labels: bool) -> None:
    """Check that a score is known and can be computed for the stream that enters a block.

    Raises:
        ValueError: If it cannot.
    """
    if score not in PATCH_SCORES:
        raise ValueError(f"unknown score {score!r}: expected one of {', '.join(map(repr, PATCH_SCORES))}")
    if score in ("class_space", "label", "importance"):
        model.require_several_classes(f"the score '{score}' of patches")
    if score == "label" and not has_labels:
        raise ValueError("the score 'label' ranks patches by the image's own class: pass labels=")
    if score == "cls_attention":
        if model.token_layout.cls is None:
            raise ValueError("the score 'cls_attention' needs a CLS token, and this model has none: take another score")
        if layer == 0:
            raise ValueError(
                "the score 'cls_attention' is the attention of the block before, and there is none before block 0: "
                "prune from block 1 on"
            )
        refuse_absent(["blocks.0.attn.hook_pattern"], model.cfg)


@torch.no_grad()
def patch_scores(
    model: HookedViT,
    residual: Float[Tensor, "batch kept d_model"],
    layer: int,
    score: PatchScore = "class_space",
    *,
    labels: Int[Tensor, "batch"] | None = None,
    given: Float[Tensor, "batch patch"] | None = None,
    lens: Lens | None = None,
) -> Float[Tensor, "batch patch"]:
    """How much each patch is worth keeping, from the stream that enters a block; larger is better.

    - `class_space`: the probability, in the patch's own projection, of the class that the head would now name. This is
      the patch's class identifiability as far as it can be known without the label.
    - `label`: the same for the image's label, which only an oracle knows.
    - `norm`: the length of the patch's vector.
    - `cls_attention` (mean over heads, in the block before), `importance` and `random`: as they are `given`.

    Args:
        model: The model.
        residual: The stream that enters block `layer`: prefix tokens, then patches.
        layer: That block; `n_layers` for what leaves the last.
        score: The score.
        labels: For `label`: the class of each image.
        given: For the last three: the numbers of the patches in `residual`.
        lens: As for `project`, for the scores in class space.

    Raises:
        ValueError: If the score is unknown, or lacks what it needs.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> residual = model(torch.zeros(2, 3, 64, 64), stop_at_layer=4)
    >>> patch_scores(model, residual, 4).shape
    torch.Size([2, 64])
    """
    check_score(model, score, layer, labels is not None)
    n_prefix = model.token_layout.n_prefix
    patches = residual[:, n_prefix:]
    if score in ("cls_attention", "importance", "random"):
        if given is None or given.shape != patches.shape[:2]:
            shape = None if given is None else tuple(given.shape)
            raise ValueError(
                f"the score '{score}' is not read from the stream: pass given=, a number for each of the patches "
                f"{tuple(patches.shape[:2])}, got {shape}"
            )
        return given
    if score == "norm":
        return patches.norm(dim=-1)
    if lens is not None:
        residual = lens.translate(residual, "resid_pre", layer)
        patches = residual[:, n_prefix:]
    if score == "class_space" or labels is None:
        labels = model.head_logits(residual).argmax(dim=-1)
    probabilities = model.class_logits(patches).softmax(dim=-1)
    return probabilities.gather(-1, labels[:, None, None].expand(-1, patches.shape[1], 1))[..., 0]

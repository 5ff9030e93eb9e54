"""Runs that merge tokens instead of dropping them: ToMe in every block, or the least-scored patches into one."""

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.projection import Lens
from analyses.token_pruning.matching import TokenGroups, bipartite_matching
from analyses.token_pruning.pruning import checked_schedule, given_scores, largest
from analyses.token_pruning.scores import PatchScore, check_score, patch_scores
from hooked_vit import HookedViT
from hooked_vit.components.attention_terms import NO_TERMS, AttentionTerms
from hooked_vit.components.block import Block
from hooked_vit.input_checks import require_one_grid

__all__ = ["fused_logits", "merged_logits"]


@torch.no_grad()
def merged_logits(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"],
    r: int | Mapping[int, int],
    *,
    proportional_attention: bool = True,
) -> Float[Tensor, "batch n_classes"]:
    """Token merging as published (ToMe, Bolya et al. 2023): between attention and MLP, the most similar tokens merge.

    In each block r tokens disappear (`bipartite_matching`, on the mean over heads of the block's keys). A merged token
    is the mean over the patches that it stands for, and with `proportional_attention` counts as many times in attention
    as it stands for patches: the logarithm of that number is added to its scores (their equation 1). A head that pools
    patches reads every merged token as many times as well. Nothing is trained.

    Blocks are computed past their hook points, so a model with hooks is not what is run.

    Args:
        model: A model with two sub-layers per block and without positions inside attention.
        images: Preprocessed images of one size.
        r: How many tokens disappear in each block, or in some: `{2: 8, 5: 16}`.
        proportional_attention: Whether attention knows the tokens' sizes.

    Raises:
        ValueError: If r is negative or names a block that does not exist, or the model cannot merge tokens.

    >>> model, images = HookedViT.from_pretrained("emoji-vit"), torch.rand(2, 3, 64, 64)
    >>> torch.allclose(merged_logits(model, images, 0), model(images), atol=1e-4)
    True
    """
    n_layers, n_prefix = model.cfg.n_layers, model.token_layout.n_prefix
    schedule = r if isinstance(r, Mapping) else dict.fromkeys(range(n_layers), r)
    if any(not 0 <= layer < n_layers or n < 0 for layer, n in schedule.items()):
        raise ValueError(
            f"r is how many tokens disappear, at least 0, in some of the blocks 0 to {n_layers - 1}, got {r}"
        )
    residual, groups = _start(model, images)
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        terms = AttentionTerms(mask=groups.size.log()[:, None, None]) if proportional_attention else NO_TERMS
        middle, keys = _attention(block, residual, terms)
        target, n_after = bipartite_matching(keys.mean(dim=2), schedule.get(layer, 0), n_prefix)
        if n_after < middle.shape[1]:
            middle, groups = groups.merge(middle, target, n_after)
        residual = block.resume("resid_mid", {"resid_mid": middle})
    return model.head_logits(groups.unmerge(residual, n_prefix))


def _start(model: HookedViT, images: Tensor) -> tuple[Tensor, TokenGroups]:
    require_one_grid(images)
    cfg = model.cfg
    if cfg.parallel_attn_mlp or cfg.n_parallel > 1 or cfg.differential is not None:
        raise ValueError(
            "merging happens between a block's attention and its MLP: it needs blocks of one plain attention, then one "
            "MLP; `pruned_logits` drops tokens in any model"
        )
    if model.rotary is not None or cfg.relative_bias is not None:
        raise ValueError(
            "a merged token has no position of its own, and this model's attention needs one (rotary positions, or a "
            "bias by position): `pruned_logits` drops tokens in any model"
        )
    layout = cfg.token_layout_at(images.shape[-2], images.shape[-1])
    residual = model(images, stop_at_layer=0)
    return residual, TokenGroups.single(len(images), layout.n_prefix, layout.n_patches, residual)


def _attention(block: Block, residual: Tensor, terms: AttentionTerms) -> tuple[Tensor, Tensor]:
    """`resid_mid`, and the keys of all tokens [batch token kv_head d_head]."""
    everything = slice(None)
    normed = residual if block.post_norm else block.ln1.fused(residual)
    q, k, v = block.attn.queries_keys_values(normed, everything)
    z = block.attn.attend_unhooked(q, k, v, block.attn.fused, terms, everything)
    gate = None if block.attn.gate is None else block.attn.gate_values(normed)
    return residual + block.write_attn(block.attn.norm_z(z, gate)), k


@torch.no_grad()
def fused_logits(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"],
    keep: Mapping[int, int],
    score: PatchScore = "class_space",
    *,
    labels: Int[Tensor, "batch"] | None = None,
    lens: Lens | None = None,
    seed: int = 0,
    index: Int[Tensor, "batch"] | None = None,
) -> Float[Tensor, "batch n_classes"]:
    """As `pruned_logits`, but patches that are not kept become one token, their mean, as in EViT (Liang et al. 2022).

    (EViT weighs the mean by the attention of CLS.) The token stays until the end; patches that leave at a later block
    join it, and it stays the mean of all of them. It counts as one token in attention.

    Arguments are those of `pruned_logits`.

    Raises:
        ValueError: As `pruned_logits`, or if the model cannot merge tokens.

    >>> model, images = HookedViT.from_pretrained("emoji-vit"), torch.rand(2, 3, 64, 64)
    >>> fused_logits(model, images, {2: 40, 5: 10}).shape
    torch.Size([2, 100])
    """
    residual, groups = _start(model, images)
    layout = model.cfg.token_layout_at(images.shape[-2], images.shape[-1])
    n_prefix, kept = layout.n_prefix, torch.arange(layout.n_patches, device=residual.device).expand(len(images), -1)
    schedule = checked_schedule(keep, layout.n_patches, model.cfg.n_layers)
    for layer in schedule:
        check_score(model, score, layer, labels is not None)
    given = given_scores(model, images, score, seed, index)
    pattern = residual.new_zeros(0)
    for layer, block in enumerate(model.blocks):
        if layer in schedule:
            n_kept, n_before = schedule[layer], kept.shape[1]
            scored = residual[:, : n_prefix + n_before]  # without the token of those that have left
            now = None if given is None else given.gather(1, kept)
            if score == "cls_attention":
                now = pattern[:, :, layout.cls, n_prefix : n_prefix + n_before].mean(dim=1)
            values = patch_scores(model, scored, layer, score, labels=labels, given=now, lens=lens)
            chosen = largest(values, n_kept)
            target = torch.full(residual.shape[:2], n_prefix + n_kept, device=residual.device)
            target[:, :n_prefix] = torch.arange(n_prefix, device=residual.device)
            ranks = torch.arange(n_kept, device=residual.device).expand(len(images), -1)
            target.scatter_(1, n_prefix + chosen, n_prefix + ranks)
            n_after = n_prefix + n_kept + int(n_kept < layout.n_patches)
            residual, groups = groups.merge(residual, target, n_after)
            kept = kept.gather(1, chosen)
        if score == "cls_attention" and layer + 1 in schedule:
            grabbed: list[Tensor] = []
            with model.hooks(fwd_hooks=[(f"blocks.{layer}.attn.hook_pattern", partial(_grab, grabbed))]):
                residual = block(residual)
            pattern = grabbed[0]
        else:
            residual = block(residual)
    return model.head_logits(groups.unmerge(residual, n_prefix))


def _grab(into: list[Tensor], pattern: Tensor, hook: object) -> None:
    into.append(pattern)

"""Pruned and merged runs against slow runs, image by image and patch by patch; scores against their definitions."""

import pytest
import torch
from conftest import ported
from merging_by_hand import by_loop
from torch import Tensor

from analyses.feature_importance import importance_map
from analyses.token_pruning import PATCH_SCORES, fused_logits, merged_logits, patch_scores, pruned_logits
from hooked_vit import HookedViT

LABELS = torch.tensor([3, 5])


@torch.no_grad()
def scores_by_hand(model: HookedViT, image: Tensor, layer: int, score: str, label: int, kept: list[int]) -> list[float]:
    """One image: the scores of the kept patches, in a stream that the earlier prunings have made."""
    layout = model.token_layout
    mask = torch.zeros(1, layout.n_tokens, dtype=torch.bool)
    mask[:, : layout.n_prefix] = True
    mask[:, [layout.n_prefix + patch for patch in kept]] = True
    _, cache = model.run_with_cache(image[None], token_mask=mask)
    residual = cache["resid_pre", layer]
    found = []
    for place in range(len(kept)):
        token = residual[0, layout.n_prefix + place]
        if score == "norm":
            found.append(float(token.square().sum().sqrt()))
        elif score == "cls_attention":
            found.append(float(cache["pattern", layer - 1][0, :, 0, layout.n_prefix + place].mean()))
        else:
            named = label if score == "label" else int(model.head_logits(residual).argmax())
            found.append(float(model.class_logits(token).softmax(-1)[named]))
    return found


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale", "rotary"])
@pytest.mark.parametrize("score", ["class_space", "label", "cls_attention", "norm"])
@torch.no_grad()
def test_one_pruning_is_the_loop(kind: str, score: str, images: Tensor) -> None:
    model = ported(kind)
    if score == "cls_attention" and model.token_layout.cls is None:
        pytest.skip("no CLS")
    run = pruned_logits(model, images, {1: 5}, score, labels=LABELS)
    layout = model.token_layout
    full = model(images, stop_at_layer=1)
    for i, image in enumerate(images):
        values = scores_by_hand(model, image, 1, score, int(LABELS[i]), list(range(12)))
        best = sorted(sorted(range(12), key=lambda patch: -values[patch])[:5])
        assert run.kept[i].nonzero()[:, 0].tolist() == best
        mask = torch.zeros(1, layout.n_tokens, dtype=torch.bool)
        mask[:, : layout.n_prefix] = True
        mask[:, [layout.n_prefix + patch for patch in best]] = True
        logits = model(full[i : i + 1][:, mask[0]], start_at_layer=1, token_mask=mask)
        torch.testing.assert_close(run.class_logits[i], logits[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_two_prunings_score_what_is_left(images: Tensor) -> None:
    model = ported("cls")
    # dropping at block 0 is the token mask of a whole run, which `scores_by_hand` can repeat
    run = pruned_logits(model, images, {2: 3, 0: 8}, "norm")
    for i, image in enumerate(images):
        first = scores_by_hand(model, image, 0, "norm", 0, list(range(12)))
        eight = sorted(sorted(range(12), key=lambda patch: -first[patch])[:8])
        second = scores_by_hand(model, image, 2, "norm", 0, eight)
        best = sorted(eight[place] for place in sorted(range(8), key=lambda place: -second[place])[:3])
        assert run.kept[i].nonzero()[:, 0].tolist() == best


def test_random_and_importance(images: Tensor) -> None:
    model = ported("cls")
    runs = [pruned_logits(model, images, {1: 6}, "random", seed=s, index=torch.tensor([4, 9])) for s in (0, 0, 1)]
    assert torch.equal(runs[0].kept, runs[1].kept)
    assert not torch.equal(runs[0].kept, runs[2].kept)
    assert torch.equal(
        pruned_logits(model, images[1:], {1: 6}, "random", index=torch.tensor([9])).kept, runs[0].kept[1:]
    )
    best = importance_map(model, images, model(images).argmax(-1)).topk(6).indices
    kept = pruned_logits(model, images, {1: 6}, "importance").kept
    assert all(kept[i, best[i]].all() for i in range(2))


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale", "distilled", "qk_norm", "post_norm"])
@torch.no_grad()
def test_keeping_or_merging_nothing_changes_nothing(kind: str, images: Tensor) -> None:
    model = ported(kind)
    logits = model(images)
    for found in (
        pruned_logits(model, images, {1: 12}).class_logits,
        fused_logits(model, images, {1: 12}),
        merged_logits(model, images, 0),
    ):
        torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale"])
@pytest.mark.parametrize("proportional", [True, False])
@torch.no_grad()
def test_merging_is_the_loop_over_tokens(kind: str, proportional: bool, images: Tensor) -> None:
    model = ported(kind)
    found = merged_logits(model, images, {0: 3, 1: 2, 2: 2}, proportional_attention=proportional)
    n_prefix, groups = model.token_layout.n_prefix, []
    for i in range(2):
        x, size = model(images[i : i + 1], stop_at_layer=0)[0], torch.ones(model.token_layout.n_tokens)
        for layer, block in enumerate(model.blocks):
            normed, attn = block.ln1.fused(x), block.attn
            written = torch.zeros_like(x)
            q, k, v = (
                torch.einsum("td,hde->the", normed, W) + b
                for W, b in ((attn.W_Q, attn.b_Q), (attn.W_K, attn.b_K), (attn.W_V, attn.b_V))
            )
            for query in range(len(x)):
                for head in range(3):
                    scores = torch.stack([q[query, head] @ key / 8**0.5 for key in k[:, head]])
                    weights = (scores + (size.log() if proportional else 0)).softmax(-1)
                    written[query] += (weights @ v[:, head]) @ attn.W_O[head]
            written = written + attn.b_O
            x = x + (written if block.ls1 is None else written * block.ls1)
            x, size = by_loop(k.mean(dim=1), x, size, (3, 2, 2)[layer], n_prefix)
            x = block.resume("resid_mid", {"resid_mid": x[None]})[0]
        groups.append(size)
        if kind == "cls":
            logits = model.head_logits(x[None])[0]
        else:  # the mean of the patches: each token as often as it stands for patches
            logits = model.head(model.ln_final(_mean(x, size, n_prefix)[None, None])[0, 0])
            if not model.cfg.norm_after_pool:
                logits = model.head(_mean(model.ln_final(x[None])[0], size, n_prefix))
        torch.testing.assert_close(found[i], logits, rtol=1e-3, atol=1e-4)


def _mean(x: Tensor, size: Tensor, n_prefix: int) -> Tensor:
    return (x * size[:, None])[n_prefix:].sum(0) / size[n_prefix:].sum()


@torch.no_grad()
def test_the_rest_is_fused_into_its_mean(images: Tensor) -> None:
    model = ported("cls")
    found = fused_logits(model, images, {1: 5, 2: 2}, "norm")
    for i in range(2):
        residual = model(images[i : i + 1], stop_at_layer=1)[0]
        rest: list[Tensor] = []
        order = sorted(range(1, 13), key=lambda token: -float(residual[token].norm()))
        best = sorted(order[:5])
        dropped = residual[order[5:]].mean(0)
        x = model.blocks[1](torch.stack([residual[0], *residual[best], dropped])[None])[0]
        order = sorted(range(1, 6), key=lambda token: -float(x[token].norm()))
        rest = [x[token] for token in order[2:]] + 7 * [x[6]]
        x = model.blocks[2](torch.stack([x[0], *x[sorted(order[:2])], torch.stack(rest).mean(0)])[None])
        torch.testing.assert_close(found[i], model.head_logits(x)[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_fusing_takes_every_score(images: Tensor) -> None:
    model = ported("cls")
    for score in PATCH_SCORES:
        kept = pruned_logits(model, images, {1: 12}, score, labels=LABELS).class_logits
        fused = fused_logits(model, images, {1: 4}, score, labels=LABELS, index=torch.arange(2))
        assert fused.shape == kept.shape
        assert not torch.allclose(fused, kept, atol=1e-4)


@pytest.mark.usefixtures("bad_input")
def test_errors(images: Tensor) -> None:
    model, without_cls = ported("cls"), ported("gap_registers_layerscale")
    for keep, message in (
        ({}, "for some of the blocks 0 to 2, got {}"),
        ({3: 4}, "for some of the blocks 0 to 2, got {3: 4}"),
        ({1: 0}, "must be from 1 to 12"),
        ({1: 13}, "must be from 1 to 12"),
        ({1: 4, 2: 5}, "not rise from block to block"),
    ):
        with pytest.raises(ValueError, match=message):
            pruned_logits(model, images, keep)
        with pytest.raises(ValueError, match=message):
            fused_logits(model, images, keep)
    with pytest.raises(ValueError, match="needs a CLS token, and this model has none"):
        pruned_logits(without_cls, images, {1: 4}, "cls_attention")
    with pytest.raises(ValueError, match="there is none before block 0"):
        pruned_logits(model, images, {0: 4}, "cls_attention")
    with pytest.raises(ValueError, match="pass labels="):
        pruned_logits(model, images, {1: 4}, "label")
    with pytest.raises(ValueError, match="unknown score 'entropy'"):
        pruned_logits(model, images, {1: 4}, "entropy")
    with pytest.raises(ValueError, match=r"pass given=, a number for each of the patches \(2, 12\), got None"):
        patch_scores(model, model(images, stop_at_layer=1), 1, "random")
    with pytest.raises(ValueError, match="at least 0, in some of the blocks 0 to 2, got -1"):
        merged_logits(model, images, -1)
    with pytest.raises(ValueError, match="one plain attention, then one MLP"):
        merged_logits(ported("parallel"), images, 1)
    for kind in ("rotary", "relative"):
        with pytest.raises(ValueError, match="a merged token has no position of its own"):
            merged_logits(ported(kind), images, 1)

"""Perturbed runs, against plain runs whose tokens are ranked one at a time."""

import pytest
import torch
from analysis_batches import model_of

from analyses.attention_masks import self_only
from analyses.perturbed_runs import perturb, region_mask
from hooked_vit import HookedViT, KeptTokens

LABELS = torch.tensor([3, 5])


def ranks(model: HookedViT, cache, layer: int, image: int) -> list[int]:
    scores = model.class_logits(cache["resid_post", layer][image]).tolist()
    return [sum(score > of_token[LABELS[image]] for score in of_token) for of_token in scores]


def test_an_intervention(kind, images):
    model = model_of(kind)
    run = perturb(model, images, LABELS, fwd_hooks=self_only(model))
    logits, before = model.run_with_cache(images)
    with model.hooks(fwd_hooks=self_only(model)):
        logits_after, after = model.run_with_cache(images)
    assert run.kept.all()
    assert run.n_classes == 7
    assert run.correct_before.tolist() == (logits.argmax(-1) == LABELS).tolist()
    assert run.correct_after.tolist() == (logits_after.argmax(-1) == LABELS).tolist()
    for layer in range(3):
        for image in range(2):
            assert run.rank_before[layer, image].tolist() == ranks(model, before, layer, image)
            assert run.rank_after[layer, image].tolist() == ranks(model, after, layer, image)


@pytest.mark.parametrize("even", [True, False])
def test_tokens_are_dropped_as_the_model_drops_them(kind, images, even):
    model = model_of(kind)
    layout = model.token_layout
    keep = torch.ones(2, layout.n_tokens, dtype=torch.bool)
    keep[0, layout.n_prefix + 1 : layout.n_prefix + 5] = False
    keep[1, layout.n_prefix : layout.n_prefix + (4 if even else 1)] = False
    run = perturb(model, images, LABELS, token_mask=keep)
    logits, cache = model.run_with_cache(images, token_mask=keep)
    kept = KeptTokens.from_mask(keep, layout)
    assert torch.equal(run.kept, keep)
    assert run.correct_after.tolist() == (logits.argmax(-1) == LABELS).tolist()
    for layer in range(3):
        for image in range(2):
            expected = ranks(model, cache, layer, image)
            for place, token in enumerate(kept.index[image].tolist()):
                if keep[image, token]:
                    assert run.rank_after[layer, image, token] == expected[place]


def test_both_together(images):
    model = model_of("cls")
    keep = torch.ones(2, 13, dtype=torch.bool)
    keep[:, 4] = False
    run = perturb(model, images, LABELS, fwd_hooks=self_only(model), token_mask=keep)
    with model.hooks(fwd_hooks=self_only(model)):
        _, cache = model.run_with_cache(images, token_mask=keep)
    assert run.rank_after[2, 1][keep[1]].tolist() == ranks(model, cache, 2, 1)


def test_a_region_is_kept_patch_by_patch():
    layout = model_of("gap_registers_layerscale").token_layout
    mask = torch.rand(2, 32, 24, generator=torch.Generator().manual_seed(0)) < 0.5
    for keep in ("object", "context"):
        kept = region_mask(mask, layout, keep)
        assert kept[:, layout.prefix].all()
        for image in range(2):
            for row in range(4):
                for column in range(3):
                    on_object = bool(mask[image, 8 * row, 8 * column])
                    assert kept[image, layout.patch_token(row, column)] == (on_object == (keep == "object"))

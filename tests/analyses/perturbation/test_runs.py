"""Perturbed runs compared with plain runs whose tokens are ranked one at a time."""

import pytest
import torch
from analysis_batches import model_of

from analyses.perturbation.attention import self_only
from analyses.perturbation.runs import perturb, region_mask
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


@pytest.mark.parametrize("size", [(32, 24), (10, 7), (2, 2)])
def test_untouched_patches_show_no_pixel_of_the_object(size):
    layout = model_of("cls").token_layout
    (rows, columns), (height, width) = layout.grid, size
    for seed in range(5):
        mask = torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed)) < 0.02 * 768 / (
            height * width
        )
        kept = region_mask(mask, layout, "untouched")
        assert kept[:, layout.prefix].all()
        for row in range(rows):
            for column in range(columns):
                touched = False
                for y in range(height):
                    for x in range(width):
                        # pixel y covers y / height to (y + 1) / height of the picture
                        overlaps = (y + 1) * rows > row * height and y * rows < (row + 1) * height
                        overlaps &= (x + 1) * columns > column * width and x * columns < (column + 1) * width
                        touched |= overlaps and bool(mask[0, y, x])
                assert kept[0, layout.patch_token(row, column)] == (not touched)


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


def test_errors_say_what_is_wrong(images, bad_input):
    model = model_of("cls")
    with pytest.raises(ValueError, match="out of 'object', 'context', 'untouched', got 'background'"):
        region_mask(torch.ones(1, 4, 3, dtype=torch.bool), model.token_layout, "background")
    for early in ("hook_embed", "hook_tokens"):
        with pytest.raises(ValueError, match=f"'{early}' comes before the start of the stream"):
            perturb(model, images, LABELS, fwd_hooks=[(early, lambda tokens, hook: tokens)])

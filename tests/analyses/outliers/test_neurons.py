"""Planted register neurons are found exactly; all numbers equal loops over neurons; moving them moves the outliers."""

import pytest
import torch
from conftest import ported
from planted_outliers import LAYER, NEURONS, planted_outliers
from torch import Tensor

from analyses.outliers import outlier_names, outlier_scores, register_neurons
from hooked_vit import HookedViT
from hooked_vit.interventions import intervene, move_neurons

PLANTED = ["cls", "gap_registers_layerscale", "swiglu_packed"]


@pytest.mark.parametrize("by", ["activation", "norm_share"])
@pytest.mark.parametrize("kind_name", PLANTED[:2])
def test_the_planted_neurons_are_first(kind_name: str, by: str) -> None:
    planted = planted_outliers(kind_name)
    for layer in (LAYER, 2):
        found = register_neurons(planted.model, planted.images.split(2), layer)
        assert found.top(2, by) == {LAYER: list(NEURONS)}
        assert found.table(2, by)["layer"].tolist() == [LAYER, LAYER]
        assert found.n_images == len(planted.images)
    assert register_neurons(planted.model, planted.images.split(2), LAYER).n_outliers == len(planted.images)


def test_negative_activations_are_found_by_what_they_write() -> None:
    planted = planted_outliers("swiglu_packed")
    found = register_neurons(planted.model, [planted.images], LAYER)
    assert found.top(2, "norm_share") == {LAYER: list(NEURONS)}
    assert (found.at_outliers[LAYER, list(NEURONS)] < -1).all()


@torch.no_grad()
@pytest.mark.parametrize("kind_name", PLANTED)
def test_moving_them_moves_the_outliers_to_the_register(kind_name: str) -> None:
    planted = planted_outliers(kind_name)
    more = planted.model.with_registers()
    register = more.token_layout.n_prefix - 1
    with intervene(more, move_neurons(more, {LAYER: NEURONS})):
        _, cache = more.run_with_cache(planted.images, names_filter=outlier_names(more.cfg))
    scores = outlier_scores(more, cache)
    assert not scores.is_outlier[LAYER, :, more.token_layout.patches].any()
    assert scores.is_outlier[LAYER, :, register].all()


def by_loop(model: HookedViT, images: Tensor, layer: int, threshold: float) -> dict[str, Tensor]:
    """All numbers, one outlier and one neuron at a time."""
    _, cache = model.run_with_cache(images)
    layout = model.cfg.token_layout_at(images.shape[2], images.shape[3])
    ratios = outlier_scores(model, cache, threshold, layout).is_outlier[layer]
    found = {name: torch.zeros(layer + 1, model.cfg.d_mlp) for name in ("at_outliers", "at_others", "norm_share")}
    counts = {True: 0, False: 0}
    for image in range(len(images)):
        for token in range(layout.n_prefix, layout.n_tokens):
            is_outlier = bool(ratios[image, token])
            counts[is_outlier] += 1
            x = cache["resid_post", layer][image, token]
            for at in range(layer + 1):
                block, post = model.blocks[at], cache["post", at][image, token]
                found["at_outliers" if is_outlier else "at_others"][at] += post
                if is_outlier:
                    for neuron in range(model.cfg.d_mlp):
                        written = post[neuron] * block.mlp.W_out[neuron]
                        if model.cfg.post_norm:
                            scale = cache[f"blocks.{at}.ln2.hook_scale"][image, token]
                            written = block.ln2.divide(written, scale, bias=False)
                        elif block.mlp_ls is not None:
                            written = written * block.mlp_ls
                        found["norm_share"][at, neuron] += written @ x / (x @ x)
    found["at_outliers"] /= counts[True]
    found["norm_share"] /= counts[True]
    found["at_others"] /= counts[False]
    return found


@torch.no_grad()
@pytest.mark.parametrize("kind_name", ["cls", "gap_registers_layerscale", "post_norm", "parallel"])
def test_numbers_are_those_of_loops(kind_name: str, images: Tensor) -> None:
    model = ported(kind_name)
    found = register_neurons(model, images.split(1), layer=-2, threshold=1.02)
    assert (found.layer, found.n_images) == (1, 2)
    assert found.n_outliers > 1
    for name, expected in by_loop(model, images, 1, 1.02).items():
        torch.testing.assert_close(getattr(found, name), expected, rtol=1e-4, atol=1e-6, msg=name)


@torch.no_grad()
def test_images_of_other_sizes_count_with_their_own_patches(images: Tensor) -> None:
    model = ported("dynamic")
    wide, one = torch.randn(2, 3, 16, 56, generator=torch.Generator().manual_seed(5)), images[:1]
    found = register_neurons(model, [wide], layer=1, threshold=1.02)
    assert 1 < found.n_outliers < 28
    for name, expected in by_loop(model, wide, 1, 1.02).items():
        torch.testing.assert_close(getattr(found, name), expected, rtol=1e-4, atol=1e-6, msg=name)
    both, own = (register_neurons(model, batches, layer=1, threshold=1.02) for batches in ([wide, one], [one]))
    assert (both.n_images, both.n_outliers) == (3, found.n_outliers + own.n_outliers)
    weighted = (found.at_outliers * found.n_outliers + own.at_outliers * own.n_outliers) / both.n_outliers
    torch.testing.assert_close(both.at_outliers, weighted, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_the_shares_of_everything_that_writes_sum_to_one(images: Tensor) -> None:
    model = ported("gap_registers_layerscale")
    _, cache = model.run_with_cache(images)
    is_outlier = outlier_scores(model, cache, 1.02).is_outlier[2]
    is_outlier[:, : model.token_layout.n_prefix] = False
    x = cache["resid_post", 2][is_outlier]
    others = [cache["hook_tokens"]] + [cache["attn_out", layer] for layer in range(3)]
    others += [block.mlp_out_bias().expand_as(others[0]) for block in model.blocks]
    share = sum(((part[is_outlier] * x).sum(-1) / (x * x).sum(-1)).mean() for part in others)
    found = register_neurons(model, [images], layer=2, threshold=1.02)
    assert float(found.norm_share.sum() + share) == pytest.approx(1, abs=1e-4)


@pytest.mark.usefixtures("bad_input")
def test_errors(images: Tensor) -> None:
    model = ported("cls")
    nothing = register_neurons(model, [images], layer=1, threshold=50)
    with pytest.raises(ValueError, match="no patch of 2 images is an outlier after block 1: the largest norm is 1"):
        nothing.top(3)
    with pytest.raises(ValueError, match="expected at least one batch of images, got none"):
        register_neurons(model, [], layer=1)
    with pytest.raises(ValueError, match=r"expected a layer from 0 to 2 .* got 3"):
        register_neurons(model, [images], layer=3)
    found = register_neurons(model, [images], layer=1, threshold=1.02)
    with pytest.raises(ValueError, match="expected by='activation' or 'norm_share', got 'size'"):
        found.top(3, by="size")
    with pytest.raises(ValueError, match="expected k from 1 to the number of neurons, 120, got 121"):
        found.table(121)

"""Neurons move as a loop over images and neurons moves them, to the given tokens, and nothing else changes."""

from collections.abc import Callable

import pytest
import torch
from conftest import ported
from flexible_models import make_naflex, make_sequences
from torch import Tensor

from hooked_vit import HookedViT
from hooked_vit.interventions import intervene, move_neurons

NEURONS = {0: [3], 2: [5, 0, -1]}


def by_loop(post: Tensor, neurons: list[int], registers: list[int], first_patch: int) -> Tensor:
    """The moved activations, one image and neuron at a time."""
    moved = post.clone()
    for image in range(len(post)):
        for neuron in neurons:
            on_patches = post[image, first_patch:, neuron].tolist()
            moved[image, :, neuron] = 0
            for register in registers:
                moved[image, register, neuron] = max(on_patches, key=abs)
    return moved


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind_name", "registers"), [("cls", [1, 2]), ("gap_registers_layerscale", [2, 3]), ("swiglu_packed", [4, 5])]
)
def test_activations_are_those_of_a_loop(kind_name: str, registers: list[int], images: Tensor) -> None:
    more = ported(kind_name).with_registers(2)
    seen = {}

    def before(post: Tensor, hook: object) -> None:
        seen["post"] = post.clone()

    hooks = move_neurons(more, NEURONS)
    for layer, neurons in NEURONS.items():
        with more.hooks(fwd_hooks=[(("post", layer), before)]), intervene(more, hooks):
            _, cache = more.run_with_cache(images, names_filter=("post", layer))
        expected = by_loop(seen["post"], neurons, registers, more.token_layout.n_prefix)
        assert torch.equal(cache["post", layer], expected)
    assert not any(point.fwd_hooks for point in more.hook_points())
    assert (more.run_with_hooks(images, fwd_hooks=hooks) - more(images)).abs().max() > 1e-4


@torch.no_grad()
def test_any_token_can_be_the_target(images: Tensor) -> None:
    model: HookedViT = ported("swiglu_packed")
    for to, expected in (("register", [1, 2, 3]), ([0], [0]), ("cls", [0])):
        with intervene(model, move_neurons(model, {1: [4]}, to=to)):
            _, cache = model.run_with_cache(images, names_filter=("post", 1))
        written = cache["post", 1][..., 4] != 0
        assert written.nonzero()[:, 1].tolist() == expected * 2


@torch.no_grad()
def test_a_smaller_number_of_tokens(images: Tensor) -> None:
    more = ported("cls").with_registers()
    mask = torch.ones(2, 14, dtype=torch.bool)
    mask[:, 5:8] = False
    with intervene(more, move_neurons(more, {1: [4]})):
        _, cache = more.run_with_cache(images, names_filter=("post", 1), token_mask=mask)
    assert (cache["post", 1][..., 4] != 0).nonzero()[:, 1].tolist() == [1, 1]


def on_each_run(seen: list[Tensor]) -> Callable[..., None]:
    return lambda post, hook: seen.append(post.clone())


@torch.no_grad()
@pytest.mark.parametrize("kind_name", ["cls", "gap_registers_layerscale"])
def test_tokens_that_pad_an_image_of_fewer_tokens_are_left_out(kind_name: str, images: Tensor) -> None:
    more = ported(kind_name).with_registers(2)
    n_prefix, n_tokens = more.token_layout.n_prefix, more.token_layout.n_tokens
    mask = torch.ones(2, n_tokens, dtype=torch.bool)
    mask[1, n_prefix + 2 :] = False  # two patches are left, the others pad the second image
    neurons, posts = range(more.cfg.d_mlp), []
    hooks = move_neurons(more, {1: neurons})
    with more.hooks(fwd_hooks=[(("post", 1), on_each_run(posts))]), intervene(more, hooks):
        logits, cache = more.run_with_cache(images, names_filter=("post", 1), token_mask=mask)
    largest = [max(posts[0][1, n_prefix : n_prefix + 2, neuron].tolist(), key=abs) for neuron in neurons]
    at_padding = posts[0][1, n_prefix + 2 :]
    assert (at_padding.abs().amax(dim=0) > torch.tensor(largest).abs()).any()  # of which some would be taken
    for register in (n_prefix - 2, n_prefix - 1):
        assert cache["post", 1][1, register].tolist() == largest
    assert cache["post", 1][1, n_prefix:].count_nonzero() == 0
    alone = more.run_with_hooks(images[1:], fwd_hooks=hooks, token_mask=mask[1:])
    torch.testing.assert_close(logits[1:], alone, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["gap", "cls"])
def test_padding_of_sequences_makes_no_difference(variant: str) -> None:
    more = HookedViT.from_timm(make_naflex(variant)).with_registers()
    hooks = move_neurons(more, {layer: range(more.cfg.d_mlp) for layer in range(3)})
    short, long = (make_sequences([(2, 5)], length) for length in (10, 24))
    expected = more.run_with_hooks(short, fwd_hooks=hooks)
    torch.testing.assert_close(more.run_with_hooks(long, fwd_hooks=hooks), expected, rtol=0, atol=1e-6)
    residual = more(long, stop_at_layer=0)
    resumed = more.run_with_hooks(residual, fwd_hooks=hooks, start_at_layer=0, sequences=long)
    torch.testing.assert_close(resumed, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_run_within_a_hook_leaves_the_outer_run_its_padding(images: Tensor) -> None:
    more = HookedViT.from_timm(make_naflex("gap")).with_registers()
    moving = move_neurons(more, {1: range(more.cfg.d_mlp)})
    short, long = (make_sequences([(2, 5)], length) for length in (10, 24))
    logits = [more.run_with_hooks(batch, fwd_hooks=moving) for batch in (short, long)]

    def run_images(residual: Tensor, hook: object) -> None:
        more(images, stop_at_layer=1)
        with pytest.raises(ValueError):
            more(short, token_mask=torch.zeros(1, 1, dtype=torch.bool))

    hooks = [(("attn_out", 1), run_images), *moving]
    assert torch.equal(more.run_with_hooks(long, fwd_hooks=hooks), logits[1])
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-6)
    # and neither a finished run nor one that failed leaves anything
    with pytest.raises(RuntimeError, match="stop"), more.hooks(fwd_hooks=[(("attn_out", 1), failing)]):
        more(long)
    assert {point.tokens.kept for point in more.hook_points()} == {None}


def failing(activation: Tensor, hook: object) -> None:
    raise RuntimeError("stop")


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    model = ported("cls")
    with pytest.raises(ValueError, match=r"has no added register .*with_registers\(1\)"):
        move_neurons(model, {0: [1]})
    more = model.with_registers()
    with pytest.raises(ValueError, match=r"expected neurons to move, as \{block: neurons\}, got none"):
        move_neurons(more, {})
    with pytest.raises(ValueError, match="expected neurons from 0 to 59"):
        move_neurons(more, {0: [60]})
    with pytest.raises(ValueError):
        move_neurons(more, {3: [1]})
    with pytest.raises(ValueError, match="has no dist token"):
        move_neurons(more, {0: [1]}, to="dist")

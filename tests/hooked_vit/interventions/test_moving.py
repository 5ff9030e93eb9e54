"""Neurons move as a loop over images and neurons moves them, to the given tokens, and nothing else changes."""

import pytest
import torch
from conftest import ported
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

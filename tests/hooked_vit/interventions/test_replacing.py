"""Ablation, replacement and freezing compared with explicit edits, on every kind of model, which stays unchanged."""

import pytest
import torch
from conftest import KINDS, ported
from torch import Tensor

from hooked_vit.interventions import (
    edit,
    freeze_norms,
    freeze_patterns,
    intervene,
    mean_ablate,
    replace_from,
    resample_ablate,
    zero_ablate,
)

OTHERS = torch.randn(5, 3, 32, 24, generator=torch.Generator().manual_seed(9))


@torch.no_grad()
def after(model, images: Tensor, name, hooks: list) -> Tensor:
    """An activation as the rest of the model sees it."""
    with intervene(model, hooks):
        return model.run_with_cache(images, names_filter=name)[1][name]


@torch.no_grad()
def before(model, images: Tensor, name) -> Tensor:
    return model.run_with_cache(images, names_filter=name)[1][name].clone()


def weights(model) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@torch.no_grad()
def test_every_ablation_moves_the_logits_and_leaves_the_model_unchanged(kind: str, images: Tensor) -> None:
    model = ported(kind)
    logits, parameters = model(images), weights(model)
    for ablate in (zero_ablate, mean_ablate, resample_ablate):
        for name, where in [
            (("z", 1), {"heads": 0}), (("post", 0), {"neurons": [1, 2, 3]}), (("attn_out", 1), {}),
            (("mlp_out", 0), {}),
            (("resid_pre", 1), {"tokens": "patch"}), (("resid_mid", 0), {"tokens": [2, 3]}),
        ]:  # fmt: skip
            if name[0] == "resid_mid" and model.cfg.parallel_attn_mlp:
                continue
            hooks = ablate(model, name, **where)
            moved = model.run_with_hooks(images, fwd_hooks=hooks)
            assert (moved - logits).abs().max() > 1e-7, (ablate.__name__, name)
    assert not model.list_hooks()
    assert torch.equal(model(images), logits)
    assert all(torch.equal(a, b) for a, b in zip(parameters, model.parameters(), strict=True))


def test_zeros_at_the_selection_alone(kind: str, images: Tensor) -> None:
    model, name = ported(kind), "blocks.1.attn.hook_z"
    expected = before(model, images, name)
    expected[:, 3:5, 1] = 0
    assert torch.equal(after(model, images, name, zero_ablate(model, name, heads=1, tokens=[3, 4])), expected)


def test_means_of_the_batch_and_of_other_images(kind: str, images: Tensor) -> None:
    model, name = ported(kind), "blocks.0.hook_mlp_out"
    own, other_mean = before(model, images, name), before(model, OTHERS, name).mean(0)
    assert torch.allclose(after(model, images, name, mean_ablate(model, name)), own.mean(0).expand_as(own))
    expected = own.clone()
    expected[:, 7] = other_mean[7]
    found = after(model, images, name, mean_ablate(model, name, {name: other_mean}, tokens=7))
    assert torch.equal(found, expected)


def test_resampling_gives_each_image_the_activations_of_another(kind: str, images: Tensor) -> None:
    model, name = ported(kind), "blocks.2.attn.hook_z"
    own = before(model, OTHERS, name)
    for seed in range(4):
        found = after(model, OTHERS, name, resample_ablate(model, name, seed=seed))
        taken = (found[:, None] == own[None]).flatten(2).all(-1).int().argmax(1).tolist()
        assert sorted(taken) == list(range(5))
        assert all(image != source for image, source in enumerate(taken))
    _, cache = model.run_with_cache(OTHERS, names_filter=["z", "post"])
    hooks = resample_ablate(model, [("z", 2), ("post", 1)], cache, seed=1)
    found_z, found_post = after(model, images, name, hooks), after(model, images, "blocks.1.mlp.hook_post", hooks)
    # from the same image at both hook points
    from_z = [(cache["z", 2] == z).flatten(1).all(1).nonzero().item() for z in found_z]
    from_post = [(cache["post", 1] == post).flatten(1).all(1).nonzero().item() for post in found_post]
    assert from_z == from_post


@torch.no_grad()
def test_a_stream_of_another_run_gives_its_logits(kind: str, images: Tensor) -> None:
    model = ported(kind)
    logits, cache = model.run_with_cache(OTHERS[:2])
    stream = "resid_post" if model.cfg.parallel_attn_mlp else "resid_mid"
    found = model.run_with_hooks(images, fwd_hooks=replace_from(model, (stream, 1), cache))
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    "kind", sorted(set(KINDS) - {"inner_norms", "rotary"})
)  # their norm after the heads is not frozen
def test_with_norms_and_patterns_frozen_attention_is_linear(kind: str, images: Tensor) -> None:
    # attn(a + b - c) = attn(a) + attn(b) - attn(c) if only the values depend on the stream
    model = ported(kind)
    _, cache = model.run_with_cache(OTHERS[:1])
    hooks = freeze_norms(model, cache) + freeze_patterns(model, cache)
    streams = torch.randn(3, model.cfg.n_ctx, 24, generator=torch.Generator().manual_seed(2))
    streams = torch.cat([streams, (streams[0] + streams[1] - streams[2])[None]])
    with intervene(model, hooks):
        _, found = model.run_with_cache(streams, start_at_layer=1, stop_at_layer=2, names_filter=("attn_out", 1))
    out = found["attn_out", 1]
    torch.testing.assert_close(out[3], out[0] + out[1] - out[2], rtol=1e-4, atol=1e-5)


def test_interventions_add_up_nest_and_are_removed_after_an_exception(kind: str, images: Tensor) -> None:
    model, name = ported(kind), "blocks.0.hook_mlp_out"
    add, double = edit(model, name, lambda x, _: x + 1), edit(model, name, lambda x, _: 2 * x)
    own = before(model, images, name)
    assert torch.allclose(after(model, images, name, add + double), 2 * (own + 1))
    with intervene(model, add), intervene(model, double):
        assert torch.allclose(before(model, images, name), 2 * (own + 1))
    with pytest.raises(RuntimeError, match="on purpose"), intervene(model, add):
        raise RuntimeError("on purpose")
    assert not model.list_hooks()
    assert torch.equal(before(model, images, name), own)


@pytest.mark.usefixtures("bad_input")
def test_errors_say_what_to_do(images: Tensor) -> None:
    model = ported("cls")
    _, cache = model.run_with_cache(OTHERS, names_filter="z")
    with pytest.raises(ValueError, match="did you mean"):
        zero_ablate(model, "attn_oot")
    with pytest.raises(
        ValueError, match=r"the cache lacks 'blocks.0.hook_mlp_out' and 2 more: run `model.run_with_cache"
    ):
        replace_from(model, "mlp_out", cache)
    with pytest.raises(ValueError, match=r"`means` lacks 'blocks.1.mlp.hook_post': compute it with mean_activations"):
        mean_ablate(model, ("post", 1), {})
    with pytest.raises(ValueError, match=r"has shape \(5, 13, 3, 8\) in the cache and \(2, 13, 3, 8\) in this run"):
        model.run_with_hooks(images, fwd_hooks=replace_from(model, ("z", 0), cache))
    with pytest.raises(ValueError, match=r"compute means of images of this size"):
        model.run_with_hooks(
            images, fwd_hooks=mean_ablate(model, "z", {f"blocks.{i}.attn.hook_z": OTHERS for i in range(3)})
        )
    with pytest.raises(ValueError, match="at least two images to resample from, got one"):
        model.run_with_hooks(images[:1], fwd_hooks=resample_ablate(model, "z"))
    with pytest.raises(ValueError, match=r"the cache lacks 'blocks.0.ln1.hook_scale'"):
        freeze_norms(model, cache)
    assert not model.list_hooks()

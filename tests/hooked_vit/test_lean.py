"""A lean cache against one that holds everything: bit for bit, in every method, and refused once weights change."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import make_timm, perturb, ported
from torch import Tensor
from whole_caches import everything

from hooked_vit import HookedViT, ViTActivationCache

METHODS: dict[str, Callable[[ViTActivationCache], Any]] = {
    "accumulated_resid": lambda cache: cache.accumulated_resid(incl_mid=True, apply_ln=True),
    "decompose_resid": lambda cache: cache.decompose_resid(mode="all"),
    "stack_head_results": lambda cache: cache.stack_head_results(layer=2, incl_remainder=True),
    "get_neuron_results": lambda cache: cache.get_neuron_results(1),
    "stack_neuron_results": lambda cache: cache.stack_neuron_results(2),
    "get_full_resid_decomposition": lambda cache: cache.get_full_resid_decomposition(2, expand_neurons=False),
    "stack_activation": lambda cache: cache.stack_activation("pattern"),
    "apply_ln_to_stack": lambda cache: cache.apply_ln_to_stack(cache.accumulated_resid()),
    "logit_attrs": lambda cache: cache.logit_attrs(cache.decompose_resid(), 2),
    "slice": lambda cache: torch.cat([x.flatten() for _, x in sorted(cache.apply_slice_to_batch_dim([1]).items())]),
    "one image": lambda cache: cache.apply_slice_to_batch_dim(1)["post", 2],
    "to": lambda cache: cache.to("cpu")["pattern", 0],
    "values": lambda cache: torch.cat([value.flatten() for _, value in sorted(cache.items())]),
    "hold_everything": lambda cache: cache.hold_everything()["z", 1],
    "remove_batch_dim": lambda cache: cache.apply_slice_to_batch_dim([0]).remove_batch_dim()["q", 1],
}


@pytest.fixture
def model(kind: str) -> HookedViT:
    """A model of each kind."""
    return ported(kind)


def test_everything_that_exists_is_bitwise_that_of_the_run(model: HookedViT, images: Tensor) -> None:
    logits, cache = model.run_with_cache(images, lean=True)
    assert torch.equal(logits, model(images))
    _, whole = model.run_with_cache(images, names_filter=lambda name: True)
    expected = everything(model, images)
    assert set(cache) == set(expected)
    for name, activation in whole.items():
        assert torch.equal(cache[name], activation), name


def test_it_holds_the_images_and_the_streams(model: HookedViT, images: Tensor) -> None:
    _, cache = model.run_with_cache(images, lean=True)
    light = images.nbytes + 4 * cache["resid_pre", 0].nbytes
    assert cache.nbytes == light
    _ = cache["pattern", 0], cache["post", 1]
    of_one_block = cache.nbytes - light
    _ = cache["pattern", 2]
    assert 0 < of_one_block < 2 * model.run_with_cache(images)[1].nbytes / 3
    cache.drop_computed()
    assert cache.nbytes == light
    assert torch.equal(cache["pattern", 0], everything(model, images)["blocks.0.attn.hook_pattern"])


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale", "post_norm", "map"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_same(model: HookedViT, images: Tensor, method: str) -> None:
    caches = [model.run_with_cache(images, **options)[1] for options in ({"lean": True}, {})]
    whole = ViTActivationCache(everything(model, images), model)
    if model.cfg.pool == "attention" and method in ("accumulated_resid", "apply_ln_to_stack", "logit_attrs"):
        pytest.skip("no norm between the stream and an attention pool")
    expected = METHODS[method](whole)
    # a lean cache has the run's own `hook_result`; from z and a cached scale, a post-norm gives other last bits
    exact = {} if model.cfg.post_norm else {"rtol": 0, "atol": 0}
    for cache in caches:
        torch.testing.assert_close(METHODS[method](cache), expected, **exact)


def test_a_block_runs_once_for_all_that_is_read_of_it(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    from hooked_vit.components.block import Block

    model, runs = ported("cls"), []
    forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, *args: runs.append(1) or forward(self, *args))
    _, cache = model.run_with_cache(images, lean=True)
    assert len(runs) == 3
    _ = cache["resid_pre", 1], cache["resid_post", 2], cache["hook_tokens"], cache["embed"], cache["hook_logits"]
    assert len(runs) == 3
    _ = cache["pattern", 1], cache["z", 1], cache["pattern", 1]
    assert len(runs) == 4
    _ = cache["pattern", 2]
    assert len(runs) == 5


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale", "qk_norm"])
def test_with_dropped_tokens_layers_left_out_and_chosen_names(model: HookedViT, images: Tensor) -> None:
    mask = torch.ones(2, model.cfg.n_ctx, dtype=torch.bool)
    mask[0, -3:] = False
    stream = model.run_with_cache(images, names_filter=("resid_pre", 1))[1]["resid_pre", 1]
    runs = [(images, {"token_mask": mask}), (images, {"token_mask": mask | True}), (images, {"stop_at_layer": 2}),
            (stream, {"start_at_layer": 1}), (stream, {"start_at_layer": -2, "stop_at_layer": -1}),
            (stream, {"start_at_layer": 3}), (images, {"stop_at_layer": 0})]  # fmt: skip
    for given, options in runs:
        output, cache = model.run_with_cache(given, lean=True, **options)
        assert torch.equal(output, model(given, **options))
        expected = everything(model, given, **options)
        assert set(cache) == set(expected)
        for name, activation in expected.items():
            assert torch.equal(cache[name], activation), (name, options)
    _, cache = model.run_with_cache(images, names_filter=["pattern", "resid_mid"], lean=True)
    assert set(cache) == set(model.hook_names(["pattern", "resid_mid"]))
    assert torch.equal(cache["pattern", 1], everything(model, images)["blocks.1.attn.hook_pattern"])


def test_other_image_sizes(images: Tensor) -> None:
    model, larger = ported("dynamic"), torch.randn(2, 3, 48, 40)
    _, cache = model.run_with_cache(larger, lean=True)
    for name, activation in everything(model, larger).items():
        assert torch.equal(cache[name], activation), name
    mask = torch.ones(2, cache["resid_pre", 0].shape[1], dtype=torch.bool)
    mask[:, -1] = False
    with pytest.raises(ValueError, match=r"a token_mask for images of the model's own size only"):
        model.run_with_cache(larger, lean=True, token_mask=mask)


def test_it_is_read_within_hooks_of_the_same_model(images: Tensor) -> None:
    model = ported("cls")
    _, cache = model.run_with_cache(images, lean=True)
    _, held = model.run_with_cache(images, names_filter="z")

    def patched(source: ViTActivationCache) -> Tensor:
        return model.run_with_hooks(images.flip(0), fwd_hooks=[("z", lambda z, hook: z + source[hook.name])])

    assert torch.equal(patched(cache), patched(held))
    assert not torch.equal(patched(cache), model(images.flip(0)))


def test_a_run_as_it_was_though_settings_have_changed(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    with torch.autocast("cpu", torch.bfloat16):
        _, cache = model.run_with_cache(images, lean=True)
        expected = everything(model, images)
    model.fused_attention = False
    model.add_hook("z", lambda z, hook: 0 * z)
    for name, activation in expected.items():
        assert cache[name].dtype == activation.dtype
        assert torch.equal(cache[name], activation), name


@pytest.mark.parametrize("change", ["step", "load", "move", "replace"])
def test_it_refuses_once_weights_have_changed(images: Tensor, change: str) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    _, cache = model.run_with_cache(images, lean=True)
    kept = cache["z", 1]
    block = model.blocks[2]
    if change == "step":
        with torch.no_grad():
            block.mlp.inp.bias.add_(1)
    elif change == "load":
        block.load_state_dict({name: 2 * weight for name, weight in block.state_dict().items()})
    elif change == "move":
        block.to(torch.float64)
    else:
        block.mlp.inp = torch.nn.Linear(24, 60)
    with pytest.raises(ValueError, match=r"running block 2 again, and weights of block 2 have changed since the run"):
        cache["z", 2]
    assert torch.equal(cache["z", 1], kept)  # another block
    assert torch.equal(cache["resid_pre", 2], everything(ported("cls"), images)["blocks.2.hook_resid_pre"])
    with torch.no_grad():
        model.ln_final.weight.add_(1)
    with pytest.raises(ValueError, match=r"weights of the embedding or the head have changed"):
        cache["hook_pooled"]


def test_edits_of_the_images_and_of_streams_are_noticed(images: Tensor) -> None:
    _, cache = ported("cls").run_with_cache(images, lean=True)
    images.zero_()
    with pytest.raises(ValueError, match=r"running the embedding again on the images, which it holds"):
        cache["hook_embed"]
    cache["resid_pre", 1].zero_()
    with pytest.raises(ValueError, match=r"running block 1 again on a residual stream, which it holds"):
        cache["z", 1]
    assert cache["z", 2].any()


def test_one_image_without_its_batch_axis(images: Tensor) -> None:
    model = ported("cls")
    _, cache = model.run_with_cache(images[:1], lean=True, remove_batch_dim=True)
    assert not cache.has_batch_dim
    assert torch.equal(cache["pattern", 1], everything(model, images[:1])["blocks.1.attn.hook_pattern"][0])


@pytest.mark.parametrize(("option", "value"), [("device", "cpu"), ("pos_slice", 0)])
def test_options_that_do_not_go_together(images: Tensor, option: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"lean=True keeps residual streams only, and goes without {option}"):
        ported("cls").run_with_cache(images, lean=True, **{option: value})
    with pytest.raises(ValueError, match=r"none of the 1 requested hook points, such as 'hook_logits', is reached"):
        ported("cls").run_with_cache(images, lean=True, names_filter="hook_logits", stop_at_layer=1)


SMALL: dict[str, Any] = {
    "img_size": (32, 24),
    "patch_size": 8,
    "num_classes": 7,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
}


@pytest.mark.parametrize("family", ["rotary", "relative bias"])
def test_attention_with_positions_of_its_own(images: Tensor, family: str) -> None:
    from timm.models.beit import Beit
    from timm.models.eva import Eva

    if family == "rotary":
        module = Eva(**{**SMALL, "embed_dim": 48}, use_rot_pos_emb=True, dynamic_img_size=True)
    else:
        module = Beit(**SMALL, use_shared_rel_pos_bias=True, use_abs_pos_emb=False)
    model = HookedViT.from_timm(perturb(module))
    for given in (images, *([torch.randn(2, 3, 48, 40)] if family == "rotary" else [])):
        expected = everything(model, given)
        for cache in (model.run_with_cache(given)[1], model.run_with_cache(given, lean=True)[1]):
            assert set(cache) == set(expected)
            for name, activation in expected.items():
                assert torch.equal(cache[name], activation), name
    _, cache = model.run_with_cache(images, lean=True)
    if family == "relative bias":
        with torch.no_grad():
            model.relative_bias.rel_pos.relative_position_bias_table.add_(1)
        with pytest.raises(ValueError, match=r"weights of block 0 have changed"):
            cache["pattern", 0]

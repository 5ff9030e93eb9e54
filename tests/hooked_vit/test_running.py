"""Running with a cache, with hooks and with gradients: what is kept, where, and that the model is unchanged."""

import copy
import re

import pytest
import torch
from conftest import ported
from torch import Tensor
from torch.nn import functional as F
from transformer_lens.utilities import Slice

from hooked_vit import HookedViT, ViTActivationCache
from hooked_vit.absent_points import why_absent

LABELS = torch.tensor([3, 6])


@pytest.fixture
def model(kind: str) -> HookedViT:
    """A model of each kind."""
    return ported(kind)


@pytest.fixture
def cls() -> HookedViT:
    """The plain kind."""
    return ported("cls")


def is_as_before(model: HookedViT, images: Tensor, before: Tensor) -> bool:
    """No hook is attached, no level is open, no gradient is left, and the logits are bitwise unchanged."""
    clean = not model.list_hooks() and model.context_level == 0
    return clean and all(p.grad is None for p in model.parameters()) and torch.equal(model(images), before)


# ---------------------------------------------------------------- caching


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("blocks.1.attn.hook_z", ["blocks.1.attn.hook_z"]),
        ("pattern2", ["blocks.2.attn.hook_pattern"]),
        ("resid_mid", [f"blocks.{layer}.hook_resid_mid" for layer in range(3)]),
        (("resid_post", -1), ["blocks.2.hook_resid_post"]),
        (("scale", 0, "ln2"), ["blocks.0.ln2.hook_scale"]),
        ([("scale", 0, "ln2"), "logits", ("q", 1)], ["blocks.0.ln2.hook_scale", "blocks.1.attn.hook_q", "hook_logits"]),
        (("embed", "logits"), ["hook_embed", "hook_logits"]),
        (lambda name: "hook_resid_p" in name and ".1." in name, [f"blocks.1.hook_resid_{p}" for p in ("pre", "post")]),
        (["result1"], ["blocks.1.attn.hook_result"]),
    ],
)
def test_only_the_named_activations_are_kept(
    cls: HookedViT, images: Tensor, names: object, expected: list[str]
) -> None:
    before = cls(images)
    logits, cache = cls.run_with_cache(images, names_filter=names)
    assert torch.equal(logits, before)
    assert isinstance(cache, ViTActivationCache)
    assert sorted(cache.keys()) == sorted(expected)
    assert is_as_before(cls, images, before)


def test_everything_except_on_demand_activations_is_kept(model: HookedViT, images: Tensor) -> None:
    _, cache = model.run_with_cache(images)
    assert set(cache.keys()) == set(model.hook_names(None))
    _, cache = model.run_with_cache(images, names_filter=model.hook_names())
    assert set(cache.keys()) == set(model.hook_dict)
    assert not any(tensor.requires_grad for tensor in cache.values())


def shape_of(name: str, model: HookedViT) -> tuple[int | str, ...]:
    """The documented names: the shape of a hook point for two images; an extra name for what it leaves open."""
    cfg, layout = model.cfg, model.token_layout
    token, d, heads = layout.n_tokens, cfg.d_model, cfg.n_heads
    shared = cfg.n_key_value_heads or heads
    part, last = name.rsplit(".", 1) if "." in name else ("", name)
    if name == "hook_patch_embed":
        return 2, layout.n_patches, d
    if part == "embed.patch_ln":
        return 2, layout.n_patches, 1 if last == "hook_scale" else d
    if name in ("hook_logits", "hook_logits_cls", "hook_logits_dist"):
        return 2, cfg.n_classes
    if name.startswith("hook_pooled"):
        return 2, d
    if part == "ln_final" and cfg.norm_after_pool:
        return 2, 1, 1 if last == "hook_scale" else d
    if part.endswith(("q_norm", "k_norm")):
        n = shared if part.endswith("k_norm") else heads
        return 2, n, token, 1 if last == "hook_scale" else cfg.d_head
    if part.endswith(".attn.ln"):
        return 2, token, 1 if last == "hook_scale" else heads * cfg.d_head
    if part.endswith(".mlp.ln"):
        return 2, token, 1 if last == "hook_scale" else cfg.d_mlp
    table = {
        "hook_scale": (2, token, 1), "hook_attn_scores": (2, heads, token, token),
        "hook_pattern": (2, heads, token, token), "hook_result": (2, token, heads, d),
        **{f"hook_{role}_input": (2, token, heads if role == "q" else shared, d) for role in "qkv"},
        **{f"hook_{role}": (2, token, heads, cfg.d_head) for role in ("q", "rot_q", "z", "z_pre")},
        **{f"hook_{role}": (2, token, shared, cfg.d_head) for role in ("k", "rot_k", "v")},
        **{f"hook_{half}": (2, token, cfg.d_mlp) for half in ("pre", "pre_linear", "mid", "post")},
    }  # fmt: skip
    return table.get(last, (2, token, d))


def test_every_activation_has_the_shape_of_the_table(model: HookedViT, images: Tensor) -> None:
    _, cache = model.run_with_cache(images, names_filter=model.hook_names())
    for name, activation in cache.items():
        if not name.startswith("attn_pool."):
            assert tuple(activation.shape) == shape_of(name, model), name
    assert torch.equal(cache["hook_tokens"], cache["resid_pre", 0])


def test_switches_of_transformer_lens_put_more_into_a_cache_of_everything(images: Tensor) -> None:
    model = copy.deepcopy(ported("cls"))
    default = set(model.run_with_cache(images)[1])
    model.set_use_attn_result(True)
    model.set_use_split_qkv_input(True)
    model.set_use_hook_mlp_in(True)
    assert set(model.run_with_cache(images)[1]) == set(model.hook_dict) > default
    for switch in (model.set_use_attn_result, model.set_use_split_qkv_input, model.set_use_hook_mlp_in):
        switch(False)
    assert set(model.run_with_cache(images)[1]) == default


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names_filter": ("resid_post", 2), "stop_at_layer": 1}, "none of the 1 requested hook points, such as "
         "'blocks.2.hook_resid_post', was reached: change names_filter, start_at_layer or stop_at_layer"),
        ({"pos_slice": 13}, "pos_slice=[13] is out of range: 'hook_embed' has 13 tokens"),
        ({"pos_slice": -14}, "pos_slice=[-14] is out of range: 'hook_embed' has 13 tokens"),
        ({"incl_bwd": True}, "incl_bwd calls backward on the output, which must be a scalar"),
        ({"incl_bwd": True, "return_type": "both", "labels": LABELS}, "incl_bwd calls backward on the output"),
    ],
)  # fmt: skip
def test_impossible_caches_are_refused(cls: HookedViT, images: Tensor, arguments: dict, message: str) -> None:
    before = cls(images)
    with pytest.raises(ValueError, match=re.escape(message)):
        cls.run_with_cache(images, **arguments)
    assert is_as_before(cls, images, before)


@pytest.mark.usefixtures("bad_input")
def test_a_hook_that_is_not_a_function_is_refused(cls: HookedViT, images: Tensor) -> None:
    before = cls(images)
    good = ("resid_pre", lambda stream, hook: stream * 0)
    with pytest.raises(TypeError, match=re.escape("a hook on 'blocks.0.attn.hook_z' must be a function fn(activation")):
        cls.run_with_hooks(images, fwd_hooks=[good, ("z", "not a function")])
    assert is_as_before(cls, images, before)


def test_a_plain_dict_on_request(cls: HookedViT, images: Tensor) -> None:
    _, cache = cls.run_with_cache(images, names_filter="embed", return_cache_object=False)
    assert type(cache) is dict
    assert list(cache) == ["hook_embed"]


@pytest.mark.parametrize("where", ["meta", torch.device("meta")])
def test_activations_are_kept_on_another_device(cls: HookedViT, images: Tensor, where: torch.device | str) -> None:
    logits, cache = cls.run_with_cache(images, device=where)
    assert logits.device.type == "cpu"
    assert {tensor.device.type for tensor in cache.values()} == {"meta"}
    assert cache["pattern", 0].shape == (2, 3, 13, 13)


def assert_sliced(model: HookedViT, images: Tensor, pos_slice: object) -> None:
    """A cache of some tokens is those tokens of the whole cache, at every hook point."""
    _, whole = model.run_with_cache(images, names_filter=model.hook_names())
    _, cache = model.run_with_cache(images, names_filter=model.hook_names(), pos_slice=pos_slice)
    index = torch.arange(model.cfg.n_ctx)[Slice.unwrap(pos_slice).slice]
    for name, activation in whole.items():
        kept = cache[name]
        if name.startswith(("attn_pool.", "hook_pooled", "hook_logits", "hook_patch_embed", "embed.patch_ln")):
            assert torch.equal(kept, activation), name  # no axis of tokens
        elif name.startswith("ln_final.") and model.cfg.norm_after_pool:
            assert torch.equal(kept.flatten(), activation.flatten()), name  # shared by all tokens
        elif name.endswith(("hook_attn_scores", "hook_pattern")) or ".q_norm." in name or ".k_norm." in name:
            assert torch.equal(kept, activation[:, :, index]), name
        else:
            assert torch.equal(kept, activation[:, index]), name


@pytest.mark.parametrize("pos_slice", [11, (2, 7), Slice(6)], ids=str)
def test_some_tokens_are_kept_of_every_activation(model: HookedViT, images: Tensor, pos_slice: object) -> None:
    assert_sliced(model, images, pos_slice)


@pytest.mark.parametrize("pos_slice", [12, -1, [0, 5], (0, 9, 4), torch.tensor([3, 1]), Slice((None, 3))], ids=str)
def test_pos_slice_takes_every_form_of_transformer_lens(cls: HookedViT, images: Tensor, pos_slice: object) -> None:
    assert_sliced(cls, images, pos_slice)


def test_a_single_image_without_its_batch_axis(model: HookedViT, images: Tensor) -> None:
    _, whole = model.run_with_cache(images[:1], names_filter=model.hook_names())
    _, cache = model.run_with_cache(images[:1], names_filter=model.hook_names(), remove_batch_dim=True)
    assert not cache.has_batch_dim
    for name, activation in whole.items():
        assert torch.equal(cache[name], activation[0]), name
    _, cache = model.run_with_cache(input=images[:1], remove_batch_dim=True, pos_slice=2)
    assert cache["resid_post", 1].shape == (1, 24)


def test_several_images_keep_their_batch_axis(cls: HookedViT, images: Tensor) -> None:
    before = cls(images)
    for call in (lambda: cls.run_with_cache(images, remove_batch_dim=True),
                 lambda: cls.run_with_cache(input=images, remove_batch_dim=True)):  # fmt: skip
        with pytest.raises(ValueError, match="remove_batch_dim is for a single image, got a batch of 2"):
            call()
    assert is_as_before(cls, images, before)


def test_gradients_of_a_loss_are_cached_with_the_activations(model: HookedViT, images: Tensor) -> None:
    before = model(images)
    _, activations, gradients = model.run_with_gradients(
        images, lambda logits: F.cross_entropy(logits, LABELS), model.hook_names()
    )
    loss, cache = model.run_with_cache(
        images, return_type="loss", labels=LABELS, incl_bwd=True, names_filter=model.hook_names()
    )
    torch.testing.assert_close(loss, F.cross_entropy(before, LABELS))
    model.zero_grad()
    assert set(cache.keys()) == {name + end for name in model.hook_dict for end in ("", "_grad")}
    for name in model.hook_dict:
        torch.testing.assert_close(cache[name], activations[name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(cache[f"{name}_grad"], gradients[name], rtol=1e-3, atol=1e-6, msg=name)
    assert is_as_before(model, images, before)


def test_the_queries_keys_and_values_of_a_cache_share_their_memory(cls: HookedViT, images: Tensor) -> None:
    _, cache = cls.run_with_cache(images)
    assert len({cache[name, 1].untyped_storage().data_ptr() for name in "qkv"}) == 1
    assert cache["resid_post", 0].data_ptr() == cache["resid_pre", 1].data_ptr()


def test_caching_hooks_stay_until_reset(cls: HookedViT, images: Tensor) -> None:
    before = cls(images)
    cache = cls.add_caching_hooks("resid_post")
    cls(images[:1])
    assert {name: len(kept) for name, kept in cache.items()} == {f"blocks.{i}.hook_resid_post": 1 for i in range(3)}
    cls(images)
    assert len(cache["blocks.0.hook_resid_post"]) == 2
    cls.reset_hooks()
    assert is_as_before(cls, images, before)
    cache = cls.add_caching_hooks(("resid_post", 0), incl_bwd=True)
    cls(images, "loss", labels=LABELS).backward()
    cls.reset_hooks()
    cls.zero_grad()
    assert set(cache) == {"blocks.0.hook_resid_post", "blocks.0.hook_resid_post_grad"}
    assert is_as_before(cls, images, before)


# ---------------------------------------------------------------- hooks


def test_hooks_are_attached_only_within_the_block(model: HookedViT, images: Tensor) -> None:
    before = model(images)
    with model.hooks(fwd_hooks=[(("resid_pre", 1), lambda x, hook: 2 * x)]) as inside:
        assert inside is model
        edited = model(images)
        with model.hooks(fwd_hooks=[("hook_embed", lambda x, hook: 0 * x)]):
            assert not torch.equal(model(images), edited)
        assert torch.equal(model(images), edited), "the inner hooks are gone, the outer ones are on"
    assert not torch.equal(edited, before)
    assert is_as_before(model, images, before)


def test_a_hook_on_many_points_sees_each(cls: HookedViT, images: Tensor) -> None:
    seen = []
    cls.run_with_hooks(images, fwd_hooks=[(["pattern", ("resid_post", 0)], lambda x, hook: seen.append(hook.name))])
    expected = ["blocks.0.attn.hook_pattern", "blocks.0.hook_resid_post"]
    assert seen == [*expected, "blocks.1.attn.hook_pattern", "blocks.2.attn.hook_pattern"]


@pytest.mark.parametrize("point", ["hook_embed", "blocks.1.attn.hook_pattern", "blocks.2.mlp.hook_post", "hook_logits"])
def test_hooks_are_removed_after_an_exception(cls: HookedViT, images: Tensor, point: str) -> None:
    before = cls(images)

    def fail(activation: Tensor, hook: object) -> None:
        raise RuntimeError("the hook's own")

    for run in (
        lambda: cls.run_with_hooks(images, fwd_hooks=[("resid_pre", lambda x, hook: 2 * x), (point, fail)]),
        lambda: cls.run_with_gradients(images, lambda logits: logits[:, 0], fwd_hooks=[(point, fail)]),
        lambda: cls.run_with_cache(images[:, :2], names_filter="pattern"),
    ):
        with pytest.raises((RuntimeError, ValueError), match=r"the hook's own|3 channels"):
            run()
        assert is_as_before(cls, images, before)


def test_an_unknown_name_among_hooks_attaches_none(cls: HookedViT, images: Tensor) -> None:
    before = cls(images)
    bad = [("resid_pre", lambda x, hook: 2 * x), ("resid_prf", lambda x, hook: x)]
    message = "unknown hook point 'resid_prf'; did you mean 'blocks."
    for run in (
        lambda: cls.run_with_hooks(images, fwd_hooks=bad),
        lambda: cls.run_with_cache(images, names_filter="resid_prf"),
        lambda: cls.run_with_gradients(images, lambda logits: logits[:, 0], "resid_prf"),
        lambda: cls.add_hook("resid_prf", lambda x, hook: x),
        lambda: cls.add_perma_hook("resid_prf", lambda x, hook: x),
        lambda: cls.hook_names("resid_prf"),
    ):
        with pytest.raises(ValueError, match=message):
            run()
        assert is_as_before(cls, images, before)
    with pytest.raises(ValueError, match="the names filter accepts none of the 74 hook points"):
        cls.run_with_hooks(images, fwd_hooks=[(lambda name: "hook_zz" in name, lambda x, hook: x)])
    assert is_as_before(cls, images, before)


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda x: x[:, 1:], ValueError, "returned shape (2, 12, 24), expected (2, 13, 24)"),
        (lambda x: x.double(), ValueError, "returned torch.float64 on cpu, expected torch.float32 on cpu"),
        (lambda x: x.tolist(), TypeError, "returned list: return a tensor of shape (2, 13, 24)"),
    ],
)
def test_an_edit_that_does_not_fit_leaves_the_model_unchanged(
    cls: HookedViT, images: Tensor, edit, error: type[Exception], message: str
) -> None:
    before = cls(images)
    with pytest.raises(error, match=re.escape(f"the hook on 'blocks.1.hook_attn_out' {message}")):
        cls.run_with_hooks(images, fwd_hooks=[(("attn_out", 1), lambda x, hook: edit(x))])
    assert is_as_before(cls, images, before)


# ---------------------------------------------------------------- gradients


def plain_gradient(model: HookedViT, images: Tensor, layer: int, metric) -> Tensor:
    """The gradient at the stream before a layer, by autograd alone."""
    residual = model(images, stop_at_layer=layer).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(metric(model(residual, start_at_layer=layer)).sum(), residual)
    return gradient


@pytest.mark.parametrize("names", ["resid_pre", None])
def test_gradients_are_those_of_plain_autograd(model: HookedViT, images: Tensor, names: object) -> None:
    def metric(logits: Tensor) -> Tensor:
        return logits[:, 4] - logits.square().mean(1)

    before = model(images)
    value, cache, gradients = model.run_with_gradients(images, metric, names)
    torch.testing.assert_close(value, metric(before))
    assert not value.requires_grad
    for layer in range(3):
        expected = plain_gradient(model, images, layer, metric)
        torch.testing.assert_close(gradients["resid_pre", layer], expected, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(cache["resid_pre", layer], model(images, stop_at_layer=layer), rtol=1e-4, atol=1e-5)
    assert is_as_before(model, images, before)


POINTS = (
    "hook_embed", "blocks.1.ln1.hook_scale", "blocks.1.attn.hook_q", "blocks.1.attn.hook_attn_scores",
    "blocks.1.attn.hook_pattern", "blocks.1.attn.hook_result", "blocks.1.hook_k_input", "blocks.2.ln2.hook_scale",
    "blocks.1.mlp.hook_pre", "hook_pooled",
)  # fmt: skip


def test_gradients_are_the_limits_of_differences(model: HookedViT, images: Tensor) -> None:
    model, images, step = copy.deepcopy(model).double(), images.double(), 1e-5
    points = [point for point in POINTS if why_absent(point, model.cfg) is None]
    _, cache, gradients = model.run_with_gradients(images, lambda logits: logits[:, 2], points)
    for point in points:
        direction = torch.randn(cache[point].shape, dtype=torch.double, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            above, below = (
                model.run_with_hooks(images, fwd_hooks=[(point, lambda x, hook, by=by * direction: x + by)])[:, 2]
                for by in (step, -step)
            )
        slope = (gradients[point] * direction).flatten(1).sum(1)
        assert slope.abs().min() > 0, point
        torch.testing.assert_close((above - below) / (2 * step), slope, rtol=1e-4, atol=1e-8, msg=point)


def test_one_number_per_image_gives_each_image_its_own_gradient(model: HookedViT, images: Tensor) -> None:
    value, _, gradients = model.run_with_gradients(images, lambda logits: logits[:, 1], "resid_post")
    assert value.shape == (2,)
    for image in range(2):
        alone, _, own = model.run_with_gradients(images[image : image + 1], lambda logits: logits[0, 1], "resid_post")
        torch.testing.assert_close(alone, value[image])
        for layer in range(3):
            torch.testing.assert_close(
                own["resid_post", layer][0], gradients["resid_post", layer][image], rtol=1e-3, atol=1e-6
            )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_work_in_every_grad_mode(model: HookedViT, images: Tensor, mode) -> None:
    expected = model.run_with_gradients(images, lambda logits: logits[:, 1], "resid_pre")
    mask = torch.ones(2, model.cfg.n_ctx, dtype=torch.bool)
    mask[0, -1] = False
    with mode():
        inside = images * 1
        assert inside.is_inference() == (mode is torch.inference_mode)
        found = model.run_with_gradients(inside, lambda logits: logits[:, 1], "resid_pre")
        masked = model.run_with_gradients(inside, lambda logits: logits[:, 1], "resid_pre", token_mask=mask.clone())
        assert not torch.is_grad_enabled()
    assert masked[2]["resid_pre", 0].abs().max() > 0
    assert torch.equal(found[0], expected[0])
    for layer in range(3):
        assert torch.equal(found[2]["resid_pre", layer], expected[2]["resid_pre", layer])


def test_a_frozen_model_has_gradients_too(model: HookedViT, images: Tensor) -> None:
    _, _, expected = model.run_with_gradients(images, lambda logits: logits[:, 1])
    model = copy.deepcopy(model).requires_grad_(False)
    value, _, gradients = model.run_with_gradients(images, lambda logits: logits[:, 1])
    assert value.shape == (2,)
    assert set(gradients.keys()) == set(expected.keys())
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_gradients_are_taken_with_other_hooks_on(cls: HookedViT, images: Tensor) -> None:
    def knock_out(z: Tensor, hook: object) -> Tensor:
        z = z.clone()
        z[:, :, 1] = 0
        return z

    value, cache, gradients = cls.run_with_gradients(
        images, lambda logits: logits[:, 0], ["z", ("v", 2)], fwd_hooks=[(("z", 2), knock_out)]
    )
    torch.testing.assert_close(value, cls.run_with_hooks(images, fwd_hooks=[(("z", 2), knock_out)])[:, 0])
    assert cache["z", 2][:, :, 1].abs().max() == 0, "what is recorded is what the other hooks left"
    assert gradients["v", 2][:, :, 1].abs().max() == 0
    assert gradients["v", 2][:, :, 0].abs().max() > 0


def test_tokens_that_do_not_reach_the_readout_have_no_gradient(cls: HookedViT, images: Tensor) -> None:
    _, _, gradients = cls.run_with_gradients(images, lambda logits: logits[:, 0], "resid_post")
    assert gradients["resid_post", 2][:, 1:].abs().max() == 0
    assert gradients["resid_post", 2][:, 0].abs().min() > 0
    assert (gradients["resid_post", 1].abs().sum(-1) > 0).all()


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda logits: logits, "metric must return a scalar or one number per image ([2]), got (2, 7)"),
        (lambda logits: 3.0, "metric must return a scalar or one number per image ([2]), got float"),
        (lambda logits: torch.ones(2), "metric returned a constant: it must be computed from the logits"),
        (lambda logits: logits[:, 0].detach(), "metric returned a constant"),
    ],
)
def test_a_metric_without_gradients_is_refused(cls: HookedViT, images: Tensor, metric, message: str) -> None:
    before = cls(images)
    with pytest.raises(ValueError, match=re.escape(message)):
        cls.run_with_gradients(images, metric)
    assert is_as_before(cls, images, before)


def test_gradients_of_a_run_that_starts_at_a_layer(cls: HookedViT, images: Tensor) -> None:
    residual = cls(images, stop_at_layer=1).detach()
    value, cache, gradients = cls.run_with_gradients(
        residual, lambda logits: logits[:, 5], "resid_pre", start_at_layer=1
    )
    _, _, whole = cls.run_with_gradients(images, lambda logits: logits[:, 5], "resid_pre")
    torch.testing.assert_close(value, cls(images)[:, 5])
    assert set(cache.keys()) == {"blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"}
    torch.testing.assert_close(gradients["resid_pre", 1], whole["resid_pre", 1], rtol=1e-3, atol=1e-6)
    assert not residual.requires_grad

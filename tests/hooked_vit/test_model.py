"""The forward pass: what it returns, starting and stopping at a layer, dropping tokens, sizes, dtypes and copies."""

import copy
import dataclasses
import pickle
import re

import pytest
import torch
from conftest import make_timm, original, ported
from timm.models.beit import Beit
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.nn import functional as F

from hooked_vit import HookedViT, KeptTokens

LABELS = torch.tensor([3, 6])


@pytest.fixture
def source(kind: str) -> nn.Module:
    """The timm module of each kind."""
    return original(kind)


@pytest.fixture
def model(kind: str) -> HookedViT:
    """Its port."""
    return ported(kind)


@pytest.fixture
def own(model: HookedViT) -> HookedViT:
    """A port that the test may change."""
    return copy.deepcopy(model)


# ---------------------------------------------------------------- what is returned


def test_logits_loss_or_both(model: HookedViT, images: Tensor) -> None:
    logits = model(images)
    assert logits.shape == (2, 7)
    log_probabilities = logits - logits.exp().sum(1, keepdim=True).log()
    expected = -(log_probabilities[0, 3] + log_probabilities[1, 6]) / 2
    loss = model(images, "loss", labels=LABELS)
    torch.testing.assert_close(loss, expected)
    both = model(images, return_type="both", labels=LABELS)
    assert torch.equal(both[0], logits)
    assert torch.equal(both[1], loss)


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"return_type": "probabilities"}, "return_type is 'logits', 'loss', 'both' or None, not 'probabilities'"),
        ({"return_type": "loss"}, "a loss needs labels: pass `labels=`, a class index for each image, or return_type="),
        ({"return_type": "both", "labels": torch.tensor([1])}, "labels must be int64 of shape [2], got torch.int64 of"),
        ({"return_type": "loss", "labels": torch.tensor([1.0, 2.0])}, "labels must be int64 of shape [2], got torch.f"),
        ({"stop_at_layer": 4}, "layer 4 is out of range: 0 to 3, or negative from the end"),
        (
            {"return_type": "loss", "labels": LABELS, "stop_at_layer": 1},
            "return_type='loss' needs the logits, and stop_at_layer=1 stops before them: drop one of the two",
        ),
        ({"return_type": "loss", "labels": LABELS + 4}, "labels must be class indices from 0 to 6, got 7 to 10"),
        ({"return_type": "loss", "labels": LABELS - 103}, "labels must be class indices from 0 to 6, got -100 to -97"),
        ({"stop_at_layer": -4}, "layer -4 is out of range: 0 to 3, or negative from the end"),
    ],
)
def test_invalid_options_are_refused(images: Tensor, arguments: dict, message: str) -> None:
    model = ported("cls")
    before = model(images)
    with pytest.raises(ValueError, match=re.escape(message)):
        model(images, **arguments)
    assert torch.equal(model(images), before)


def test_return_type_none_returns_nothing(images: Tensor) -> None:
    model = ported("cls")
    seen = []
    hooks = [("hook_logits", lambda logits, hook: seen.append(logits))]
    assert model.run_with_hooks(images, return_type=None, fwd_hooks=hooks) is None
    assert torch.equal(seen[0], model(images))
    nothing, cache = model.run_with_cache(images, return_type=None)
    assert nothing is None
    assert torch.equal(cache["hook_logits"], model(images))


def test_a_loss_without_classes_is_refused(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls", num_classes=0))
    with pytest.raises(ValueError, match="this model has no classes to compute a loss over"):
        model(images, "loss", labels=LABELS)


# ---------------------------------------------------------------- from and up to a layer


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_stopping_and_starting_again_changes_nothing(model: HookedViT, images: Tensor, layer: int) -> None:
    logits, cache = model.run_with_cache(images)
    residual = model(images, stop_at_layer=layer)
    assert torch.equal(residual, cache["resid_pre", layer] if layer < 3 else cache["resid_post", 2])
    assert torch.equal(model(residual, start_at_layer=layer), logits)
    assert torch.equal(model(images, stop_at_layer=layer - 3 if layer < 3 else 3), residual)


@pytest.mark.parametrize(("first", "last"), [(0, 3), (1, 2), (2, 2), (0, 0), (1, 3)])
def test_a_range_of_layers_runs_those_blocks(
    model: HookedViT, source: nn.Module, images: Tensor, first: int, last: int
) -> None:
    residual = model(images, stop_at_layer=first)
    expected = residual
    rope = {"rope": source.rope.get_embed()} if model.cfg.rotary else {}
    for block in source.blocks[first:last]:
        expected = block(expected, **rope)
    out = model(residual, start_at_layer=first, stop_at_layer=last)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_nothing_after_the_stop_is_computed(images: Tensor) -> None:
    model = ported("cls")
    _, cache = model.run_with_cache(images, stop_at_layer=1)
    assert "blocks.0.hook_resid_post" in cache
    assert not [name for name in cache if name.startswith(("blocks.1", "blocks.2", "ln_final", "hook_pooled"))]
    _, cache = model.run_with_cache(cache["resid_post", 0], start_at_layer=1)
    assert not [name for name in cache if name.startswith(("blocks.0", "hook_embed", "hook_tokens"))]
    assert "hook_logits" in cache


def test_an_edit_in_place_does_not_reach_the_callers_stream(model: HookedViT, images: Tensor) -> None:
    with torch.no_grad():
        residual = model(images, stop_at_layer=1)
        kept = residual.clone()
        for layer, name in ((1, "blocks.1.hook_resid_pre"), (1, "blocks.1.hook_mlp_in"), (3, "hook_pooled")):
            model.run_with_hooks(residual, start_at_layer=layer, fwd_hooks=[(name, lambda x, hook: x.mul_(2))])
            assert torch.equal(residual, kept), name


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("residual", "arguments", "message"),
    [
        (torch.zeros(2, 13, 23), {}, "with start_at_layer the input is a residual stream [batch, token, 24], got (2, "),
        (torch.zeros(13, 24), {}, "with start_at_layer the input is a residual stream [batch, token, 24], got (13, "),
        (torch.zeros(0, 13, 24), {}, "expected a residual stream with at least one image and token, got (0, 13, 24)"),
        (torch.zeros(2, 13, 24).double(), {}, "the input is torch.float64, the model torch.float32"),
        (torch.zeros(2, 13, 24), {"stop_at_layer": 0}, "stop_at_layer=0 comes before start_at_layer=1"),
        (torch.zeros(2, 12, 24), {}, "expected a residual stream of 13 tokens, got 12: pass the token_mask of the run"),
        (torch.zeros(2, 12, 24), {"token_mask": torch.ones(2, 13, dtype=torch.bool)}, "token_mask keeps 13 tokens, the "
         "residual stream has 12: pass the stream of a run with the same mask"),
        (torch.zeros(2, 12, 24), {"token_mask": torch.ones(2, 12, dtype=torch.bool)}, "token_mask must be bool of "
         "shape (2, 13)"),
    ],
)  # fmt: skip
def test_invalid_starts_are_refused(residual: Tensor, arguments: dict, message: str) -> None:
    model = ported("cls")
    with pytest.raises(ValueError, match=re.escape(message)):
        model(residual, start_at_layer=1, **arguments)


# ---------------------------------------------------------------- dropping tokens


def mask_of(model: HookedViT, ragged: bool) -> Tensor:
    """What the head reads and some more; as many in each image unless ragged. One register always goes."""
    layout = model.token_layout
    mask = torch.ones(2, layout.n_tokens, dtype=torch.bool)
    for image, patches in enumerate([(0, 3, 4), (1, 3, 7, 8, 9, 10)] if ragged else [(0, 3, 4), (1, 3, 8)]):
        mask[image, [layout.n_prefix + patch for patch in patches]] = False
    mask[:, layout.registers.start : layout.registers.start + (layout.n_registers > 0)] = False
    return mask


def stream_of(source: nn.Module, image: Tensor, keep: Tensor, is_patch: Tensor) -> Tensor:
    """The last stream of the kept tokens, each of which stays where it was."""
    patches = source.patch_embed(image)
    if isinstance(source, Beit):
        tokens = torch.cat([source.cls_token, patches], dim=1)[:, keep]
        for block in source.blocks:
            attn = copy.deepcopy(block.attn)
            attn._get_rel_pos_bias = lambda whole=block.attn: whole._get_rel_pos_bias()[:, :, keep][..., keep]
            tokens = tokens + block.gamma_1 * attn(block.norm1(tokens))
            tokens = tokens + block.gamma_2 * block.mlp(block.norm2(tokens))
        return tokens
    if isinstance(source, Eva):
        tokens, rope = source._pos_embed(patches)
        tokens = tokens[:, keep]
        for whole in source.blocks:
            block = copy.deepcopy(whole)
            block.attn.num_prefix_tokens = int(keep[~is_patch].sum())
            tokens = block(tokens, rope=rope[keep[is_patch]])
        return tokens
    return source.blocks(source.norm_pre(source._pos_embed(patches)[:, keep]))


def timm_without(source: nn.Module, image: Tensor, keep: Tensor, is_patch: Tensor) -> Tensor:
    """Logits of one image by timm's own modules, with the tokens removed from the sequence."""
    tokens = source.norm(stream_of(source, image[None], keep, is_patch))
    if hasattr(source, "head_dist"):
        return (source.head(tokens[0, 0]) + source.head_dist(tokens[0, 1])) / 2
    patches = tokens if getattr(source, "pool_include_prefix", False) else tokens[:, is_patch[keep]]
    if getattr(source, "attn_pool", None) is not None:
        pooled = source.attn_pool(patches)
    else:
        pools = {
            "token": lambda: tokens[:, 0], "avg": lambda: patches.mean(1), "max": lambda: patches.amax(1),
            "avgmax": lambda: (patches.mean(1) + patches.amax(1)) / 2,
        }  # fmt: skip
        pooled = pools[source.global_pool]()
    return source.head(source.fc_norm(pooled))[0]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("watched", ["nothing", "pattern", "q_input"])
def test_masked_tokens_have_no_effect(
    model: HookedViT, source: nn.Module, images: Tensor, ragged: bool, watched: str
) -> None:
    mask, is_patch = mask_of(model, ragged), model.token_layout.is_patch
    expected = torch.stack([timm_without(source, images[i], mask[i], is_patch) for i in range(2)])
    hooks = [] if watched == "nothing" else [(watched, lambda activation, hook: None)]
    logits = model.run_with_hooks(images, token_mask=mask, fwd_hooks=hooks)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert (logits - model(images)).abs().max() > 1e-3


POOLS = {
    "max": {"global_pool": "max", "fc_norm": False},
    "avgmax_fc_norm": {"global_pool": "avgmax", "reg_tokens": 2},
    "include_prefix": {"global_pool": "avg", "pool_include_prefix": True, "reg_tokens": 2},
    "map_fc_norm": {"class_token": False, "global_pool": "map", "fc_norm": True, "reg_tokens": 2, "mlp_ratio": 3.0},
}


@pytest.mark.parametrize("pool", sorted(POOLS))
@pytest.mark.parametrize("ragged", [False, True])
def test_all_pools_leave_masked_tokens_out(pool: str, images: Tensor, ragged: bool) -> None:
    source = make_timm("cls", **POOLS[pool])
    model = HookedViT.from_timm(source)
    torch.testing.assert_close(model(images), source(images), rtol=1e-4, atol=1e-5)
    mask = mask_of(model, ragged)
    expected = torch.stack([timm_without(source, images[i], mask[i], model.token_layout.is_patch) for i in range(2)])
    torch.testing.assert_close(model(images, token_mask=mask), expected, rtol=1e-4, atol=1e-5)


def test_a_mask_that_keeps_everything_changes_nothing(model: HookedViT, images: Tensor) -> None:
    keep = torch.ones(2, model.cfg.n_ctx, dtype=torch.bool)
    assert torch.equal(model(images, token_mask=keep), model(images))


def test_the_cache_of_a_masked_run_holds_the_kept_tokens_in_their_order(model: HookedViT, images: Tensor) -> None:
    mask = mask_of(model, ragged=True)
    kept = KeptTokens.from_mask(mask, model.token_layout)
    _, whole = model.run_with_cache(images, names_filter="hook_tokens")
    _, cache = model.run_with_cache(images, token_mask=mask)
    n_kept = int(mask.sum(1).max())
    for name in ("tokens", "resid_post0", "z1"):
        full = {"tokens": "hook_tokens", "resid_post0": "blocks.0.hook_resid_post", "z1": "blocks.1.attn.hook_z"}[name]
        assert cache[full].shape[1] == n_kept
    for image in range(2):
        expected = whole["hook_tokens"][image, mask[image]]
        assert torch.equal(cache["hook_tokens"][image, kept.valid[image]], expected)
    pattern = cache["pattern", 1]
    assert pattern.shape == (2, model.cfg.n_heads, n_kept, n_kept)
    filled_up = ~kept.valid[:, None, None, :].expand_as(pattern)
    assert filled_up.any()
    assert pattern[filled_up].abs().max() == 0, "no token attends to padding"
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, model.cfg.n_heads, n_kept))


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_a_masked_run_resumes_from_its_stream_with_its_mask(
    model: HookedViT, images: Tensor, ragged: bool, layer: int
) -> None:
    mask = mask_of(model, ragged)
    residual = model(images, token_mask=mask, stop_at_layer=layer)
    resumed = model(residual, start_at_layer=layer, token_mask=mask)
    assert torch.equal(resumed, model(images, token_mask=mask))


def test_gradients_flow_through_a_masked_run(model: HookedViT, images: Tensor) -> None:
    mask = mask_of(model, ragged=True)
    _, _, gradients = model.run_with_gradients(images, lambda logits: logits[:, 2], "hook_embed", token_mask=mask)
    gradient = gradients["hook_embed"].abs().sum(-1)
    assert gradient.isfinite().all()
    assert (gradient[~mask] == 0).all()
    if model.cfg.pool != "attention":
        assert (gradient[mask] > 0).all()


# ---------------------------------------------------------------- sizes


def test_one_model_takes_images_of_several_sizes(images: Tensor) -> None:
    source = make_timm("dynamic")
    model = HookedViT.from_timm(source)
    for height, width in ((32, 24), (24, 48), (64, 16), (32, 24)):
        other = torch.randn(2, 3, height, width)
        logits, cache = model.run_with_cache(other)
        torch.testing.assert_close(logits, source(other), rtol=1e-4, atol=1e-5)
        layout = model.cfg.token_layout_at(height, width)
        assert layout.grid == (height // 8, width // 8)
        assert cache["resid_post", 2].shape == (2, layout.n_tokens, 24)
        assert cache["hook_pos_embed"].shape == (2, layout.n_tokens, 24)
        mask = torch.ones(2, layout.n_tokens, dtype=torch.bool)
        mask[:, -2] = False
        expected = torch.stack([timm_without(source, other[i], mask[i], layout.is_patch) for i in range(2)])
        torch.testing.assert_close(model(other, token_mask=mask), expected, rtol=1e-4, atol=1e-5)


def test_images_are_padded_to_whole_patches_as_in_timm() -> None:
    source = make_timm("dynamic", dynamic_img_pad=True)
    model = HookedViT.from_timm(source)
    images = torch.randn(2, 3, 29, 45)
    torch.testing.assert_close(model(images), source(images), rtol=1e-4, atol=1e-5)
    assert model.cfg.token_layout_at(29, 45).grid == (4, 6)


# ---------------------------------------------------------------- dtypes, devices, copies


def test_the_config_follows_the_weights(own: HookedViT, images: Tensor) -> None:
    assert (own.cfg.dtype, own.cfg.device) == (torch.float32, torch.device("cpu"))
    for dtype in (torch.bfloat16, torch.float64):
        assert own.to(dtype).cfg.dtype == dtype
    assert own.float().cfg.dtype == torch.float32
    elsewhere = own.to("meta")
    assert elsewhere.cfg.device == torch.device("meta")
    logits, cache = elsewhere.run_with_cache(images.to("meta"))
    assert logits.shape == (2, 7)
    assert {tensor.device.type for tensor in cache.values()} == {"meta"}
    assert elsewhere.class_logits(cache["resid_post", 1]).shape == (*cache["resid_post", 1].shape[:-1], 7)


def test_low_precision_runs_everywhere(own: HookedViT, images: Tensor) -> None:
    exact = own(images)
    tolerance = 0.05 * float(exact.abs().max().detach())
    own.to(torch.bfloat16)
    low = images.to(torch.bfloat16)
    logits, cache = own.run_with_cache(low, names_filter=own.hook_names())
    assert torch.equal(logits, own(low)), "a look changes nothing here either"
    assert {tensor.dtype for tensor in cache.values()} == {torch.bfloat16}
    torch.testing.assert_close(logits.float(), exact, rtol=0, atol=tolerance)
    followed = own.run_with_hooks(low, fwd_hooks=[(lambda name: True, lambda x, hook: x)])
    torch.testing.assert_close(followed.float(), exact, rtol=0, atol=tolerance)
    assert own.class_logits(cache["resid_post", -1]).dtype == torch.bfloat16
    value, _, gradients = own.run_with_gradients(low, lambda logits: logits[:, 1], "resid_pre")
    assert value.dtype == torch.bfloat16
    assert gradients["resid_pre", 0].abs().max() > 0
    mask = mask_of(own, ragged=True)
    assert own(low, token_mask=mask).isfinite().all()


def test_hooks_change_nothing_under_autocast(model: HookedViT, images: Tensor) -> None:
    exact = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
        cached, _ = model.run_with_cache(images, names_filter=model.hook_names())
    assert torch.equal(cached, logits)
    torch.testing.assert_close(logits.float(), exact, rtol=0, atol=0.05 * float(exact.abs().max().detach()))


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_compute_the_same_and_share_no_hooks(model: HookedViT, images: Tensor, make_copy) -> None:
    before = model(images)
    other = make_copy(model)
    assert torch.equal(other(images), before)
    assert (other.cfg, other.class_names) == (model.cfg, model.class_names)
    with model.hooks(fwd_hooks=[("hook_embed", lambda x, hook: 2 * x)]):
        assert torch.equal(other(images), before)
    with other.hooks(fwd_hooks=[("hook_embed", lambda x, hook: 2 * x)]):
        assert not torch.equal(other(images), before)
        assert torch.equal(model(images), before)


def test_training_mode_changes_nothing(own: HookedViT, images: Tensor) -> None:
    before = own(images)
    assert torch.equal(own.train()(images), before)


def test_fused_attention_switches_all_layers(own: HookedViT, images: Tensor) -> None:
    before = own(images)
    assert own.fused_attention
    own.fused_attention = False
    assert not own.fused_attention
    assert not any(block.attn.fused for block in own.blocks)
    torch.testing.assert_close(own(images), before, rtol=1e-5, atol=1e-6)
    own.blocks[0].attn.fused = True
    assert not own.fused_attention


def test_a_model_built_from_a_config_has_placeholder_weights(model: HookedViT) -> None:
    bare = HookedViT(model.cfg, model.class_names)
    assert {n: p.shape for n, p in bare.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    assert list(bare.hook_dict) == list(model.hook_dict)


def test_the_number_of_class_names_is_checked() -> None:
    with pytest.raises(ValueError, match="expected 7 class names, one for each class, got 3"):
        HookedViT.from_timm(make_timm("cls"), class_names=["a", "b", "c"])
    assert HookedViT.from_timm(make_timm("cls")).class_names[6] == "class 6"


def test_the_loss_is_torchs_cross_entropy(images: Tensor) -> None:
    model = ported("cls")
    assert torch.equal(model(images, "loss", labels=LABELS), F.cross_entropy(model(images), LABELS))


def test_a_model_on_other_weights_shares_their_storage_alone(model: HookedViT, images: Tensor) -> None:
    doubled = {name: 2 * weight.detach() for name, weight in model.named_parameters()}
    before = model(images)
    other = model.with_weights(doubled)
    assert all(torch.equal(weight, doubled[name]) for name, weight in other.named_parameters())
    assert other.head.weight.data_ptr() == doubled["head.weight"].data_ptr()
    assert (other.cfg, other.class_names, other.data_config) == (model.cfg, model.class_names, model.data_config)
    assert not any(weight.requires_grad for weight in other.parameters())
    assert torch.equal(model(images), before)


def test_other_weights_may_come_with_a_config_and_class_names(images: Tensor) -> None:
    model = ported("cls")
    weights = dict(model.named_parameters())
    cfg = dataclasses.replace(model.cfg, n_classes=2)
    two = {**weights, "head.weight": weights["head.weight"][:2], "head.bias": weights["head.bias"][:2]}
    torch.testing.assert_close(model.with_weights(two, cfg)(images), model(images)[:, :2])
    assert model.with_weights(two, cfg).class_names == ("class 0", "class 1")
    assert model.with_weights(two, cfg, ["cat", "dog"]).class_names == ("cat", "dog")


def test_weights_that_do_not_fit_are_refused(model: HookedViT) -> None:
    weights = dict(model.named_parameters())
    weights["tail.bias"] = weights.pop("head.bias")
    with pytest.raises(ValueError, match=r"missing \['head.bias'\], surplus \['tail.bias'\]"):
        model.with_weights(weights)


def test_the_head_reads_the_last_stream(model: HookedViT, images: Tensor) -> None:
    logits, cache = model.run_with_cache(images, names_filter=("resid_post", -1))
    stream = cache["resid_post", -1]
    torch.testing.assert_close(model.head_logits(stream), logits, rtol=1e-4, atol=1e-5)
    if model.cfg.read_tokens.stop is not None:
        torch.testing.assert_close(model.head_logits(stream[:, model.cfg.read_tokens]), logits, rtol=1e-4, atol=1e-5)


def test_the_head_reads_no_other_tokens(model: HookedViT, images: Tensor) -> None:
    stream = model(images, stop_at_layer=model.cfg.n_layers).detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(model.head_logits(stream).square().sum(), stream)
    read = list(range(model.cfg.n_ctx))[model.cfg.read_tokens]
    for token in range(model.cfg.n_ctx):
        assert bool(gradient[:, token].any()) == (token in read)

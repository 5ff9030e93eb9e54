"""Eva, Beit and VisionTransformerRelPos: bitwise equal to timm, at other sizes too; refusals and planted faults."""

import dataclasses

import pytest
import timm
import torch
from built_models import build, some_of, switch_fused_off
from eva_models import MODELS, make
from timm.models.beit import Beit
from torch import Tensor, nn

from hooked_vit import HookedViT, KeptTokens
from hooked_vit.covered_models import why_not_covered
from hooked_vit.interventions import zero_ablate
from hooked_vit.porting import read_config, read_weights

ENTRYPOINTS = [
    name for module in ("eva", "beit", "vision_transformer_relpos") for name in timm.list_models(module=module)
]
IMAGES = torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(1))


def assert_exact(module: nn.Module, images: Tensor) -> HookedViT:
    """Fused within 1e-6 of the largest logit, plain to the bit, for a batch and for a single image."""
    model = HookedViT.from_timm(module)
    assert model.verify(module, images).relative <= 1e-6, "fused attention"
    switch_fused_off(model, module)
    for some in (images, images[:1]):
        plain = model.verify(module, some)
        assert plain.bitwise, str(plain)
        assert all(value == 0 for value in plain.stages.values())
    return model


@pytest.mark.parametrize(("family", "variant"), MODELS)
def test_every_variant_is_exact(family: str, variant: str) -> None:
    model = assert_exact(make(family, variant), IMAGES)
    assert not model(IMAGES).isnan().any()


@pytest.mark.parametrize(("family", "variant"), MODELS)
def test_other_sizes_are_exact(family: str, variant: str) -> None:
    module = make(family, variant, img_size=(24, 40))
    assert_exact(module, torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(2)))
    module.set_input_size((40, 16))  # positions and tables are resampled by timm
    assert_exact(module, torch.randn(2, 3, 40, 16, generator=torch.Generator().manual_seed(3)))


DYNAMIC = [(family, variant) for family, variant in MODELS if family == "Eva"]


@pytest.mark.parametrize(("family", "variant"), DYNAMIC)
def test_any_size_is_exact_where_timm_takes_any(family: str, variant: str) -> None:
    module = make(family, variant, dynamic_img_size=True)
    for size in ((32, 24), (24, 32), (16, 56)):
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
        model = assert_exact(module, images)
        _, cache = model.run_with_cache(images, names_filter="resid_post")
        resumed = model(cache["resid_post", 0], start_at_layer=1, image_size=size)
        assert torch.equal(resumed, model(images))


def test_a_stream_of_another_size_needs_to_say_so() -> None:
    model = HookedViT.from_timm(make("Eva", "DINOv3"))
    stream = model(torch.zeros(1, 3, 16, 56), stop_at_layer=1)
    with pytest.raises(
        ValueError, match=r"the stream has 17 tokens, images of the model's own size 15: pass image_size="
    ):
        model(stream, start_at_layer=1)
    with pytest.raises(ValueError, match=r"image_size=.* goes with start_at_layer; the images have 16 × 56"):
        model(torch.zeros(1, 3, 16, 56), image_size=(8, 8))
    with pytest.raises(ValueError, match="divisible into 8 × 8 patches, got 9 × 8"):
        model(stream, start_at_layer=1, image_size=(9, 8))
    assert model(stream, start_at_layer=2).shape == (1, 7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    ("family", "variant"),
    [
        ("Eva", "EVA-02"),
        ("Eva", "DINOv3"),
        ("Eva", "RoPE-ViT mixed"),
        ("Eva", "MRoPE"),
        ("Beit", "BEiT"),
        ("RelPos", "MLP"),
    ],
)
def test_other_dtypes_are_exact(family: str, variant: str, dtype: torch.dtype) -> None:
    module = make(family, variant).to(dtype)
    model = HookedViT.from_timm(module)
    switch_fused_off(model, module)
    assert model.verify(module, IMAGES.to(dtype)).bitwise
    moved = HookedViT.from_timm(make(family, variant)).to(dtype)
    moved.fused_attention = False
    assert torch.equal(moved(IMAGES.to(dtype)), model(IMAGES.to(dtype)))


@pytest.mark.parametrize(("family", "variant"), MODELS)
def test_every_tensor_is_carried_over_and_every_point_moves_the_logits(family: str, variant: str) -> None:
    module = make(family, variant)
    model = HookedViT.from_timm(module)
    expected = sum(parameter.numel() for parameter in module.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    with torch.no_grad():
        logits = model(IMAGES)
        for name in model.hook_dict:
            # not a multiple, which a norm undoes, nor a shift, which a mean does
            hook = lambda a, hook: a * torch.linspace(0.5, 2, a.shape[-1]) + torch.linspace(-1, 1, a.shape[-1])  # noqa: E731
            if name.endswith("hook_scale"):
                hook = lambda a, hook: a * 1.5  # noqa: E731
            assert (model.run_with_hooks(IMAGES, fwd_hooks=[(name, hook)]) - logits).abs().max() > 1e-6, name


@pytest.mark.parametrize(("family", "variant"), MODELS)
def test_dropped_patches_leave_the_others_where_they_were(family: str, variant: str) -> None:
    # keys of dropped tokens are masked in a whole run, whose other tokens then agree with the run without them
    model = HookedViT.from_timm(make(family, variant))
    layout = model.token_layout
    mask = torch.ones(2, layout.n_tokens, dtype=torch.bool)
    mask[0, layout.n_prefix + 2], mask[1, [layout.n_prefix + 5, layout.n_prefix + 9]] = False, False
    kept = KeptTokens.from_mask(mask, layout)
    hidden = ~mask[:, None, None, :]
    hooks = [("attn_scores", lambda scores, hook: scores.masked_fill(hidden, -torch.inf))]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        _, masked = model.run_with_cache(IMAGES, names_filter="resid_post")
    with torch.no_grad():
        logits, cache = model.run_with_cache(IMAGES, token_mask=mask)
        for image in range(2):
            rows = kept.index[image][kept.valid[image]]
            found = cache["resid_post", -1][image][kept.valid[image]]
            torch.testing.assert_close(found, masked["resid_post", -1][image, rows], rtol=1e-4, atol=1e-5)
        resumed = model(cache["resid_post", 0], start_at_layer=1, token_mask=mask)
        torch.testing.assert_close(resumed, logits, rtol=1e-5, atol=1e-5)


def test_scores_hold_the_bias_and_rotated_queries_times_keys() -> None:
    for family, variant in (("Eva", "Sapiens2"), ("Beit", "BEiT"), ("RelPos", "shared MLP")):
        model = HookedViT.from_timm(make(family, variant))
        _, cache = model.run_with_cache(IMAGES)
        for layer in range(2):
            attn = model.blocks[layer].attn
            q, k = (
                cache["rot_q" if model.cfg.rotary else "q", layer],
                cache["rot_k" if model.cfg.rotary else "k", layer],
            )
            if model.cfg.rotary is None and attn.q_norm is not None:
                q, k = (cache[f"blocks.{layer}.attn.{name}_norm.hook_normalized"].transpose(1, 2) for name in "qk")
            k = k.repeat_interleave(4 // k.shape[2], dim=2)
            scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 12**0.5
            bias = attn.relative_bias if model.relative_bias is None else model.relative_bias
            scores = scores if bias is None else scores + bias()
            torch.testing.assert_close(cache["attn_scores", layer], scores, rtol=1e-4, atol=1e-5)


def test_prefix_tokens_are_not_rotated_and_patches_are() -> None:
    model = HookedViT.from_timm(make("Eva", "DINOv3"))
    _, cache = model.run_with_cache(IMAGES)
    for layer in range(2):
        for name in "qk":
            before, after = cache[name, layer], cache[f"rot_{name}", layer]
            assert torch.equal(before[:, :3], after[:, :3])
            assert (before[:, 3:] - after[:, 3:]).abs().amax(dim=(0, 2, 3)).min() > 1e-3
            torch.testing.assert_close(before.norm(dim=-1), after.norm(dim=-1))


def test_the_pool_attends_to_prefix_tokens() -> None:
    model = HookedViT.from_timm(make("Eva", "Perception Encoder"))
    _, cache = model.run_with_cache(IMAGES)
    assert cache["attn_pool.hook_pattern"].shape == (2, 2, 1, 13)


def test_a_table_resampled_by_timm_is_the_one_that_is_carried_over() -> None:
    module = make("Beit", "BEiT")
    module.set_input_size((40, 56))
    model = HookedViT.from_timm(module)
    table = model.blocks[1].attn.relative_bias.rel_pos.relative_position_bias_table
    assert table.shape == (9 * 13 + 3, 4)
    assert torch.equal(table, module.blocks[1].attn.relative_position_bias_table)


def small(name: str) -> nn.Module:
    """The architecture of an entrypoint in two blocks of few channels, with its own width of heads."""
    grouped = {"num_kv_heads": (1,)} if "sapiens2" in name else {}
    with torch.device("meta"):
        full = timm.create_model(name, pretrained=False, depth=1, **grouped)
    attn = full.blocks[0].attn
    n_heads = 1 if attn.proj.in_features // attn.num_heads > 96 else 2
    height, width = full.patch_embed.patch_size
    arguments: dict = {
        "depth": 2,
        "img_size": (4 * height, 3 * width),
        "embed_dim": n_heads * attn.proj.in_features // attn.num_heads,
        "num_heads": n_heads,
    }
    if getattr(full, "attn_pool", None) is not None:
        arguments["attn_pool_num_heads"] = 2
    if grouped:
        arguments["num_kv_heads"] = (n_heads, 1)
    return build(name, **arguments)


@pytest.mark.parametrize("name", some_of(ENTRYPOINTS))
def test_entrypoint_is_exact(name: str) -> None:
    module = small(name)
    assert_exact(module, torch.randn(2, 3, *module.patch_embed.img_size, generator=torch.Generator().manual_seed(1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", some_of(ENTRYPOINTS))
def test_full_size_entrypoint_is_covered(name: str) -> None:
    assert why_not_covered(name) is None


def _without_bias(module: Beit) -> None:
    for block in module.blocks:
        block.attn.relative_position_bias_table.data.zero_()


@pytest.mark.parametrize(
    ("family", "variant", "fault"),
    [
        ("Eva", "DINOv3", {"n_prefix": 2}),
        ("Eva", "DINOv3", {"swap": True}),
        ("Eva", "EVA-02", {"rotate_half": True}),
        ("Beit", "BEiT", {"bias": False}),
        ("RelPos", "shared MLP", {"bias": False}),
        ("Eva", "EVA, mean", {"eps": 1e-5}),
        ("Eva", "EVA, mean", {"act_fn": "gelu_tanh"}),
        ("Eva", "Perception Encoder", {"pool_includes_prefix": False}),
    ],
    ids=str,
)  # fmt: skip
def test_a_planted_fault_is_found(family: str, variant: str, fault: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(family, variant)
    cfg, weights = read_config(module), read_weights(module)
    first = "blocks.0"
    if "n_prefix" in fault:  # CLS rotated like a patch
        cfg, first = cfg, "blocks.0"
        model = HookedViT.from_timm(module)
        real = model.rotary.forward
        monkeypatch.setattr(model.rotary, "forward", lambda layout: real(layout).roll(-1, dims=2))
    elif "swap" in fault:
        width = cfg.n_heads * cfg.d_head
        for name, tensor in weights.items():
            if name.endswith("qkv.weight"):
                q, k, v = tensor.detach().split(width)
                weights[name] = nn.Parameter(torch.cat([k, q, v]))
        model = HookedViT.from_timm(module).with_weights(weights)
    elif "rotate_half" in fault:
        model = HookedViT.from_timm(module)
        for block in model.blocks:
            block.attn.rotate_half = True
    elif "bias" in fault:
        cfg = dataclasses.replace(cfg, relative_bias=None)
        weights = {name: tensor for name, tensor in weights.items() if "relative_bias" not in name}
        model = HookedViT.from_timm(module).with_weights(weights, cfg)
    else:
        if "eps" in fault:
            fault = {"block_norm": dataclasses.replace(cfg.block_norm, eps=fault["eps"])}
        first = "logits" if "pool_includes_prefix" in fault else first
        model = HookedViT.from_timm(module).with_weights(weights, dataclasses.replace(cfg, **fault))
    found = model.verify(module, IMAGES)
    assert found.relative > 1e-6
    assert {stage: value for stage, value in found.stages.items() if value > 1e-6}
    assert next(stage for stage, value in found.stages.items() if value > 1e-6) == first


def _eva(change) -> nn.Module:
    module = make("Eva", "EVA-02")
    change(module)
    return module


def _relpos(change) -> nn.Module:
    module = make("RelPos", "table")
    change(module)
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: _eva(lambda m: m.rope.bands.mul_(2)), "a changed buffer 'rope.bands'"),
        (lambda: _eva(lambda m: setattr(m.blocks[1].attn, "rotate_half", True)), "rotates other numbers together"),
        (lambda: _eva(lambda m: setattr(m.blocks[1].attn, "num_prefix_tokens", 0)), "another number of prefix tokens"),
        (lambda: _eva(lambda m: setattr(m.blocks[1].attn, "scale", 1.0)), "the scale 1.0 of the attention scores"),
        (
            lambda: _eva(lambda m: setattr(m.blocks[1].attn.v_proj, "bias", None)),
            "a bias on only some of queries and values",
        ),
        (lambda: _eva(lambda m: setattr(m, "norm", nn.LayerNorm(48))), "fc_norm together with another final norm"),
        (lambda: _eva(lambda m: m.blocks[1].attn.proj.register_forward_hook(lambda *a: None)), "a forward hook on"),
        (
            lambda: _eva(lambda m: setattr(m, "rope", timm.layers.RotaryEmbedding(12))),
            "rotary positions by RotaryEmbedding",
        ),
        (lambda: make("Eva", "EVA, mean", global_pool=""), "global_pool='', features that are not pooled"),
        (
            lambda: _relpos(lambda m: m.blocks[0].attn.rel_pos.relative_position_index.zero_()),
            "a changed buffer 'relative_",
        ),
        (lambda: make("Beit", "BEiT", use_shared_rel_pos_bias=True), "of each block together with one that all blocks"),
    ],
)
def test_what_a_port_would_lose_is_refused(module, message: str) -> None:
    with pytest.raises(ValueError, match=f"not covered: .*{message}"):
        HookedViT.from_timm(module())


def test_biases_that_differ_within_a_fused_projection_are_kept_apart() -> None:
    module = make("Eva", "EVA, mean")
    for block in module.blocks:
        block.attn.qkv_bias_separate = True
    model = assert_exact(module, IMAGES)
    assert model.cfg.qkv_bias_separate
    assert not model.cfg.k_bias
    assert torch.equal(model.b_Q[1].flatten(), module.blocks[1].attn.q_bias)
    assert not model.b_K.any()
    module.blocks[0].attn.k_bias.fill_(1)
    with pytest.raises(ValueError, match="a bias of the keys that is not zero, in block 0"):
        read_config(module)


def test_folding_gives_keys_a_bias_where_they_had_none() -> None:
    for variant in ("EVA-02-CLIP", "Sapiens2", "DINOv3"):
        model = HookedViT.from_timm(make("Eva", variant))
        folded = model.fold_layer_norm()
        torch.testing.assert_close(folded(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)
        assert not folded.blocks[0].ln1.bias.any() if folded.blocks[0].ln1.bias is not None else True
        assert (folded.blocks[0].ln1.weight == 1).all()


def test_attention_heads_that_share_keys_are_selected_by_their_number() -> None:
    model = HookedViT.from_timm(make("Eva", "Sapiens2"))
    assert model.cfg.n_key_value_heads == (4, 2)
    with pytest.raises(ValueError, match="expected heads from 0 to 1"):
        model.run_with_hooks(IMAGES, fwd_hooks=zero_ablate(model, ("v", 1), heads=3))
    edited = model.run_with_hooks(IMAGES, fwd_hooks=zero_ablate(model, ("v", 1), heads=1))
    expected = model.run_with_hooks(IMAGES, fwd_hooks=zero_ablate(model, ("z", 1), heads=[2, 3]))
    torch.testing.assert_close(edited, expected, rtol=1e-5, atol=1e-6)

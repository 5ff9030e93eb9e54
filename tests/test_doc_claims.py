"""What `concepts/streams.md` and `how-to/moving.md` claim about the model, each claim checked on small models."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import timm
import torch
from conftest import KINDS, make_timm, original, ported
from torch import Tensor, nn
from transformer_lens import FactoredMatrix, HookedRootModule

from hooked_vit import HookedViT, HookPoint
from hooked_vit.hook_names import ON_DEMAND


def cached(model: HookedViT, images: Tensor, names: Any = lambda name: True) -> Any:
    """The activations of these hook points, by default of all of them, those on demand included."""
    with torch.no_grad():
        return model.run_with_cache(images, names_filter=names)[1]


def block_names(model: HookedViT) -> list[str]:
    """Prefixes of the blocks' hook points."""
    return [f"blocks.{layer}" for layer in range(model.cfg.n_layers)]


def assert_equal_up_to_rounding(a: Tensor, b: Tensor, what: str = "") -> None:
    """Compare with a tolerance for float32."""
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda text: f"{what}: {text}")


# ---------------------------------------------------------------- concepts/streams.md


def test_tokens_and_all_outputs_sum_to_the_last_resid_post(kind: str, images: Tensor) -> None:
    model, cache = ported(kind), cached(ported(kind), images)
    outputs = [cache[f"{block}.{name}"] for block in block_names(model) for name in ("hook_attn_out", "hook_mlp_out")]
    assert_equal_up_to_rounding(cache["hook_tokens"] + sum(outputs), cache["resid_post", -1])


def test_each_stream_is_the_one_before_plus_one_output(kind: str, images: Tensor) -> None:
    model, cache = ported(kind), cached(ported(kind), images)
    stream = cache["hook_tokens"]
    for layer in range(model.cfg.n_layers):
        assert_equal_up_to_rounding(cache["resid_pre", layer], stream)
        stream = stream + cache["attn_out", layer]
        if not model.cfg.parallel_attn_mlp:
            assert_equal_up_to_rounding(cache["resid_mid", layer], stream)
        stream = stream + cache["mlp_out", layer]
        assert_equal_up_to_rounding(cache["resid_post", layer], stream)


def test_hook_tokens_is_embed_plus_positions_after_norm_pre(kind: str, images: Tensor) -> None:
    model, cache = ported(kind), cached(ported(kind), images)
    start = cache["hook_embed"] + cache["hook_pos_embed"]
    assert_equal_up_to_rounding(start if model.ln_pre is None else model.ln_pre(start), cache["hook_tokens"])
    layout = model.token_layout
    if model.embed.patch_ln is None:
        assert_equal_up_to_rounding(cache["hook_embed"][:, layout.patches], cache["hook_patch_embed"])


def test_outputs_include_layer_scale_and_post_norms(kind: str, images: Tensor) -> None:
    model, cache = ported(kind), cached(ported(kind), images)
    for layer, block in enumerate(model.blocks):
        attn, mlp = block.attn.project(cache["z", layer]), block.mlp.out(cache["post", layer])
        if model.cfg.post_norm:
            attn, mlp = block.ln1(attn), block.ln2(mlp)
        attn = attn if block.ls1 is None else attn * block.ls1
        mlp = mlp if block.mlp_ls is None else mlp * block.mlp_ls
        assert_equal_up_to_rounding(cache["attn_out", layer], attn)
        assert_equal_up_to_rounding(cache["mlp_out", layer], mlp)


def test_results_of_heads_are_attn_out_without_the_bias(kind: str, images: Tensor) -> None:
    model, cache = ported(kind), cached(ported(kind), images)
    for layer, block in enumerate(model.blocks):
        scale = cache["scale", layer, "ln1"] if model.cfg.post_norm else None
        with_bias = cache["result", layer].sum(dim=2) + block.attn_out_bias(scale)
        assert_equal_up_to_rounding(cache["attn_out", layer], with_bias)


# the families whose modules have the names of timm's VisionTransformer
VISION_TRANSFORMERS = sorted(set(KINDS) - {"rotary", "relative", "parallel"})
SHAPES = {
    "hook_patch_embed": "batch patch d_model",
    **dict.fromkeys(("hook_embed", "hook_pos_embed", "hook_tokens"), "batch token d_model"),
    **dict.fromkeys(("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out",
                     "hook_mlp_in"), "batch token d_model"),
    **dict.fromkeys(("hook_q", "hook_rot_q", "hook_z", "hook_z_pre"), "batch token head d_head"),
    **dict.fromkeys(("hook_k", "hook_rot_k", "hook_v"), "batch token shared d_head"),
    **dict.fromkeys(("hook_attn_scores", "hook_pattern"), "batch head token token"),
    **dict.fromkeys(("hook_result", "hook_q_input"), "batch token head d_model"),
    **dict.fromkeys(("hook_k_input", "hook_v_input"), "batch token shared d_model"),
    **dict.fromkeys(("hook_pre", "hook_post", "hook_pre_linear", "hook_mid"), "batch token d_mlp"),
    **dict.fromkeys(("hook_pooled", "hook_pooled_dist"), "batch d_model"),
    **dict.fromkeys(("hook_logits", "hook_logits_cls", "hook_logits_dist"), "batch n_classes"),
}  # fmt: skip
NORM_SHAPES = {
    "ln1": "batch token d_model", "ln2": "batch token d_model", "ln_pre": "batch token d_model",
    "ln_final": "batch token d_model", "patch_ln": "batch patch d_model", "attn.ln": "batch token all_heads",
    "mlp.ln": "batch token d_mlp", "q_norm": "batch head token d_head", "k_norm": "batch shared token d_head",
}  # fmt: skip


def test_every_hook_point_has_the_shape_in_the_tables(kind: str, images: Tensor) -> None:
    model = ported(kind)
    cfg, layout = model.cfg, model.token_layout
    lengths = {
        "batch": len(images), "token": layout.n_tokens, "patch": layout.n_patches, "d_model": cfg.d_model,
        "head": cfg.n_heads, "d_head": cfg.d_head, "d_mlp": cfg.d_mlp, "n_classes": cfg.n_classes,
        "all_heads": cfg.n_heads * cfg.d_head, "shared": cfg.n_key_value_heads or cfg.n_heads,
    }  # fmt: skip
    for name, activation in cached(model, images).items():
        if name.startswith("attn_pool."):
            continue
        owner, _, last = name.rpartition(".")
        if last in ("hook_scale", "hook_normalized"):
            (axes,) = [shape for norm, shape in NORM_SHAPES.items() if f".{owner}".endswith(f".{norm}")]
            expected = [lengths[axis] for axis in axes.split()]
            if owner == "ln_final" and cfg.norm_after_pool:
                expected[1] = 1
            if last == "hook_scale":
                expected[-1] = 1
        else:
            expected = [lengths[axis] for axis in SHAPES[last].split()]
        assert list(activation.shape) == expected, name


def test_hook_q_and_hook_k_are_before_their_norms(images: Tensor) -> None:
    model, cache = ported("qk_norm"), cached(ported("qk_norm"), images)
    for layer, block in enumerate(model.blocks):
        attn, read = block.attn, cache["normalized", layer, "ln1"]
        for name, weight, bias, norm in (
            ("q", attn.W_Q, attn.b_Q, attn.q_norm),
            ("k", attn.W_K, attn.b_K, attn.k_norm),
        ):
            before = torch.einsum("btm,hmd->bthd", read, weight) + bias
            assert_equal_up_to_rounding(cache[name, layer], before)
            normed = cache[f"blocks.{layer}.attn.{name}_norm.hook_normalized"]
            assert_equal_up_to_rounding(normed, norm(before.transpose(1, 2)))
            assert (normed - before.transpose(1, 2)).abs().max() > 0.01, "the norm changes them"


def test_scores_are_computed_from_the_normed_queries_and_keys(images: Tensor) -> None:
    model, cache = ported("qk_norm"), cached(ported("qk_norm"), images)
    for layer in range(model.cfg.n_layers):
        q, k = (cache[f"blocks.{layer}.attn.{name}_norm.hook_normalized"] for name in "qk")
        assert_equal_up_to_rounding(cache["attn_scores", layer], q @ k.transpose(-2, -1) / model.cfg.d_head**0.5)


def test_hook_normalized_is_the_norm_s_output_after_weight_and_bias(kind: str, images: Tensor) -> None:
    model, cache = ported(kind), cached(ported(kind), images)
    for layer, block in enumerate(model.blocks):
        if model.cfg.post_norm:
            assert torch.equal(cache["normalized", layer, "ln1"], cache["attn_out", layer])
            continue
        stream = cache["resid_pre", layer]
        centred = stream - stream.mean(-1, keepdim=True) if model.cfg.block_norm.kind == "layer" else stream
        expected = centred / cache["scale", layer, "ln1"] * block.ln1.weight
        expected = expected if block.ln1.bias is None else expected + block.ln1.bias
        assert_equal_up_to_rounding(cache["normalized", layer, "ln1"], expected)


def test_norms_inside_attention_and_mlp_have_points_for_input_and_output(images: Tensor) -> None:
    model, cache = ported("inner_norms"), cached(ported("inner_norms"), images)
    for layer, block in enumerate(model.blocks):
        z = block.attn.ln(cache[f"blocks.{layer}.attn.hook_z_pre"].flatten(-2))
        assert_equal_up_to_rounding(cache["z", layer].flatten(-2), z)
        assert_equal_up_to_rounding(cache["post", layer], block.mlp.ln(cache[f"blocks.{layer}.mlp.hook_mid"]))
        mid = cache[f"blocks.{layer}.mlp.hook_mid"]
        assert_equal_up_to_rounding(mid, block.mlp.act(cache["pre", layer]))


def test_points_on_demand_are_cached_if_named_or_switched_on(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))

    def cached_by_default() -> set[str]:
        return {name.rpartition(".")[2] for name in model.run_with_cache(images)[1]}

    assert not cached_by_default() & set(ON_DEMAND)
    assert set(ON_DEMAND) <= {name.rpartition(".")[2] for name in cached(model, images, list(ON_DEMAND))}
    model.set_use_attn_result(True)
    assert cached_by_default() & set(ON_DEMAND) == {"hook_result"}
    model.set_use_split_qkv_input(True)
    model.set_use_hook_mlp_in(True)
    assert set(ON_DEMAND) <= cached_by_default()


def test_a_return_value_replaces_the_activation_and_none_keeps_in_place_edits(images: Tensor) -> None:
    model = ported("cls")

    def replace(activation: Tensor, hook: HookPoint) -> Tensor:
        return torch.zeros_like(activation)

    def edit_in_place(activation: Tensor, hook: HookPoint) -> None:
        activation.zero_()

    replaced, edited, kept = (
        model.run_with_hooks(images, fwd_hooks=[(("mlp_out", 1), hook)])
        for hook in (replace, edit_in_place, lambda activation, hook: None)
    )
    assert torch.equal(replaced, edited)
    assert not torch.equal(replaced, kept)
    assert torch.equal(kept, model(images))


def test_a_return_value_of_another_shape_or_dtype_is_an_error_that_names_the_point(images: Tensor) -> None:
    model = ported("cls")
    for hook in (lambda activation, hook: activation[:, 1:], lambda activation, hook: activation.double()):
        with pytest.raises(ValueError, match=r"blocks\.1\.hook_mlp_out"):
            model.run_with_hooks(images, fwd_hooks=[(("mlp_out", 1), hook)])


def test_hooks_are_removed_also_after_an_exception(images: Tensor) -> None:
    model = ported("cls")
    before = model(images)

    def run_and_fail() -> None:
        with model.hooks(fwd_hooks=[("mlp_out", lambda activation, hook: 0 * activation)]):
            assert not torch.equal(model(images), before)
            raise KeyError

    with pytest.raises(KeyError):
        run_and_fail()
    assert torch.equal(model(images), before)


def test_weights_have_the_shapes_in_the_table(kind: str) -> None:
    model = ported(kind)
    cfg = model.cfg
    layers, heads, d_model, d_head, d_mlp = cfg.n_layers, cfg.n_heads, cfg.d_model, cfg.d_head, cfg.d_mlp
    assert model.W_E.shape == (cfg.n_channels * cfg.patch_size[0] * cfg.patch_size[1], d_model)
    assert cfg.positions == "none" or model.W_pos.shape[1] == d_model
    assert model.W_U.shape == (d_model, cfg.n_classes)
    assert model.W_Q.shape == model.W_K.shape == model.W_V.shape == (layers, heads, d_model, d_head)
    assert model.W_O.shape == (layers, heads, d_head, d_model)
    assert model.W_in.shape == (layers, d_model, d_mlp)
    assert model.W_out.shape == (layers, d_mlp, d_model)
    assert isinstance(model.QK, FactoredMatrix)
    assert isinstance(model.OV, FactoredMatrix)
    if not cfg.qkv_bias:
        assert not model.b_Q.any(), "zeros where the model has no bias"


def test_a_block_s_matrix_is_a_view_and_the_stacked_one_a_copy(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    before = model(images)
    model.W_O.data.zero_()
    assert torch.equal(model(images), before)
    model.blocks[1].attn.W_O.data.zero_()
    assert not torch.equal(model(images), before)


def test_fold_layer_norm_returns_a_copy_and_leaves_the_model(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    before, weights = model(images), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = model.fold_layer_norm()
    assert_equal_up_to_rounding(folded(images), before)
    assert not torch.equal(folded.W_Q, model.W_Q)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


# ---------------------------------------------------------------- how-to/moving.md: TransformerLens, ViT-Prisma


def test_the_model_is_a_hooked_root_module_with_transformer_lens_s_config_names() -> None:
    model = ported("gap_registers_layerscale")
    assert isinstance(model, HookedRootModule)
    assert model.cfg.d_vocab == model.cfg.n_classes
    assert model.cfg.n_ctx == model.token_layout.n_tokens
    assert model.cfg.image_size == (32, 24), "height and width, where ViT-Prisma has a number"
    assert model.cfg.patch_size == (8, 8)


def test_a_class_takes_the_role_of_a_vocabulary_token(images: Tensor) -> None:
    names = ["cat", "dog", "fish", "bird", "ant", "bee", "fly"]
    model = HookedViT.from_timm(make_timm("cls"), class_names=names)
    assert model.to_single_token("dog") == model.class_index("dog") == 1
    assert torch.equal(model.tokens_to_residual_directions("dog"), model.tokens_to_residual_directions(1))
    cache = cached(model, images)
    stack = cache.accumulated_resid()
    assert torch.equal(cache.logit_attrs(stack, "dog"), cache.logit_attrs(stack, 1))
    loss = model(images, return_type="loss", labels=torch.tensor([1, 2]))
    assert_equal_up_to_rounding(loss, nn.functional.cross_entropy(model(images), torch.tensor([1, 2])))


def test_logit_attributions_and_the_constant_sum_to_the_logit(images: Tensor) -> None:
    model = ported("cls")
    logits, cache = model.run_with_cache(images)
    stack = cache.get_full_resid_decomposition(expand_neurons=False)
    constant = model.ln_final.bias @ model.W_U[:, 3] + model.b_U[3]
    assert_equal_up_to_rounding(cache.logit_attrs(stack, 3)[:, :, 0].sum(0) + constant, logits[:, 3])


def test_gradients_of_a_metric_with_one_number_per_image_are_each_image_s_own(images: Tensor) -> None:
    model = ported("cls")
    value, _, both = model.run_with_gradients(images, lambda logits: logits[:, 3], "resid_pre")
    assert value.shape == (2,)
    _, _, alone = model.run_with_gradients(images[1:], lambda logits: logits[:, 3], "resid_pre")
    assert_equal_up_to_rounding(both["resid_pre", 0][1:], alone["resid_pre", 0])


# ---------------------------------------------------------------- how-to/moving.md: timm


# The parts of timm's own `Block`; parallel blocks have others.
with_timms_block = pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"parallel"}))


@contextmanager
def outputs_of(module: nn.Module, *names: str) -> Iterator[dict[str, Tensor]]:
    """The outputs of timm's submodules, recorded by plain forward hooks."""
    seen: dict[str, Tensor] = {}
    handles = [
        module.get_submodule(name).register_forward_hook(lambda _, args, output, name=name: seen.update({name: output}))
        for name in names
    ]
    yield seen
    for handle in handles:
        handle.remove()


def timm_outputs(kind: str, images: Tensor, *names: str) -> dict[str, Tensor]:
    """Outputs of submodules in one run of the timm model that `ported(kind)` comes from."""
    with outputs_of(original(kind), *names) as seen, torch.no_grad():
        original(kind)(images)
    return seen


@pytest.mark.parametrize("kind", VISION_TRANSFORMERS)
def test_patch_embed_and_norm_pre_are_hook_patch_embed_and_hook_tokens(kind: str, images: Tensor) -> None:
    seen, cache = timm_outputs(kind, images, "patch_embed", "norm_pre"), cached(ported(kind), images)
    patches = seen["patch_embed"]
    patches = patches.flatten(1, 2) if patches.ndim == 4 else patches  # a grid with dynamic_img_size
    assert_equal_up_to_rounding(cache["hook_patch_embed"], patches)
    assert_equal_up_to_rounding(cache["hook_tokens"], seen["norm_pre"])


@with_timms_block
def test_a_block_is_resid_post_and_its_drop_paths_are_what_is_added(kind: str, images: Tensor) -> None:
    seen = timm_outputs(kind, images, "blocks.1", "blocks.1.drop_path1", "blocks.1.drop_path2")
    cache = cached(ported(kind), images)
    assert_equal_up_to_rounding(cache["resid_post", 1], seen["blocks.1"])
    assert_equal_up_to_rounding(cache["attn_out", 1], seen["blocks.1.drop_path1"])
    assert_equal_up_to_rounding(cache["mlp_out", 1], seen["blocks.1.drop_path2"])


@with_timms_block
def test_timm_s_attn_and_mlp_are_before_layer_scale_and_post_norms(kind: str, images: Tensor) -> None:
    seen, cache = timm_outputs(kind, images, "blocks.1.attn", "blocks.1.mlp"), cached(ported(kind), images)
    block = ported(kind).blocks[1]
    assert_equal_up_to_rounding(block.attn.project(cache["z", 1]), seen["blocks.1.attn"])
    assert_equal_up_to_rounding(block.mlp.out(cache["post", 1]), seen["blocks.1.mlp"])
    changed = ported(kind).cfg.layer_scale or ported(kind).cfg.post_norm
    assert torch.allclose(cache["attn_out", 1], seen["blocks.1.attn"], atol=1e-5) != changed


@with_timms_block
def test_timm_s_block_norms_are_hook_normalized(kind: str, images: Tensor) -> None:
    seen, cache = timm_outputs(kind, images, "blocks.1.norm1", "blocks.1.norm2"), cached(ported(kind), images)
    assert_equal_up_to_rounding(cache["normalized", 1, "ln1"], seen["blocks.1.norm1"])
    assert_equal_up_to_rounding(cache["normalized", 1, "ln2"], seen["blocks.1.norm2"])


@pytest.mark.parametrize("kind", VISION_TRANSFORMERS)
def test_timm_s_qkv_is_hook_q_hook_k_and_hook_v(kind: str, images: Tensor) -> None:
    seen, cache = timm_outputs(kind, images, "blocks.1.attn.qkv"), cached(ported(kind), images)
    cfg = ported(kind).cfg
    q, k, v = seen["blocks.1.attn.qkv"].unflatten(-1, (3, cfg.n_heads, cfg.d_head)).unbind(2)
    for name, expected in (("q", q), ("k", k), ("v", v)):
        assert_equal_up_to_rounding(cache[name, 1], expected, name)


@pytest.mark.parametrize("kind", VISION_TRANSFORMERS)
def test_timm_s_q_norm_and_k_norm_have_hook_points(kind: str, images: Tensor) -> None:
    seen = timm_outputs(kind, images, "blocks.1.attn.q_norm", "blocks.1.attn.k_norm")
    cache, has_norms = cached(ported(kind), images), ported(kind).cfg.qk_norm is not None
    for name in "qk":
        normed = cache[f"blocks.1.attn.{name}_norm.hook_normalized"] if has_norms else cache[name, 1].transpose(1, 2)
        assert_equal_up_to_rounding(normed, seen[f"blocks.1.attn.{name}_norm"], name)


@with_timms_block
def test_timm_s_attn_drop_is_hook_pattern_with_fused_and_plain_attention(kind: str, images: Tensor) -> None:
    module = make_timm(kind)
    for block in module.blocks:
        block.attn.fused_attn = False
    with outputs_of(module, "blocks.1.attn.attn_drop") as seen, torch.no_grad():
        module(images)
    model = HookedViT.from_timm(make_timm(kind))
    for fused in (True, False):
        model.fused_attention = fused
        pattern = cached(model, images, ("pattern", 1))["pattern", 1]
        assert_equal_up_to_rounding(pattern, seen["blocks.1.attn.attn_drop"])


@with_timms_block
def test_timm_s_fc1_and_act_are_hook_pre_and_hook_post_of_a_plain_mlp(kind: str, images: Tensor) -> None:
    if ported(kind).cfg.mlp_kind != "plain":
        pytest.skip("gated")
    seen, cache = timm_outputs(kind, images, "blocks.1.mlp.fc1", "blocks.1.mlp.act"), cached(ported(kind), images)
    after_act = "hook_post" if ported(kind).cfg.mlp_inner_norm is None else "hook_mid"
    assert_equal_up_to_rounding(cache["pre", 1], seen["blocks.1.mlp.fc1"])
    assert_equal_up_to_rounding(cache[f"blocks.1.mlp.{after_act}"], seen["blocks.1.mlp.act"])


def test_timm_s_final_norm_is_ln_final_hook_normalized(kind: str, images: Tensor) -> None:
    model, module = ported(kind), original(kind)
    names = [name for name in ("norm", "fc_norm") if not isinstance(getattr(module, name, nn.Identity()), nn.Identity)]
    assert len(names) == (model.ln_final is not None)
    cache = cached(model, images)
    for name in names:
        output = timm_outputs(kind, images, name)[name]
        if name == "fc_norm":
            assert cache["ln_final.hook_normalized"].shape == (2, 1, model.cfg.d_model)
            output = output[:, None]
        assert_equal_up_to_rounding(cache["ln_final.hook_normalized"], output)


def test_forward_features_are_the_normed_tokens_or_the_stream_without_a_norm_before_pooling(
    kind: str, images: Tensor
) -> None:
    model, cache = ported(kind), cached(ported(kind), images)
    with torch.no_grad():
        features = original(kind).forward_features(images)
    normed = model.ln_final is not None and not model.cfg.norm_after_pool
    tokens = cache["ln_final.hook_normalized"] if normed else cache["resid_post", -1]
    assert_equal_up_to_rounding(tokens, features)


def test_forward_intermediates_are_resid_post_on_a_grid(kind: str, images: Tensor) -> None:
    model, cache = ported(kind), cached(ported(kind), images)
    with torch.no_grad():
        grids = original(kind).forward_intermediates(images, indices=[0, 2], intermediates_only=True)
    layout = model.token_layout
    for layer, grid in zip((0, 2), grids, strict=True):
        patches = cache["resid_post", layer][:, layout.patches].transpose(1, 2)
        assert_equal_up_to_rounding(layout.to_grid(patches), grid)


def test_head_weight_is_w_u_transposed(kind: str) -> None:
    module, model = original(kind), ported(kind)
    weight = module.head.weight
    weight = (weight + module.head_dist.weight) / 2 if kind == "distilled" else weight
    assert_equal_up_to_rounding(model.W_U.T, weight)


def test_a_timm_module_can_be_ported_by_name_or_as_it_is(images: Tensor) -> None:
    module = timm.create_model("vit_tiny_patch16_224", img_size=(32, 48), depth=1, num_classes=3).eval()
    wide = torch.randn(1, 3, 32, 48)
    assert_equal_up_to_rounding(HookedViT.from_timm(module)(wide), module(wide))


def test_the_kinds_cover_every_claim() -> None:
    configs = [ported(kind).cfg for kind in KINDS]
    for has in ("layer_scale", "post_norm", "qk_norm", "attn_inner_norm", "mlp_inner_norm", "pre_norm",
                "norm_after_pool", "has_dist", "n_registers"):  # fmt: skip
        assert any(getattr(cfg, has) for cfg in configs), has

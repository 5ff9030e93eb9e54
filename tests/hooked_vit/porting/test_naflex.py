"""NaFlexVit: images of any grid, and sequences of patches, against timm's own module."""

import dataclasses
import functools
from collections.abc import Iterator

import pytest
import timm
import torch
from conftest import perturb
from flexible_models import GRIDS, VARIANTS, make_naflex, make_sequences
from PIL import Image
from torch import Tensor, nn

from hooked_vit import HookedViT, HookPoint
from hooked_vit.components import flexible_embed
from hooked_vit.hook_names import ON_DEMAND
from hooked_vit.initialisation import freshly_initialised
from hooked_vit.porting import read_config

SIZES = [(32, 18), (40, 18), (16, 42)]
LINEAR = [name for name in VARIANTS if name != "convolved"]


@functools.cache
def pair(variant: str, fused: bool = False) -> tuple[HookedViT, nn.Module]:
    """A port and its module, made once, for tests that do not change them."""
    module = make_naflex(variant)
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = fused
    return HookedViT.from_timm(module), module


@pytest.fixture
def sequences() -> dict[str, Tensor]:
    """Three images of different grids, each with padding."""
    return make_sequences()


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_of_any_size_are_exact(variant: str) -> None:
    sizes = [*SIZES, (29, 20)] if variant in ("convolved", "padded") else SIZES
    for size in sizes:
        images = torch.randn(2, 3, *size)
        model, module = pair(variant)
        plain = model.verify(module, images)
        assert plain.bitwise, f"{size}: {plain}"
    model, module = pair(variant, fused=True)
    assert model.fused_attention
    assert model.verify(module, images).relative <= 1e-6


@pytest.mark.parametrize("variant", LINEAR)
@pytest.mark.parametrize(("grids", "length"), [(GRIDS, 14), ([(4, 3), (2, 6)], 12), ([(2, 5)], 10)])
def test_sequences_are_exact(variant: str, grids: list, length: int) -> None:
    batch = make_sequences(grids, length)
    model, module = pair(variant)
    plain = model.verify(module, batch)
    assert plain.bitwise, str(plain)
    model, module = pair(variant, fused=True)
    assert model.verify(module, batch).relative <= 1e-6


def test_padding_does_not_reach_the_logits(sequences: dict) -> None:
    for variant in ("gap", "map", "sampled"):
        model, _ = pair(variant)
        before = model(sequences)
        other = {**sequences, "patches": sequences["patches"].clone()}
        other["patches"][~sequences["patch_valid"]] = 7.0
        assert torch.equal(model(other), before), variant


def test_an_image_alone_has_the_logits_it_has_in_the_batch(sequences: dict) -> None:
    model, _ = pair("map")
    together = model(sequences)
    for image, (height, width) in enumerate(GRIDS):
        alone = {key: value[image : image + 1, : height * width] for key, value in sequences.items()}
        torch.testing.assert_close(model(alone)[0], together[image], rtol=1e-5, atol=1e-6)


def test_sequences_of_an_image_give_the_logits_of_the_image() -> None:
    model, _ = pair("axes_square")
    images = torch.randn(2, 3, 24, 30)
    patches, grid = timm.models.naflexvit.batch_patchify(images, (8, 6))
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).expand(2, -1, -1)
    batch = {"patches": patches, "patch_coord": places, "patch_valid": torch.ones(2, 15, dtype=torch.bool)}
    torch.testing.assert_close(model(batch), model(images), rtol=1e-5, atol=1e-6)


def test_the_layouts_tell_each_image_apart_and_the_sum_is_exact(sequences: dict) -> None:
    model, _ = pair("gap")
    layouts = model.token_layouts(sequences)
    assert [layout.grid for layout in layouts] == GRIDS
    assert [layout.n_registers for layout in layouts] == [2, 2, 2]
    logits, cache = model.run_with_cache(sequences)
    pooled = torch.stack(
        [cache["resid_post", -1][image, layout.patches].mean(0) for image, layout in enumerate(layouts)]
    )
    torch.testing.assert_close(model.class_logits(pooled), logits, rtol=1e-5, atol=1e-6)
    for layer in range(3):
        total = cache["resid_pre", layer] + cache["attn_out", layer] + cache["mlp_out", layer]
        assert torch.equal(total, cache["resid_post", layer])
    pattern = cache["pattern", 1]
    for image, layout in enumerate(layouts):
        assert pattern[image, :, :, layout.n_tokens :].eq(0).all(), "no token attends to padding"
        torch.testing.assert_close(pattern[image].sum(-1), torch.ones(3, 16))


def test_hook_pos_embed_is_what_is_added_on_each_grid(sequences: dict) -> None:
    model, module = pair("square")
    _, cache = model.run_with_cache(sequences, names_filter=lambda name: "embed" in name or name == "hook_tokens")
    total = cache["hook_embed"] + cache["hook_pos_embed"]
    assert torch.equal(total, cache["hook_tokens"])
    table = module.embeds.pos_embed.permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(table, (5, 5), mode="bicubic", antialias=True)[0, :, :2, :5].flatten(1).T
    torch.testing.assert_close(cache["hook_pos_embed"][1, :10], expected)


@pytest.mark.parametrize("variant", ["map", "axes", "radio"])
def test_every_hook_point_edited_once_moves_the_logits(variant: str, sequences: dict, bad_input: None) -> None:
    model, _ = pair(variant)
    generator = torch.Generator()

    def add_noise(activation: Tensor, hook: HookPoint) -> Tensor:
        noise = torch.randn(activation.shape, generator=generator.manual_seed(5))
        return activation + (
            noise.abs() if activation.shape[-1] == 1 else noise * (activation[activation.isfinite()].std() + 0.5)
        )

    images = torch.randn(2, 3, 24, 30)
    for input in (images, sequences):
        before = model(input)
        for name in model.hook_dict:
            moved = model.run_with_hooks(input, fwd_hooks=[(name, add_noise)])
            assert (moved - before).abs().amax(1).min() > 2e-5 * before.abs().max(), name
        assert torch.equal(model(input), before)


def test_gradients_and_a_single_image_without_its_batch_axis(sequences: dict) -> None:
    model, _ = pair("map")
    value, _, gradients = model.run_with_gradients(sequences, lambda logits: logits[:, 3], "resid_post")
    assert value.shape == (3,)
    assert gradients["resid_post", 0].shape == (3, 14 + 1, 24)
    assert gradients["resid_post", -1][1, 11:].eq(0).all(), "padding has no gradient"
    assert gradients["resid_post", -1][1, 1:11].abs().sum() > 0
    one = {key: tensor[:1] for key, tensor in sequences.items()}
    _, alone = model.run_with_cache(one, names_filter=("z", 0), remove_batch_dim=True)
    assert alone["z", 0].shape == (15, 3, 8)
    with pytest.raises(ValueError, match="single image, got a batch of 3"):
        model.run_with_cache(sequences, remove_batch_dim=True)


def test_token_mask_leaves_out_the_patches_that_patch_valid_leaves_out(sequences: dict) -> None:
    model, _ = pair("map_of_all")
    valid = sequences["patch_valid"].clone()
    valid[:, 2] = valid[0, 7] = False
    keep = torch.cat([torch.ones(3, 2, dtype=torch.bool), valid], dim=1)
    by_mask = model(sequences, token_mask=keep)
    torch.testing.assert_close(by_mask, model({**sequences, "patch_valid": valid}), rtol=1e-5, atol=1e-6)
    assert (by_mask - model(sequences)).abs().min(dim=1).values.max() > 1e-4
    with pytest.raises(ValueError, match="token_mask drops what the head reads in image 2"):
        pair("axes")[0](sequences, token_mask=torch.arange(14).expand(3, -1) >= 6)


@pytest.mark.parametrize("variant", ["gap", "map", "cls"])
def test_a_run_resumes_from_a_stream_with_its_sequences(variant: str, sequences: dict) -> None:
    model, _ = pair(variant)
    logits, cache = model.run_with_cache(sequences)
    for layer in (0, 2, 3):
        stream = cache["hook_tokens"] if layer == 0 else cache["resid_post", layer - 1]
        assert torch.equal(model(stream, start_at_layer=layer, sequences=sequences), logits)
    n_prefix = model.token_layout.n_prefix
    keep = torch.cat([torch.ones(3, n_prefix, dtype=torch.bool), sequences["patch_valid"]], dim=1)
    keep[0, n_prefix + 1] = False
    masked, cache = model.run_with_cache(sequences, token_mask=keep)
    stream = cache["resid_post", 0]
    assert torch.equal(model(stream, start_at_layer=1, sequences=sequences, token_mask=keep), masked)
    assert stream.shape[1] == n_prefix + 11
    with pytest.raises(ValueError, match="sequences= goes with start_at_layer"):
        model(sequences, sequences=sequences)


# ---------------------------------------------------------------------- mutations


def positions_changed(**changes: object) -> HookedViT:
    """The port of a model with positions that are resampled in another way."""
    model, _ = pair("gap")
    positions = dataclasses.replace(model.cfg.grid_positions, **changes)
    return model.with_weights(dict(model.named_parameters()), dataclasses.replace(model.cfg, grid_positions=positions))


@pytest.mark.parametrize(
    "changes", [{"antialias": False}, {"mode": "bilinear"}, {"keep_aspect": True}, {"align_corners": True}], ids=str
)
def test_positions_resampled_in_another_way_are_caught(changes: dict) -> None:
    _, module = pair("gap")
    for batch in (torch.randn(2, 3, 16, 24), make_sequences([(2, 4), (3, 2)], 8)):
        found = positions_changed(**changes).verify(module, batch)
        assert found.first_difference == "blocks.0"
        assert found.relative > 1e-4


def test_padding_that_is_attended_to_is_caught(sequences: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    model, module = pair("cls")
    nothing = lambda keys, dtype: torch.zeros(len(keys), 1, 1, keys.shape[1])  # noqa: E731
    monkeypatch.setattr("hooked_vit.model.additive_mask", nothing)
    found = model.verify(module, sequences)
    assert found.first_difference == "blocks.0"
    assert found.relative > 1e-3


def test_padding_in_the_mean_is_caught(sequences: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    model, module = pair("gap")
    monkeypatch.setattr("hooked_vit.model.pool_tokens", lambda tokens, pool, mask: tokens.mean(1))
    found = model.verify(module, sequences)
    assert found.first_difference == "logits"
    assert found.relative > 1e-3


# ---------------------------------------------------------------------- pictures


def test_pictures_are_patchified_as_timm_does() -> None:
    model, module = pair("gap")
    generator = torch.Generator().manual_seed(0)
    pictures = [
        Image.fromarray(torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator).numpy())
        for size in [(40, 90), (77, 20), (8, 8)]
    ]
    batch = model.preprocess_naflex(pictures, max_patches=12)
    transform = timm.data.create_transform(
        **model.data_config, naflex=True, patchify=True, patch_size=model.cfg.patch_size, max_seq_len=12
    )
    expected, _ = timm.data.naflex_dataset.NaFlexCollator(12)([(transform(picture), 0) for picture in pictures])
    length = batch["patches"].shape[1]
    assert length == max(layout.n_patches for layout in model.token_layouts(batch)) <= 12
    for key, tensor in batch.items():
        assert torch.equal(tensor, expected[key][:, :length]), key
    assert len({layout.grid for layout in model.token_layouts(batch)}) == 3
    assert model.verify(module, batch).bitwise
    assert (model(expected) - module(expected)).abs().max() == 0, "timm's own dict, with its length"
    assert model.preprocess_naflex(pictures[0])["patches"].shape[1] <= model.token_layout.n_patches
    with pytest.raises(ValueError, match="max_patches of at least 1, got 0"):
        model.preprocess_naflex(pictures, max_patches=0)
    with pytest.raises(ValueError, match="takes images, not sequences"):
        pair("convolved")[0].preprocess_naflex(pictures)


# ---------------------------------------------------------------------- bad input


def changed(batch: dict, **changes: object) -> dict:
    """A batch with other values; `None` drops a key."""
    return {key: value for key, value in {**batch, **changes}.items() if value is not None}


def bad_batches() -> Iterator[tuple[dict, str]]:
    """Dicts that do not fit, and what their errors say."""
    good = make_sequences()
    places, valid, patches = good["patch_coord"], good["patch_valid"], good["patches"]
    yield changed(good, patch_valid=None), "missing: patch_valid; `model.preprocess_naflex"
    yield changed(good, attn_mask=valid), "got also attn_mask; edit 'hook_attn_scores'"
    yield changed(good, patches=patches[..., :-1]), r"expected patches of shape \[batch, patch, 144\], 3 × 8 × 6"
    yield changed(good, patches=patches.unflatten(2, (6, 8, 3))), r"patches of another size are not resampled"
    yield changed(good, patch_coord=places[:, :-1]), r"expected patch_coord of shape \(3, 14, 2\)"
    yield changed(good, patch_coord=places.float()), "whole rows and columns, got torch.float32"
    yield changed(good, patch_valid=valid.int()), r"expected patch_valid of shape \(3, 14\), bool, got torch.int32"
    yield changed(good, patch_valid=valid & False), "image 0 has no valid patch"
    yield changed(good, patch_coord=places.flip(1)), "patches of image 0 row by row on its grid of 4 × 3"
    yield changed(good, patches=patches.half()), "the input is torch.float16, the model torch.float32"


@pytest.mark.parametrize("number", range(10))
def test_a_dict_that_does_not_fit_is_refused(number: int, bad_input: None) -> None:
    batch, message = list(bad_batches())[number]
    model, _ = pair("gap")
    with pytest.raises(ValueError, match=message):
        model(batch)


def test_unflattened_patches_are_taken(sequences: dict) -> None:
    model, module = pair("gap")
    batch = {**sequences, "patches": sequences["patches"].unflatten(2, (8, 6, 3))}
    assert torch.equal(model(batch), model(sequences))
    assert torch.equal(module(batch), model(batch))


def test_a_model_that_convolves_takes_no_dict(sequences: dict) -> None:
    with pytest.raises(ValueError, match="embeds images by a convolution and takes no dict of patches"):
        pair("convolved")[0](sequences)


# ---------------------------------------------------------------------- entrypoints and the rest


def small_entrypoint(name: str, **changes: object) -> nn.Module:
    """A timm entrypoint, shrunk to two blocks and heads of width 4."""
    n_heads = timm.create_model(name, depth=1, embed_dim=8, num_heads=2).blocks[0].attn.num_heads + 1
    return perturb(timm.create_model(name, depth=2, embed_dim=4 * n_heads, num_heads=n_heads, num_classes=5, **changes))


@pytest.mark.parametrize("name", timm.list_models(module="naflexvit"))
def test_entrypoint_is_exact(name: str, fused_attention_off: None) -> None:
    module = small_entrypoint(name)
    model = HookedViT.from_timm(module)
    assert model.cfg.image_size == tuple(module.pretrained_cfg["input_size"][1:])
    assert model.verify(module, torch.randn(1, 3, 64, 80)).bitwise
    assert model.verify(module, make_sequences([(3, 5), (4, 2)], 17, 768)).bitwise


def test_there_are_14_entrypoints() -> None:
    assert len(timm.list_models(module="naflexvit")) == 14


@pytest.mark.parametrize(
    "name", ["vit_base_patch16_224", "vit_base_patch16_siglip_gap_224", "vit_base_patch16_clip_224"]
)
def test_names_of_other_families_that_timm_makes_naflex(
    name: str, monkeypatch: pytest.MonkeyPatch, fused_attention_off: None
) -> None:
    monkeypatch.setattr(timm.models.vision_transformer, "_USE_NAFLEX_DEFAULT", True)
    module = perturb(timm.create_model(name, depth=2, embed_dim=12, num_heads=3, img_size=48, num_classes=5))
    assert type(module).__name__ == "NaFlexVit"
    model = HookedViT.from_timm(module)
    assert model.cfg.image_size == (48, 48)
    assert model.verify(module, torch.randn(2, 3, 48, 48)).bitwise
    assert model.verify(module, torch.randn(2, 3, 32, 80)).bitwise
    assert model.verify(module, make_sequences([(3, 5), (4, 2)], 17, 768)).bitwise


def test_every_tensor_is_carried_over_and_parameters_have_their_names() -> None:
    for variant in VARIANTS:
        model, module = pair(variant)
        expected = sum(tensor.numel() for tensor in module.state_dict().values())
        assert sum(tensor.numel() for tensor in model.state_dict().values()) == expected, variant
    model, module = pair("gap")
    images = torch.randn(1, 3, 8, 6)
    torch.testing.assert_close(
        images.flatten(1) @ model.W_E + model.b_E, model.embed.patches(images)[:, 0], rtol=1e-5, atol=1e-6
    )
    assert torch.equal(model.W_pos, module.embeds.pos_embed.flatten(0, 2))
    model, module = pair("axes")
    rows, columns = module.embeds.pos_embed_y[0], module.embeds.pos_embed_x[0]
    assert model.cfg.token_layout.grid == (4, 3)
    assert torch.equal(model.W_pos, (rows[:, None] + columns).flatten(0, 1))
    with pytest.raises(AttributeError, match="this model has no position embedding"):
        _ = pair("no_positions")[0].W_pos


def test_a_fresh_model_and_one_with_folded_norms(sequences: dict) -> None:
    for variant in ("axes", "map", "mixed"):
        model, _ = pair(variant)
        null = freshly_initialised(model, seed=0)
        assert torch.isfinite(null(sequences)).all()
        torch.testing.assert_close(model.fold_layer_norm()(sequences), model(sequences), rtol=1e-4, atol=1e-5)
    assert 0.01 < freshly_initialised(pair("axes")[0], seed=0).embed.pos_rows.std() < 0.03


def test_bfloat16_is_exact(sequences: dict) -> None:
    module = make_naflex("square").bfloat16()
    model = HookedViT.from_timm(module)
    assert model.verify(module, {**sequences, "patches": sequences["patches"].bfloat16()}).bitwise


def test_subclasses_and_other_parts_are_refused() -> None:
    class Other(timm.models.naflexvit.NaFlexVit):
        def forward_head(self, *args: object, **kwargs: object) -> Tensor:
            return 2 * super().forward_head(*args, **kwargs)

    with pytest.raises(ValueError, match=r"not covered: Other.forward_head, which replaces NaFlexVit's own"):
        read_config(Other(embed_dim=24, depth=1, num_heads=3))
    module = make_naflex("gap")
    module.embeds.norm_input = nn.LayerNorm(144)
    with pytest.raises(ValueError, match="a norm of the pixels before they are projected"):
        read_config(module)


def test_on_demand_points_are_those_of_every_model() -> None:
    model, _ = pair("gap")
    _, cache = model.run_with_cache(make_sequences())
    left_out = {name for name in model.hook_dict if name.rpartition(".")[2] in ON_DEMAND}
    assert set(cache.keys()) == set(model.hook_dict) - left_out


def test_timm_has_the_functions_that_add_positions() -> None:
    names = {**flexible_embed._ON_GRID, **flexible_embed._ON_SEQUENCES}
    assert all(hasattr(timm.models.naflexvit.NaFlexEmbeds, name) for name in names.values())


# ---------------------------------------------------------------------- analyses


def test_what_needs_one_grid_says_so(sequences: dict, bad_input: None) -> None:
    from analyses.faithfulness import deletion_curve, removal_curve
    from analyses.feature_importance import attention_rollout, feature_importance
    from analyses.linear_probe.features import probe_features
    from analyses.patching import activation_patching
    from analyses.perturbation import perturb
    from hooked_vit.interventions import mean_activations

    model, _ = pair("gap")
    classes = torch.tensor([0, 1, 2])
    for call in (
        lambda: feature_importance(model, sequences, classes),
        lambda: attention_rollout(model, sequences, classes),
        lambda: removal_curve(model, sequences, classes, torch.arange(12).expand(3, -1)),
        lambda: deletion_curve(model, sequences, classes, torch.arange(12).expand(3, -1)),
        lambda: perturb(model, sequences, classes),
        lambda: probe_features(model, [(sequences, classes)]),
        lambda: mean_activations(model, [sequences], "z"),
        lambda: model.run_with_cache(sequences, lean=True),
        lambda: activation_patching(model, sequences, sequences, lambda logits: logits[:, 0]),
    ):
        with pytest.raises(ValueError, match="one grid per batch is needed here, got a dict of patches"):
            call()


def test_analyses_run_on_images_of_a_naflex_model() -> None:
    from analyses.feature_importance import feature_importance
    from analyses.patching import activation_patching
    from analyses.projection import project

    model, _ = pair("gap")
    images = torch.randn(2, 3, *model.cfg.image_size)
    logits, cache = model.run_with_cache(images)
    classes = logits.argmax(-1)
    mean = cache["resid_post", -1][:, model.token_layout.patches].mean(1)
    torch.testing.assert_close(model.class_logits(mean), logits, rtol=1e-5, atol=1e-6)
    assert project(model, cache, labels=classes, k=2).rank.shape == (3, 2, 14)
    assert feature_importance(model, images, classes).shape == (2, 3, 3, 12)
    found = activation_patching(model, images[:1], images[1:], lambda logits: logits[0, 3], stream="resid_pre")

    def paste(residual: Tensor, hook: HookPoint) -> Tensor:
        residual[:, 5] = cache["resid_pre", 1][0, 5]
        return residual

    by_hook = model.run_with_hooks(images[1:], fwd_hooks=[(("resid_pre", 1), paste)])
    torch.testing.assert_close(found.values[1, 5], by_hook[0, 3], rtol=1e-5, atol=1e-6)

"""The cache's decompositions and attributions on every kind of model, compared with direct computations."""

import re
from collections.abc import Callable

import pytest
import torch
from conftest import make_timm, ported
from einops import einsum
from torch import Tensor
from transformer_lens.utilities import Slice

from hooked_vit import HookedViT, KeptTokens, ViTActivationCache
from hooked_vit.cache import token_axis

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
# besides the kinds of `make_timm`
FURTHER = {
    "norm_after_attention_pool": {"class_token": False, "global_pool": "map", "fc_norm": True, "mlp_ratio": 3.0},
    "rms_norm_after_pool": {"norm_layer": "rmsnorm", "global_pool": "avg", "fc_norm": True},
    "max": {"global_pool": "max", "fc_norm": False},
}


@pytest.fixture
def model(kind: str) -> HookedViT:
    """A model of each kind."""
    return ported(kind)


def cached(model: HookedViT, images: Tensor, **options) -> ViTActivationCache:
    """A cache of everything but what exists on demand."""
    with torch.no_grad():
        return model.run_with_cache(images, **options)[1]


_whole: dict[str, dict[str, Tensor]] = {}


@pytest.fixture
def cache(kind: str, model: HookedViT, images: Tensor) -> ViTActivationCache:
    """A cache of everything but what exists on demand, of the two images; the activations are made once a kind."""
    if kind not in _whole:
        _whole[kind] = dict(cached(model, images).items())
    return ViTActivationCache(dict(_whole[kind]), model)


def stream_of(cache: ViTActivationCache, layer: int, mlp_input: bool = False) -> Tensor:
    """The stream before a layer."""
    if mlp_input:
        return cache["resid_mid", layer]
    return cache["resid_pre", layer] if layer < 3 else cache["resid_post", 2]


def head_result(model: HookedViT, cache: ViTActivationCache, layer: int, head: int) -> Tensor:
    """What a head adds to the stream, from the definition."""
    block = model.blocks[layer]
    written = cache["z", layer][..., head, :] @ block.attn.W_O[head]
    return added(block.ln1 if model.cfg.post_norm else None, block.ls1, written, cache, f"blocks.{layer}.ln1")


def neuron_result(model: HookedViT, cache: ViTActivationCache, layer: int, neuron: int) -> Tensor:
    """What a neuron adds to the stream, from the definition."""
    block = model.blocks[layer]
    written = cache["post", layer][..., neuron, None] * block.mlp.W_out[neuron]
    return added(block.ln2 if model.cfg.post_norm else None, block.mlp_ls, written, cache, f"blocks.{layer}.ln2")


def added(post_norm, layer_scale: Tensor | None, written: Tensor, cache: ViTActivationCache, norm: str) -> Tensor:
    """A part of a sub-layer's output after LayerScale, or after a post-norm at its own scale."""
    if post_norm is not None:
        centred = written - written.mean(-1, keepdim=True) if post_norm.cfg.kind == "layer" else written
        return centred / cache[f"{norm}.hook_scale"] * post_norm.weight
    return written if layer_scale is None else written * layer_scale


# ---------------------------------------------------------------- the stream


def test_the_stream_is_bitwise_the_sum_of_what_is_added(model: HookedViT, cache: ViTActivationCache) -> None:
    residual = cache["hook_tokens"]
    for layer in range(3):
        assert torch.equal(residual, cache["resid_pre", layer])
        if model.cfg.parallel_attn_mlp:  # the original adds the two before LayerScale, in other last bits
            residual = residual + (cache["attn_out", layer] + cache["mlp_out", layer])
            torch.testing.assert_close(residual, cache["resid_post", layer], rtol=1e-5, atol=1e-6)
            residual = cache["resid_post", layer]
            continue
        residual = residual + cache["attn_out", layer]
        assert torch.equal(residual, cache["resid_mid", layer])
        residual = residual + cache["mlp_out", layer]
        assert torch.equal(residual, cache["resid_post", layer])
    if model.ln_pre is None:
        assert torch.equal(cache["embed"] + cache["pos_embed"], cache["hook_tokens"])


@pytest.mark.parametrize("layer", [None, 0, 2, 3])
@pytest.mark.parametrize(("incl_mid", "mlp_input"), [(False, False), (True, False), (False, True)])
def test_accumulated_streams(
    model: HookedViT, cache: ViTActivationCache, layer: int | None, incl_mid: bool, mlp_input: bool
) -> None:
    if model.cfg.parallel_attn_mlp and (incl_mid or mlp_input):
        with pytest.raises(ValueError, match="attention and MLP of a block both read its input"):
            cache.accumulated_resid(layer, incl_mid=incl_mid, mlp_input=mlp_input)
        return
    last = 3 if layer is None else layer
    expected, labels = [], []
    for layer in range(last + 1):
        expected.append(stream_of(cache, layer))
        labels.append(f"{layer}_pre" if layer < 3 else "final_post")
        if layer < 3 and ((incl_mid and layer < last) or (mlp_input and layer == last)):
            expected.append(cache["resid_mid", layer])
            labels.append(f"{layer}_mid")
    stack, found = cache.accumulated_resid(layer, incl_mid=incl_mid, mlp_input=mlp_input, return_labels=True)
    assert found == labels
    assert torch.equal(stack, torch.stack(expected))


def test_the_lens_norms_each_stream_with_its_own_statistics(model: HookedViT, cache: ViTActivationCache) -> None:
    lens = cache.accumulated_resid(apply_ln=True)
    for layer in range(4):
        expected = stream_of(cache, layer)
        if model.ln_final is not None:
            expected = model.ln_final.divide(expected, model.ln_final.scale(expected))
        torch.testing.assert_close(lens[layer], expected, **CLOSE)
        if model.cfg.pool != "attention":
            projected = model.class_logits(stream_of(cache, layer))
            torch.testing.assert_close(lens[layer] @ model.W_U + model.b_U, projected, **CLOSE)


# ---------------------------------------------------------------- components


@pytest.mark.parametrize("mode", ["all", "attn", "mlp"])
def test_components_have_names_and_sum_to_the_stream(model: HookedViT, cache: ViTActivationCache, mode: str) -> None:
    parts, labels = cache.decompose_resid(return_labels=True, mode=mode)
    direct = {"embed": cache["embed"], "pos_embed": cache["pos_embed"], "tokens": cache["hook_tokens"]}
    for layer in range(3):
        direct |= {f"{layer}_{name}": cache[name, layer] for name in ("attn_out", "mlp_out")}
    start = ["tokens"] if model.cfg.pre_norm else ["embed", "pos_embed"]
    names = [f"{layer}_{name}_out" for layer in range(3) for name in ("attn", "mlp") if mode in ("all", name)]
    assert labels == [*start, *names]
    for part, label in zip(parts, labels, strict=True):
        assert torch.equal(part, direct[label]), label
    if mode == "all":
        torch.testing.assert_close(parts.sum(0), cache["resid_post", 2], **CLOSE)
    if model.cfg.parallel_attn_mlp:
        with pytest.raises(ValueError, match="both read its input: leave out mlp_input"):
            cache.decompose_resid(1, mlp_input=True)
        return
    halfway = cache.decompose_resid(1, mlp_input=True)
    torch.testing.assert_close(halfway.sum(0), cache["resid_mid", 1], **CLOSE)


@pytest.mark.parametrize("look_at_heads", [False, True])
def test_head_results_are_what_each_head_adds(model: HookedViT, images: Tensor, look_at_heads: bool) -> None:
    names = (lambda name: True) if look_at_heads else None
    cache = cached(model, images, names_filter=names)
    assert ("blocks.0.attn.hook_result" in cache) == look_at_heads
    stack, labels = cache.stack_head_results(return_labels=True)
    assert labels == [f"L{layer}H{head}" for layer in range(3) for head in range(model.cfg.n_heads)]
    assert stack.shape == (3 * model.cfg.n_heads, 2, model.cfg.n_ctx, 24)
    for index, part in enumerate(stack):
        torch.testing.assert_close(part, head_result(model, cache, *divmod(index, model.cfg.n_heads)), **CLOSE)
    for layer in range(3):
        block = model.blocks[layer]
        bias = block.attn_out_bias(cache["scale", layer, "ln1"] if model.cfg.post_norm else None)
        torch.testing.assert_close(stack.unflatten(0, (3, -1))[layer].sum(0) + bias, cache["attn_out", layer], **CLOSE)
    with_rest, labels = cache.stack_head_results(2, return_labels=True, incl_remainder=True)
    assert labels[-1] == "remainder"
    assert len(with_rest) == 2 * model.cfg.n_heads + 1
    torch.testing.assert_close(with_rest.sum(0), cache["resid_post", 1], **CLOSE)
    assert torch.equal(cache.stack_head_results(1, pos_slice=4), stack[: model.cfg.n_heads, :, 4])
    assert torch.equal(cache.stack_head_results(1, pos_slice=(2, 5)), stack[: model.cfg.n_heads, :, 2:5])
    assert torch.equal(cache["result", 2], stack[-model.cfg.n_heads :].movedim(0, 2))


def test_neuron_results_are_what_each_neuron_adds(model: HookedViT, cache: ViTActivationCache) -> None:
    d_mlp = model.cfg.d_mlp
    results = cache.get_neuron_results(1)
    assert results.shape == (2, model.cfg.n_ctx, d_mlp, 24)
    for neuron in range(0, d_mlp, 7):
        torch.testing.assert_close(results[:, :, neuron], neuron_result(model, cache, 1, neuron), **CLOSE)
    block = model.blocks[1]
    bias = block.mlp_out_bias(cache["scale", 1, "ln2"] if model.cfg.post_norm else None)
    torch.testing.assert_close(results.sum(2) + bias, cache["mlp_out", 1], **CLOSE)
    torch.testing.assert_close(cache.get_neuron_results(1, neuron_slice=[3, 5], pos_slice=2), results[:, 2, [3, 5]])
    direction = torch.randn(24)
    torch.testing.assert_close(cache.get_neuron_results(1, project_output_onto=direction), results @ direction, **CLOSE)


def ln_of(model: HookedViT, cache: ViTActivationCache, part: Tensor, layer: int, mlp_input: bool = False) -> Tensor:
    """A part of the stream centred and divided by the cached scale of what reads it."""
    if layer < 3:
        cfg, scale = model.cfg.block_norm, cache["scale", layer, "ln2" if mlp_input else "ln1"]
    elif model.ln_final is None:
        return part
    else:
        cfg, scale = model.cfg.final_norm, cache["ln_final.hook_scale"]
    return (part - part.mean(-1, keepdim=True) if cfg.kind == "layer" else part) / scale


@pytest.mark.parametrize("project", [None, 1, 4])
@pytest.mark.parametrize("apply_ln", [False, True])
def test_stacks_of_neurons(model: HookedViT, cache: ViTActivationCache, apply_ln: bool, project: int | None) -> None:
    target = None if project is None else torch.randn(24, project)
    if project == 1:
        target = target[:, 0]
    neurons = [0, 4, 9]
    options = {"apply_ln": apply_ln, "project_output_onto": target, "neuron_slice": neurons, "return_labels": True}
    stack, labels = cache.stack_neuron_results(3, incl_remainder=True, **options)
    assert labels == [f"L{layer}N{neuron}" for layer in range(3) for neuron in neurons] + ["remainder"]
    direct = [neuron_result(model, cache, layer, neuron) for layer in range(3) for neuron in neurons]
    direct.append(cache["resid_post", 2] - sum(direct))
    if apply_ln:
        direct = [ln_of(model, cache, part, 3) for part in direct]
    if target is not None:
        direct = [part @ target for part in direct]
    torch.testing.assert_close(stack, torch.stack(direct), **CLOSE)
    for pos_slice, index in ((5, 5), ((1, 4), slice(1, 4))):
        some, _ = cache.stack_neuron_results(3, pos_slice, incl_remainder=True, **options)
        torch.testing.assert_close(some, torch.stack([part[:, index] for part in direct]), **CLOSE)


@pytest.mark.parametrize("expand_neurons", [False, True])
def test_the_full_decomposition_names_every_part_and_sums_to_the_stream(
    model: HookedViT, cache: ViTActivationCache, expand_neurons: bool
) -> None:
    d_mlp = model.cfg.d_mlp
    stack, labels = cache.get_full_resid_decomposition(expand_neurons=expand_neurons, return_labels=True)
    heads = [f"L{layer}H{head}" for layer in range(3) for head in range(model.cfg.n_heads)]
    neurons = [f"L{layer}N{neuron}" for layer in range(3) for neuron in range(d_mlp)]
    start = ["tokens"] if model.cfg.pre_norm else ["embed", "pos_embed"]
    mlps = neurons if expand_neurons else [f"{layer}_mlp_out" for layer in range(3)]
    assert labels == [*heads, *mlps, *start, "bias"]
    torch.testing.assert_close(stack.sum(0), cache["resid_post", 2], rtol=1e-3, atol=1e-4)
    parts = dict(zip(labels, stack, strict=True))
    torch.testing.assert_close(parts["L1H2"], head_result(model, cache, 1, 2), **CLOSE)
    if expand_neurons:
        torch.testing.assert_close(parts["L2N8"], neuron_result(model, cache, 2, 8), **CLOSE)
    else:
        assert torch.equal(parts["2_mlp_out"], cache["mlp_out", 2])
    if model.cfg.pre_norm:
        assert torch.equal(parts["tokens"], cache["hook_tokens"])
    else:
        assert torch.equal(parts["embed"], cache["embed"])
        assert torch.equal(parts["pos_embed"], cache["pos_embed"])
    if model.cfg.parallel_attn_mlp:
        with pytest.raises(ValueError, match="both read its input: leave out mlp_input"):
            cache.get_full_resid_decomposition(2, mlp_input=True, expand_neurons=expand_neurons)
    else:
        halfway = cache.get_full_resid_decomposition(2, mlp_input=True, expand_neurons=expand_neurons)
        torch.testing.assert_close(halfway.sum(0), cache["resid_mid", 2], rtol=1e-3, atol=1e-4)
    first = cache.get_full_resid_decomposition(0, expand_neurons=expand_neurons)
    torch.testing.assert_close(first.sum(0), cache["resid_pre", 0], **CLOSE)
    for pos_slice, index in ((5, 5), ((1, 4), slice(1, 4)), ([0, 3], [0, 3])):
        some = cache.get_full_resid_decomposition(expand_neurons=expand_neurons, pos_slice=pos_slice)
        torch.testing.assert_close(some, stack[:, :, index], **CLOSE)


@pytest.mark.parametrize("pos_slice", [None, 5, (1, 4)])
def test_the_full_decomposition_normed_and_projected(
    model: HookedViT, cache: ViTActivationCache, pos_slice: object
) -> None:
    target = torch.randn(24, 4, generator=torch.Generator().manual_seed(3))
    index = {None: slice(None), 5: 5, (1, 4): slice(1, 4)}[pos_slice]
    whole = cache.get_full_resid_decomposition()
    normed = torch.stack([ln_of(model, cache, part, 3)[:, index] for part in whole])
    options = {"pos_slice": pos_slice, "apply_ln": True}
    torch.testing.assert_close(cache.get_full_resid_decomposition(**options), normed, **CLOSE)
    for onto in (target, target[:, 0]):
        found = cache.get_full_resid_decomposition(**options, project_output_onto=onto)
        torch.testing.assert_close(found, normed @ onto, **CLOSE)
        plain = cache.get_full_resid_decomposition(pos_slice=pos_slice, project_output_onto=onto)
        torch.testing.assert_close(plain, whole[:, :, index] @ onto, **CLOSE)


# ---------------------------------------------------------------- norms of parts


@pytest.mark.parametrize(("layer", "mlp_input"), [(None, False), (-1, False), (3, False), (1, False), (1, True)])
def test_parts_normed_at_the_readers_scale_sum_to_what_it_reads(
    model: HookedViT, cache: ViTActivationCache, layer: int | None, mlp_input: bool
) -> None:
    if layer == 1 and model.cfg.post_norm:
        with pytest.raises(ValueError, match="block 1 reads the stream without a norm"):
            cache.apply_ln_to_stack(cache.decompose_resid(1), 1)
        with pytest.raises(ValueError, match="block 1 reads the stream without a norm"):
            cache.stack_neuron_results(1, apply_ln=True, project_output_onto=torch.ones(24))
        return
    if mlp_input and model.cfg.parallel_attn_mlp:
        parts = cache.decompose_resid(layer)  # the MLP reads through the same norm
        assert torch.equal(cache.apply_ln_to_stack(parts, layer, mlp_input), cache.apply_ln_to_stack(parts, layer))
        return
    parts = cache.decompose_resid(layer, mlp_input=mlp_input)
    normed = cache.apply_ln_to_stack(parts, layer, mlp_input)
    torch.testing.assert_close(cache.decompose_resid(layer, mlp_input=mlp_input, apply_ln=True), normed)
    norm = model.ln_final if layer != 1 else getattr(model.blocks[1], "ln2" if mlp_input else "ln1")
    whole = normed.sum(0)
    if norm is None:
        assert torch.equal(normed, parts)
        return
    read = whole * norm.weight + (0 if norm.bias is None else norm.bias)
    if layer == 1:
        expected = cache["normalized", 1, "ln2" if mlp_input else "ln1"]
    elif model.cfg.norm_after_pool:
        read, expected = read[:, model.token_layout.patches].mean(1), cache["hook_pooled"]
    else:
        expected = cache["ln_final.hook_normalized"]
    torch.testing.assert_close(read, expected, **CLOSE)


def test_slices_of_images_and_tokens_use_their_own_scales(model: HookedViT, cache: ViTActivationCache) -> None:
    parts = cache.decompose_resid()
    normed = cache.apply_ln_to_stack(parts)
    assert torch.equal(cache.apply_ln_to_stack(parts[:, :, 4], pos_slice=4), normed[:, :, 4])
    assert torch.equal(cache.apply_ln_to_stack(parts[:, :, 2:6], pos_slice=(2, 6)), normed[:, :, 2:6])
    assert torch.equal(cache.apply_ln_to_stack(parts, batch_slice=1), normed[:, 1])
    assert torch.equal(cache.apply_ln_to_stack(parts, batch_slice=[1]), normed[:, [1]])
    lone = cache.apply_ln_to_stack(parts[:, 1], batch_slice=1, has_batch_dim=False)
    assert torch.equal(lone, normed[:, 1])


# ---------------------------------------------------------------- attribution


def constant_of(model: HookedViT, index: int) -> Tensor:
    """The part of a logit that the stream has no share in."""
    bias = model.b_U[index]
    return bias if model.ln_final is None or model.ln_final.bias is None else bias + model.ln_final.bias @ model.W_U[
        :, index
    ]  # fmt: skip


def test_attributions_sum_to_the_logit(model: HookedViT, images: Tensor) -> None:
    with torch.no_grad():
        logits, cache = model.run_with_cache(images)
    parts = cache.get_full_resid_decomposition(expand_neurons=False)
    if model.cfg.pool == "attention":
        with pytest.raises(ValueError, match="does not read the stream linearly"):
            cache.logit_attrs(parts, 3)
        return
    attributions = cache.logit_attrs(parts, 3)
    assert attributions.shape == (len(parts), 2, model.cfg.n_ctx)
    normed = torch.stack([ln_of(model, cache, part, 3) for part in parts])
    weight = 1.0 if model.ln_final is None else model.ln_final.weight
    torch.testing.assert_close(attributions, (normed * weight) @ model.W_U[:, 3], **CLOSE)
    whole = attributions.sum(0)
    if model.cfg.pool == "cls":
        torch.testing.assert_close(whole[:, 0] + constant_of(model, 3), logits[:, 3], **CLOSE)
    elif model.cfg.pool == "avg":
        mean = whole[:, model.token_layout.patches].mean(1)
        torch.testing.assert_close(mean + constant_of(model, 3), logits[:, 3], **CLOSE)
    else:
        assert model.cfg.pool == "cls_and_dist"
        sums = [
            (normed.sum(0) * weight + model.ln_final.bias)[:, token] @ head.weight[3] + head.bias[3]
            for token, head in ((0, model.head), (1, model.head_dist))
        ]
        torch.testing.assert_close(sum(sums) / 2, logits[:, 3], **CLOSE)


NAMES = ["cat, tabby", "dog", "fish", "bird", "ant", "bee", "fly"]


def test_classes_are_given_by_index_name_or_tensor(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("no_final_norm"), class_names=NAMES)
    cache = cached(model, images)
    parts = cache.decompose_resid()
    scores = {index: parts @ model.W_U[:, index] for index in range(7)}  # no norm: the plain product
    for given, index in ((5, 5), ("bee", 5), ("tabby", 0), ("CAT, tabby", 0), (torch.tensor(4), 4)):
        torch.testing.assert_close(cache.logit_attrs(parts, given), scores[index], **CLOSE)
    each = cache.logit_attrs(parts, torch.tensor([6, 1]))
    torch.testing.assert_close(each, torch.stack([scores[6][:, 0], scores[1][:, 1]], dim=1), **CLOSE)
    against = cache.logit_attrs(parts, "dog", incorrect_tokens="fly")
    torch.testing.assert_close(against, scores[1] - scores[6], **CLOSE)
    against = cache.logit_attrs(parts, torch.tensor([6, 1]), incorrect_tokens=torch.tensor([2, 3]))
    torch.testing.assert_close(
        against, torch.stack([scores[6][:, 0] - scores[2][:, 0], scores[1][:, 1] - scores[3][:, 1]], dim=1), **CLOSE
    )
    with pytest.raises(ValueError, match="tokens and incorrect_tokens must have the same shape"):
        cache.logit_attrs(parts, torch.tensor([6, 1]), incorrect_tokens=3)
    with pytest.raises(ValueError, match="no class is called 'beee' among 7 classes; did you mean 'bee'"):
        cache.logit_attrs(parts, "beee")


def test_attributions_of_some_tokens_and_images(model: HookedViT, cache: ViTActivationCache) -> None:
    if model.cfg.pool == "attention":
        return
    parts = cache.decompose_resid()
    whole = cache.logit_attrs(parts, 2)
    torch.testing.assert_close(cache.logit_attrs(parts[:, :, 4], 2, pos_slice=4), whole[:, :, 4])
    torch.testing.assert_close(cache.logit_attrs(parts[:, :, 1:6], 2, pos_slice=(1, 6)), whole[:, :, 1:6])
    torch.testing.assert_close(cache.logit_attrs(parts, 2, batch_slice=1), whole[:, 1])
    torch.testing.assert_close(cache.logit_attrs(parts[:, 1], 2, batch_slice=1, has_batch_dim=False), whole[:, 1])


# ---------------------------------------------------------------- caches of one image, of some tokens, of kept tokens

QUESTIONS: dict[str, Callable[[ViTActivationCache], Tensor]] = {
    "accumulated": lambda cache: cache.accumulated_resid(apply_ln=True),
    "decomposed": lambda cache: cache.decompose_resid(apply_ln=True),
    "heads": lambda cache: cache.stack_head_results(apply_ln=True),
    "neurons": lambda cache: cache.stack_neuron_results(2),
    "neurons, normed and projected": lambda cache: cache.stack_neuron_results(
        3, apply_ln=True, project_output_onto=torch.linspace(-1, 1, 24)
    ),
    "everything": lambda cache: cache.get_full_resid_decomposition(apply_ln=True),
    "classes": lambda cache: cache.logit_attrs(
        cache.decompose_resid(), 3, has_batch_dim=cache.has_batch_dim
    ) if cache.model.cfg.pool != "attention" else cache.decompose_resid(),
}  # fmt: skip


def test_a_cache_of_one_image_agrees_with_the_whole_cache(
    model: HookedViT, cache: ViTActivationCache, images: Tensor
) -> None:
    bare = cached(model, images[1:], remove_batch_dim=True)
    removed = cached(model, images[1:]).remove_batch_dim()
    alone, listed = cache.apply_slice_to_batch_dim(1), cache.apply_slice_to_batch_dim([1])
    assert [single.has_batch_dim for single in (bare, removed, alone, listed)] == [False, False, False, True]
    for question, ask in QUESTIONS.items():
        whole = ask(cache)
        for single in (bare, removed, alone):
            torch.testing.assert_close(ask(single), whole[:, 1], **CLOSE, msg=question)
        torch.testing.assert_close(ask(listed), whole[:, [1]], **CLOSE, msg=question)


@pytest.mark.parametrize("pos_slice", [(2, 7), Slice(5)], ids=str)
def test_a_cache_of_some_tokens_agrees_with_the_whole_cache(
    model: HookedViT, cache: ViTActivationCache, images: Tensor, pos_slice: object
) -> None:
    some, index = cached(model, images, pos_slice=pos_slice), Slice.unwrap(pos_slice).slice
    for question, ask in QUESTIONS.items():
        torch.testing.assert_close(ask(some), ask(cache)[:, :, index], **CLOSE, msg=question)


def test_a_cache_of_kept_tokens_decomposes_their_stream(model: HookedViT, images: Tensor) -> None:
    mask = torch.ones(2, model.cfg.n_ctx, dtype=torch.bool)
    mask[:, -3] = mask[1, -5] = False
    kept = KeptTokens.from_mask(mask, model.token_layout)
    with torch.no_grad():
        logits, cache = model.run_with_cache(images, token_mask=mask)
    parts, labels = cache.decompose_resid(return_labels=True)
    assert labels[:2] == ["tokens", "0_attn_out"]
    torch.testing.assert_close(parts.sum(0), cache["resid_post", 2], **CLOSE)
    parts = cache.get_full_resid_decomposition()
    torch.testing.assert_close(parts.sum(0), cache["resid_post", 2], rtol=1e-3, atol=1e-4)
    if model.cfg.pool == "avg":
        whole = cache.logit_attrs(parts, 3).sum(0)
        for image in range(2):
            mean = whole[image, kept.is_patch[image]].mean()
            torch.testing.assert_close(mean + constant_of(model, 3), logits[image, 3], **CLOSE)


# ---------------------------------------------------------------- what cannot be asked


def test_a_post_norm_needs_its_scale_in_the_cache(images: Tensor) -> None:
    cache = cached(ported("post_norm"), images, names_filter=["z", "resid_post"])
    with pytest.raises(KeyError, match=re.escape("blocks.0.ln1.hook_scale")):
        cache.stack_head_results()


def test_a_norm_after_an_attention_pool_cannot_be_applied_to_the_stream(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls", **FURTHER["norm_after_attention_pool"]))
    cache = cached(model, images)
    for ask in (lambda: cache.apply_ln_to_stack(cache.decompose_resid()),
                lambda: cache.accumulated_resid(apply_ln=True),
                lambda: cache.stack_neuron_results(3, apply_ln=True, project_output_onto=torch.ones(24))):  # fmt: skip
        with pytest.raises(ValueError, match="the final norm comes after the attention pool"):
            ask()
    torch.testing.assert_close(cache.decompose_resid().sum(0), cache["resid_post", 2], **CLOSE)


def test_an_rms_norm_of_pooled_tokens_does_not_centre(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls", **FURTHER["rms_norm_after_pool"]))
    with torch.no_grad():
        logits, cache = model.run_with_cache(images)
    whole = cache.logit_attrs(cache.get_full_resid_decomposition(), 4).sum(0)
    patches = whole[:, model.token_layout.patches]
    torch.testing.assert_close(patches.mean(1) + model.b_U[4], logits[:, 4], **CLOSE)
    pooled = cache["resid_post", 2][:, model.token_layout.patches].mean(1)
    expected = pooled / (pooled.square().mean(-1, keepdim=True) + model.cfg.final_norm.eps).sqrt()
    torch.testing.assert_close(
        patches.mean(1), einsum(expected * model.ln_final.weight, model.W_U[:, 4], "image d, d -> image"), **CLOSE
    )


def test_attribution_is_refused_after_max_pooling_but_decomposition_works(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls", **FURTHER["max"]))
    cache = cached(model, images)
    with pytest.raises(ValueError, match="a head after max pooling does not read the stream linearly"):
        cache.logit_attrs(cache.decompose_resid(), 1)
    torch.testing.assert_close(cache.decompose_resid().sum(0), cache["resid_post", 2], **CLOSE)


def test_the_token_axis_of_every_hook_point(model: HookedViT, images: Tensor) -> None:
    cache = cached(model, images, names_filter=model.hook_names())
    for name, activation in cache.items():
        axis = token_axis(name, model.cfg)
        if axis is not None:
            assert activation.shape[axis] == model.cfg.n_ctx, name
        elif not name.startswith("attn_pool."):
            assert model.cfg.n_ctx not in activation.shape[1:] or model.token_layout.n_prefix == 0, name


def test_a_missing_activation_suggests_the_nearest_names(images: Tensor) -> None:
    _, cache = ported("cls").run_with_cache(images, names_filter=["resid_post", "hook_logits"])
    expected = "'blocks.1.hook_resid_pre' is not among the 4 names of the cache; nearest: blocks.1.hook_resid_post"
    with pytest.raises(KeyError, match=re.escape(expected)):
        cache["resid_pre", 1]
    with pytest.raises(KeyError, match=re.escape("'attn.hook_z' is not among the 4 names of the cache\"")):
        cache["z"]


def test_a_required_activation_that_is_missing_is_named(images: Tensor) -> None:
    model = ported("cls")
    _, cache = model.run_with_cache(images, names_filter=["z", "hook_logits"])
    cache.require(model.hook_names("z"), how="'z'")
    message = "the cache lacks 'blocks.1.attn.hook_v': run `model.run_with_cache(images, names_filter='v')`"
    with pytest.raises(ValueError, match=re.escape(message)):
        cache.require(["blocks.1.attn.hook_z", "blocks.1.attn.hook_v"], how="'v'")
    message = "the cache lacks 'blocks.0.attn.hook_v' and 2 more, which this test reads: run `model.run"
    with pytest.raises(ValueError, match=re.escape(message)):
        cache.require(model.hook_names("v"), how="'v'", reader="this test")

"""Projection follows its definition in every kind of model and with chunks of any size."""

import math
from typing import Any

import pytest
import torch
from conftest import make_timm
from torch import Tensor

from analyses.projection import STREAMS, Projection, class_ranks, project, stream_names
from hooked_vit import HookedViT, ViTActivationCache

LABELS = torch.tensor([5, 0])


def run(kind: str, images: Tensor, names=None, **changes: object) -> tuple[HookedViT, ViTActivationCache]:
    model = HookedViT.from_timm(make_timm(kind, **changes))
    return model, model.run_with_cache(images, names_filter=names)[1]


def vectors_of(model: HookedViT, cache: ViTActivationCache, stream: str, layer: int) -> Tensor:
    """What a stream is at a layer, with the definition of a head's result written out."""
    if stream != "result":
        return cache[f"blocks.{layer}.hook_{stream}"]
    block, z = model.blocks[layer], cache[f"blocks.{layer}.attn.hook_z"]
    of_heads = [z[:, :, head] @ block.attn.W_O[head] for head in range(3)]
    if model.cfg.post_norm:
        scale = cache[f"blocks.{layer}.ln1.hook_scale"]
        of_heads = [(one - one.mean(-1, keepdim=True)) / scale * block.ln1.weight for one in of_heads]
    elif block.ls1 is not None:
        of_heads = [one * block.ls1 for one in of_heads]
    return torch.stack(of_heads, dim=2)


def assert_equals_loop(p: Projection, layer: int, class_logits: Tensor, k: int) -> None:
    """Count and sort, one vector at a time."""
    assert p.rank is not None
    assert p.label_logit is not None
    place = p.layers.index(layer)
    for at in torch.cartesian_prod(*(torch.arange(n) for n in class_logits.shape[:-1])).tolist():
        logits, label, where = class_logits[tuple(at)].tolist(), int(LABELS[at[0]]), (place, *at)
        rank = sum(1 for one in logits if one > logits[label])
        best = sorted(range(len(logits)), key=lambda label: -logits[label])[:k]
        assert int(p.rank[where]) == rank
        assert math.isclose(p.label_logit[where], logits[label], rel_tol=1e-4, abs_tol=1e-5)
        assert p.top_classes[where].tolist() == best
        torch.testing.assert_close(p.top_logits[where], class_logits[tuple(at)][best], rtol=1e-4, atol=1e-5)


def test_ranks_count_what_is_strictly_greater() -> None:
    logits = torch.tensor([[3.0, 1.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0], [-1.0, 4.0, 5.0, 6.0]])
    assert class_ranks(logits, torch.tensor([3, 2, 0])).tolist() == [2, 0, 3]
    assert class_ranks(logits[:, None], torch.tensor([[0], [0], [1]])).tolist() == [[0], [0], [2]]


@pytest.mark.parametrize("stream", STREAMS)
def test_each_stream_is_projected_as_a_loop_does_it(kind: str, stream: str, images: Tensor) -> None:
    model, cache = run(kind, images)
    if model.cfg.parallel_attn_mlp and stream == "resid_mid":
        with pytest.raises(ValueError, match="this model has no 'hook_resid_mid': attention and MLP of a block both"):
            project(model, cache, stream, LABELS, k=3)
        return
    p = project(model, cache, stream, LABELS, k=3)
    axes = (3, 2, model.token_layout.n_tokens) + ((model.cfg.n_heads,) if stream == "result" else ())
    assert p.rank.shape == p.label_logit.shape == axes
    assert p.top_classes.shape == p.top_logits.shape == (*axes, 3)
    for layer in range(3):
        assert_equals_loop(p, layer, model.class_logits(vectors_of(model, cache, stream, layer)), k=3)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_the_formula(images: Tensor, normalise: bool, bias: bool) -> None:
    """p = E · norm(x) + b, symbol by symbol."""
    model, cache = run("cls", images)
    p = project(model, cache, "mlp_out", LABELS, k=2, normalise=normalise, bias=bias)
    norm, E, b = model.ln_final, model.head.weight, model.head.bias
    for layer in range(3):
        x = cache["mlp_out", layer]
        if normalise:
            deviation = (x.var(-1, correction=0, keepdim=True) + norm.cfg.eps).sqrt()
            x = (x - x.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias
        assert_equals_loop(p, layer, torch.einsum("cd,btd->btc", E, x) + (b if bias else 0), k=2)


@pytest.mark.parametrize(("stream", "norm"), [("attn_out", "ln1"), ("mlp_out", "ln2")])
def test_sublayer_norm_applies_the_blocks_own_norm_first(images: Tensor, stream: str, norm: str) -> None:
    model, cache = run("gap_registers_layerscale", images)
    p = project(model, cache, stream, LABELS, k=3, sublayer_norm=True)
    for layer in range(3):
        normed = getattr(model.blocks[layer], norm)(cache[stream, layer])
        assert_equals_loop(p, layer, model.class_logits(normed), k=3)
    assert not torch.equal(p.label_logit, project(model, cache, stream, LABELS).label_logit)


def test_at_the_readout_the_projection_is_the_models_output(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    logits, cache = model.run_with_cache(images)
    p = project(model, cache, labels=LABELS, k=7)
    torch.testing.assert_close(p.top_logits[-1, :, model.token_layout.cls], logits.sort(descending=True).values)
    assert torch.equal(p.rank[-1, :, model.token_layout.cls], class_ranks(logits, LABELS))


def test_head_results_are_the_same_cached_or_computed(kind: str, images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm(kind))
    computed = project(model, model.run_with_cache(images, names_filter=stream_names(model.cfg, "result"))[1], "result")
    cached = project(model, model.run_with_cache(images, names_filter="result")[1], "result")
    torch.testing.assert_close(computed.top_logits, cached.top_logits)


@pytest.mark.parametrize("stream", ["resid_post", "result"])
def test_chunks_change_nothing(kind: str, stream: str, images: Tensor) -> None:
    model, cache = run(kind, images)
    whole, parts = project(model, cache, stream, LABELS), project(model, cache, stream, LABELS, chunk_size=5)
    assert torch.equal(whole.rank, parts.rank)
    assert torch.equal(whole.top_classes, parts.top_classes)
    torch.testing.assert_close(whole.label_logit, parts.label_logit)
    torch.testing.assert_close(whole.top_logits, parts.top_logits)


def test_no_more_than_a_chunk_of_logits_exists(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cache = run("cls", images)
    sizes, class_logits = [], model.class_logits
    monkeypatch.setattr(model, "class_logits", lambda x, *rest: sizes.append(len(x)) or class_logits(x, *rest))
    project(model, cache, labels=LABELS, chunk_size=7)
    assert max(sizes) == 7
    assert sum(sizes) == 3 * 2 * model.token_layout.n_tokens


def test_layers_may_be_counted_from_either_end(images: Tensor) -> None:
    model, cache = run("cls", images)
    everything, some = project(model, cache, labels=LABELS), project(model, cache, labels=LABELS, layers=[-1, 0])
    assert some.layers == (2, 0)
    assert torch.equal(some.rank, everything.rank[[2, 0]])
    model, cache = run("cls", images, names=stream_names(model.cfg, "attn_out", [1]))
    assert project(model, cache, "attn_out", layers=[1]).top_logits.shape == (1, 2, 13, 5)


def test_ranks_and_top_classes_are_optional(images: Tensor) -> None:
    model, cache = run("cls", images)
    assert project(model, cache).rank is None
    assert project(model, cache).label_logit is None
    assert project(model, cache, labels=LABELS, k=0).top_classes.shape == (3, 2, 13, 0)
    one, three = project(model, cache, k=1), project(model, cache, k=3)
    assert torch.equal(one.top_classes[..., 0], three.top_classes[..., 0])


def test_a_cache_without_batch_axis_is_a_batch_of_one(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    alone = model.run_with_cache(images[1:], remove_batch_dim=True)[1]
    batched = model.run_with_cache(images[1:])[1]
    for stream in STREAMS:
        of_alone, of_batched = (project(model, cache, stream, LABELS[1:]) for cache in (alone, batched))
        torch.testing.assert_close(of_alone.label_logit, of_batched.label_logit)


def test_dropped_tokens_are_not_projected(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    keep = torch.ones(2, 13, dtype=torch.bool)
    keep[:, 3:7] = False
    cache = model.run_with_cache(images, token_mask=keep)[1]
    assert project(model, cache, labels=LABELS).rank.shape == (3, 2, 9)


def test_ranks_are_exact_beyond_bfloat16s_whole_numbers(images: Tensor) -> None:
    model, cache = run("cls", images, num_classes=700)
    model.to(torch.bfloat16)
    cache = model.run_with_cache(images.bfloat16(), names_filter="resid_post")[1]
    worst = model.class_logits(cache["resid_post", 0])[:, 4].argmin(-1)
    p = project(model, cache, labels=worst, layers=[0])
    assert p.label_logit.dtype == torch.bfloat16
    expected = class_ranks(model.class_logits(cache["resid_post", 0])[:, 4], worst)
    assert torch.equal(p.rank[0, :, 4], expected)
    assert int(expected.min()) > 650


def test_cache_and_graph_are_unchanged(images: Tensor) -> None:
    model, cache = run("cls", images)
    before = {name: activation.clone() for name, activation in cache.items()}
    p = project(model, cache, labels=LABELS)
    assert not p.label_logit.requires_grad
    assert all(torch.equal(cache[name], activation) for name, activation in before.items())


@pytest.mark.usefixtures("bad_input")
class TestErrors:
    def test_unknown_stream_lists_the_streams(self, images: Tensor) -> None:
        model, cache = run("cls", images)
        with pytest.raises(ValueError, match="unknown stream 'resid': expected one of 'resid_pre', 'resid_mid'"):
            project(model, cache, "resid")

    def test_missing_hook_points_name_the_filter(self, images: Tensor) -> None:
        model, cache = run("cls", images, names="resid_post")
        with pytest.raises(ValueError, match=r"lacks 'blocks.0.hook_attn_out' and 2 more.*stream_names") as error:
            project(model, cache, "attn_out")
        assert "names_filter=stream_names(model.cfg, 'attn_out')" in str(error.value)
        with pytest.raises(ValueError, match=r"lacks 'blocks.0.attn.hook_z' and 2 more"):
            project(model, cache, "result")
        with pytest.raises(ValueError, match=r"lacks 'blocks.1.hook_resid_pre', which"):
            project(model, cache, "resid_pre", layers=[1])

    @pytest.mark.parametrize("labels", [torch.tensor([1]), torch.tensor([[1], [2]]), torch.tensor(1)])
    def test_labels_of_another_shape(self, images: Tensor, labels: Tensor) -> None:
        model, cache = run("cls", images)
        with pytest.raises(ValueError, match=r"a class index for each image, \[2\], got shape"):
            project(model, cache, labels=labels)

    @pytest.mark.parametrize("labels", [torch.tensor([0, 7]), torch.tensor([-1, 0]), torch.tensor([0.0, 1.0])])
    def test_labels_that_are_not_classes(self, images: Tensor, labels: Tensor) -> None:
        model, cache = run("cls", images)
        with pytest.raises(ValueError, match="class indices from 0 to 6"):
            project(model, cache, labels=labels)

    @pytest.mark.parametrize("labels", [2, "class 2", [0, 1]])
    def test_labels_that_are_no_tensor(self, images: Tensor, labels: Any) -> None:
        model, cache = run("cls", images)
        with pytest.raises(ValueError, match=r"labels must be a tensor with a class index for each image, \[2\], got "):
            project(model, cache, labels=labels)

    def test_labels_of_class_ranks(self) -> None:
        with pytest.raises(ValueError, match=r"labels must be of shape \(2, 3\).*got \(2,\)"):
            class_ranks(torch.zeros(2, 3, 4), torch.tensor([0, 1]))

    @pytest.mark.parametrize("k", [-1, 8])
    def test_more_top_classes_than_there_are(self, images: Tensor, k: int) -> None:
        model, cache = run("cls", images)
        with pytest.raises(ValueError, match=f"k must be from 0 to the number of classes, 7, got {k}"):
            project(model, cache, k=k)

    @pytest.mark.parametrize("layers", [[3], [-4], []])
    def test_layers_that_the_model_does_not_have(self, images: Tensor, layers: list[int]) -> None:
        model, cache = run("cls", images)
        with pytest.raises(ValueError, match="expected layers from 0 to 2"):
            project(model, cache, layers=layers)

    @pytest.mark.parametrize("chunk_size", [0, -3])
    def test_empty_chunks(self, images: Tensor, chunk_size: int) -> None:
        model, cache = run("cls", images)
        with pytest.raises(ValueError, match="chunk_size must be at least 1"):
            project(model, cache, chunk_size=chunk_size)

    def test_sublayer_norm_where_it_has_no_meaning(self, images: Tensor) -> None:
        model, cache = run("cls", images)
        with pytest.raises(ValueError, match="'attn_out' and 'mlp_out', not to 'resid_post'"):
            project(model, cache, sublayer_norm=True)
        model, cache = run("post_norm", images)
        with pytest.raises(ValueError, match="applies to pre-norm blocks"):
            project(model, cache, "attn_out", sublayer_norm=True)

    def test_a_model_without_classes(self, images: Tensor) -> None:
        model, cache = run("cls", images, num_classes=0)
        with pytest.raises(ValueError, match="with_class_embeddings"):
            project(model, cache)

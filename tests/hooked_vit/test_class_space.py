"""Class embedding space: projections compared with timm's own head, directions, other unembeddings, no classes."""

import copy
import re

import pytest
import torch
from conftest import make_timm, original, ported
from torch import Tensor, nn

from hooked_vit import HookedViT, class_space
from hooked_vit.components.norm import Norm

# besides the kinds of `make_timm`: heads that read the stream in other ways
HEADS = {
    "max": {"global_pool": "max", "fc_norm": False},
    "avgmax": {"global_pool": "avgmax", "fc_norm": True},
    "map_fc_norm": {"class_token": False, "global_pool": "map", "fc_norm": True, "mlp_ratio": 3.0},
    "include_prefix": {"global_pool": "avg", "pool_include_prefix": True, "reg_tokens": 2},
    "head_without_norm": {"class_token": False, "global_pool": "avg", "final_norm": False},
}


def slow_class_logits(source: nn.Module, x: Tensor, normalise: bool, bias: bool) -> Tensor:
    """timm's own norm, pool and head on each vector as if it were the only token."""
    rows = []
    for vector in x.reshape(-1, x.shape[-1]):
        token = vector[None, None]
        if normalise:
            token = source.norm(token)
        if getattr(source, "attn_pool", None) is not None:
            token = source.attn_pool(token)
        pooled = token.reshape(1, -1)
        if normalise:
            pooled = source.fc_norm(pooled)
        heads = [source.head, source.head_dist] if hasattr(source, "head_dist") else [source.head]
        logits = [pooled @ head.weight.T + (head.bias if bias else 0) for head in heads]
        rows.append(sum(logits)[0] / len(heads))
    return torch.stack(rows).reshape(*x.shape[:-1], -1)


@pytest.fixture
def vectors() -> Tensor:
    """Some vectors of the stream, with leading axes of their own."""
    return 2 * torch.randn(2, 3, 4, 24, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
def test_projection_is_timms_head_on_a_single_token(kind: str, vectors: Tensor, normalise: bool, bias: bool) -> None:
    source, model = original(kind), ported(kind)
    expected = slow_class_logits(source, vectors, normalise, bias)
    assert expected.shape == (2, 3, 4, 7)
    torch.testing.assert_close(model.class_logits(vectors, normalise, bias), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.class_logits(vectors[0, 0, 0], normalise, bias), expected[0, 0, 0])


@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("normalise", [True, False])
def test_projection_for_other_heads(head: str, vectors: Tensor, normalise: bool) -> None:
    source = make_timm("cls", **HEADS[head])
    model = HookedViT.from_timm(source)
    expected = slow_class_logits(source, vectors, normalise, bias=True)
    torch.testing.assert_close(model.class_logits(vectors, normalise), expected, rtol=1e-4, atol=1e-5)


def test_the_projection_of_the_readout_is_the_logit(kind: str, images: Tensor) -> None:
    model = ported(kind)
    logits, cache = model.run_with_cache(images)
    if model.cfg.pool == "cls":
        read = cache["resid_post", -1][:, 0]
        torch.testing.assert_close(model.class_logits(read), logits, rtol=1e-4, atol=1e-5)
    elif model.cfg.pool == "avg" and model.cfg.norm_after_pool:
        read = cache["resid_post", -1][:, model.token_layout.patches].mean(1)
        torch.testing.assert_close(model.class_logits(read), logits, rtol=1e-4, atol=1e-5)
    elif model.cfg.pool == "avg":
        each = model.class_logits(cache["resid_post", -1][:, model.token_layout.patches])
        torch.testing.assert_close(each.mean(1), logits, rtol=1e-4, atol=1e-5)
    elif model.cfg.pool == "cls_and_dist":
        both = cache["resid_post", -1][:, :2].mean(1)
        assert (model.class_logits(both) - logits).abs().max() > 1e-3, "two heads read two tokens"
        halves = (cache["hook_pooled"] @ model.head.weight.T, cache["hook_pooled_dist"] @ model.head_dist.weight.T)
        torch.testing.assert_close(sum(halves) / 2 + model.b_U, logits, rtol=1e-4, atol=1e-5)
    else:
        assert model.cfg.pool == "attention"
        # a register, which the pool leaves out, and one patch
        one_patch, keep = cache["resid_post", -1][:, :2], torch.arange(model.cfg.n_ctx).expand(2, -1) < 2
        torch.testing.assert_close(
            model.class_logits(one_patch[:, 1]),
            model(one_patch, start_at_layer=3, token_mask=keep),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("kind_name", ["cls", "map", "post_norm", "distilled"])
def test_chunks_change_nothing(kind_name: str, vectors: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = HookedViT.from_timm(make_timm(kind_name))
    whole = model.class_logits(vectors)
    sizes = []
    norm, fused = model.ln_final, Norm.fused
    monkeypatch.setattr(Norm, "fused", lambda self, x: (self is norm and sizes.append(len(x))) or fused(self, x))
    widest = max(24, 7, model.cfg.pool_d_mlp)
    monkeypatch.setattr(class_space, "CHUNK_ELEMENTS", 5 * widest + 1)
    torch.testing.assert_close(model.class_logits(vectors), whole, rtol=1e-5, atol=1e-6)
    assert sizes == [5, 5, 5, 5, 4]
    sizes.clear()
    monkeypatch.setattr(class_space, "CHUNK_ELEMENTS", 1)
    torch.testing.assert_close(model.class_logits(vectors), whole, rtol=1e-5, atol=1e-6)
    assert sizes == [1] * 24


def test_an_empty_batch_of_vectors_has_no_logits() -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    assert model.class_logits(torch.zeros(2, 0, 24)).shape == (2, 0, 7)


def test_gradients_flow_through_the_projection(vectors: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls", final_norm=False))
    vectors.requires_grad_()
    (gradient,) = torch.autograd.grad(model.class_logits(vectors)[..., 3].sum(), vectors)
    torch.testing.assert_close(gradient, model.W_U[:, 3].expand_as(vectors))


@pytest.mark.usefixtures("bad_input")
def test_vectors_of_another_width_are_refused() -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    with pytest.raises(ValueError, match=re.escape("expected vectors of width d_model = 24, got shape (3, 8)")):
        model.class_logits(torch.zeros(3, 8))


def test_class_embeddings_are_columns_and_a_view() -> None:
    source = make_timm("cls")
    model = HookedViT.from_timm(source)
    assert model.W_U.shape == (24, 7)
    assert torch.equal(model.W_U[:, 5], source.head.weight[5])
    assert model.W_U.untyped_storage().data_ptr() == model.head.weight.untyped_storage().data_ptr()
    assert torch.equal(model.b_U, source.head.bias)
    distilled = make_timm("distilled")
    model = HookedViT.from_timm(distilled)
    torch.testing.assert_close(model.W_U[:, 5], (distilled.head.weight[5] + distilled.head_dist.weight[5]) / 2)
    torch.testing.assert_close(model.b_U, (distilled.head.bias + distilled.head_dist.bias) / 2)


# ---------------------------------------------------------------- directions


def test_a_direction_gives_the_logit_of_a_normed_stream(kind: str, images: Tensor) -> None:
    model = ported(kind)
    if model.cfg.pool == "attention":
        message = "a head after attention pooling does not read the stream linearly, so no class has a direction"
        with pytest.raises(ValueError, match=message):
            model.tokens_to_residual_directions(3)
        return
    directions = model.tokens_to_residual_directions(torch.tensor([4, 1]))
    assert directions.shape == (2, 24)
    weight = None if model.ln_final is None else model.ln_final.weight
    for index, label in enumerate((4, 1)):
        expected = model.W_U[:, label] if weight is None else torch.stack(
            [model.W_U[m, label] * weight[m] for m in range(24)]
        )  # fmt: skip
        assert torch.equal(directions[index], expected)
        assert torch.equal(model.tokens_to_residual_directions(label), expected)


def test_directions_of_names_and_indices_of_any_shape() -> None:
    names = ["cat, tabby", "dog", "fish", "bird", "ant", "bee", "fly"]
    model = HookedViT.from_timm(make_timm("cls"), class_names=names)
    assert torch.equal(model.tokens_to_residual_directions("tabby"), model.tokens_to_residual_directions(0))
    assert model.tokens_to_residual_directions(torch.tensor([[1, 2, 3]])).shape == (1, 3, 24)
    assert model.to_single_token("bee") == model.class_index("bee") == 5


def test_an_unknown_class_is_refused() -> None:
    model = HookedViT.from_timm(make_timm("cls"), class_names=[f"class {i}" for i in range(7)])
    for index in (7, -1):
        message = f"class index {index} is out of range: the model has classes 0 to 6"
        with pytest.raises(ValueError, match=message):
            model.class_index(index)
    with pytest.raises(ValueError, match="no class is called 'klass 3' among 7 classes; did you mean 'class 3'"):
        model.class_index("klass 3")


def test_a_model_with_classes_gives_its_head() -> None:
    model = ported("cls")
    assert model.require_classes() is model.head


def test_one_class_per_image_or_for_all_images() -> None:
    model = HookedViT.from_timm(make_timm("cls"), class_names=list("abcdefg"))
    assert model.class_indices(torch.tensor([5, 1]), 2).tolist() == [5, 1]
    assert model.class_indices("c", 3).tolist() == model.class_indices(2, 3).tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="no class is called 'h' among 7 classes"):
        model.class_indices("h", 2)
    with pytest.raises(ValueError, match="class index 7 is out of range"):
        model.class_indices(7, 2)


def test_several_classes_per_image_if_allowed() -> None:
    model, several = ported("cls"), torch.tensor([[5, 0, 2], [1, 6, 2]])
    assert model.class_indices(several, 2, several=True).tolist() == several.tolist()
    assert model.class_indices(several[:, 0], 2, several=True).tolist() == [[5], [1]]
    assert model.class_indices(4, 2, several=True).tolist() == [[4], [4]]


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("classes", "several", "message"),
    [
        (torch.tensor([1]), False, "expected a class index for each image, [2], got shape (1,): for one class of"),
        (torch.tensor(1), False, "a class index for each image, [2], got shape ()"),
        (torch.tensor([[1], [2]]), False, "a class index for each image, [2], got shape (2, 1)"),
        (torch.ones(3, 2).long(), True, "a class index for each image, [2], or several, [2 chosen], got shape (3, 2)"),
        (torch.ones(2, 0).long(), True, "or several, [2 chosen], got shape (2, 0)"),
        (torch.tensor([7, 0]), False, "expected class indices from 0 to 6, got 0 to 7: `model.class_index(name)`"),
        (torch.tensor([-1, 0]), True, "expected class indices from 0 to 6, got -1 to 0"),
        (torch.tensor([1.0, 0.0]), False, "expected class indices from 0 to 6, got torch.float32"),
    ],
)
def test_indices_that_are_not_classes_are_refused(classes: Tensor, several: bool, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ported("cls").class_indices(classes, 2, several)


@pytest.mark.parametrize("pool", ["max", "avgmax"])
def test_no_class_has_a_direction_after_max_pooling(pool: str) -> None:
    model = HookedViT.from_timm(make_timm("cls", global_pool=pool))
    with pytest.raises(ValueError, match=f"a head after {pool} pooling does not read the stream linearly"):
        model.tokens_to_residual_directions(0)


# ---------------------------------------------------------------- other unembeddings


def test_another_unembedding_reads_the_same_features(kind: str, images: Tensor) -> None:
    model = ported(kind)
    before = model(images)
    W, b = torch.randn(24, 5), torch.randn(5)
    other = model.with_class_embeddings(W, b, class_names=list("abcde"))
    logits, cache = other.run_with_cache(images)
    pooled = cache["hook_pooled"]
    if model.cfg.pool == "cls_and_dist":
        pooled = (pooled + cache["hook_pooled_dist"]) / 2
    torch.testing.assert_close(logits, pooled @ W + b, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.run_with_cache(images)[1]["resid_post", -1], cache["resid_post", -1])
    assert (other.cfg.n_classes, other.class_names) == (5, tuple("abcde"))
    assert other.cfg.d_vocab == 5
    assert (model.cfg.n_classes, len(model.class_names)) == (7, 7)
    assert torch.equal(model(images), before)
    assert torch.equal(model.with_class_embeddings(W)(images), other.with_class_embeddings(W)(images))
    torch.testing.assert_close(model.with_class_embeddings(W)(images), logits - b, rtol=1e-4, atol=1e-5)


def test_only_the_other_weights_are_shared(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    W = torch.randn(24, 5)
    other = model.with_class_embeddings(W)
    others = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        if not name.startswith("head."):
            assert others[name].data_ptr() == parameter.data_ptr()
    with torch.no_grad():
        model.blocks[0].attn.W_V.mul_(2)
    assert torch.equal(other.blocks[0].attn.W_V, model.blocks[0].attn.W_V)
    with torch.no_grad():
        other.W_U.zero_()
    assert W.abs().max() > 0, "the caller's tensor is copied"
    same = model.with_class_embeddings(model.W_U)
    with torch.no_grad():
        same.W_U.zero_()
    assert model.W_U.abs().max() > 0
    seen: list[Tensor] = []
    with model.hooks(fwd_hooks=[("hook_embed", lambda x, hook: seen.append(x))]):
        other(images)
    assert not seen, "hooks are each model's own"


def test_moving_or_freezing_the_other_model_leaves_this_one(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    model.blocks[0].requires_grad_(False)
    before, trainable = model(images), [p.requires_grad for p in model.parameters()]
    other = model.with_class_embeddings(torch.randn(24, 5))
    assert not any(p.requires_grad for p in other.blocks[0].parameters()), "what is frozen stays frozen"
    assert all(p.requires_grad for p in other.blocks[1].parameters())
    assert [p.requires_grad for p in model.parameters()] == trainable
    other.requires_grad_(False)
    other.to(torch.bfloat16)
    assert [p.requires_grad for p in model.parameters()] == trainable
    assert model.cfg.dtype == model.embed.patch.weight.dtype == torch.float32
    assert torch.equal(model(images), before)


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("W", "b", "message"),
    [
        (torch.zeros(5, 24), None, "W must be [d_model n_classes] with d_model = 24, got (5, 24); pass W.T"),
        (torch.zeros(23, 5), None, "W must be [d_model n_classes] with d_model = 24, got (23, 5)"),
        (torch.zeros(24), None, "W must be [d_model n_classes] with d_model = 24, got (24,)"),
        (torch.zeros(24, 0), None, "W must be [d_model n_classes] with d_model = 24, got (24, 0)"),
        (torch.zeros(24, 5), torch.zeros(6), "b must have one number for each of the 5 classes, got (6,)"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(W: Tensor, b: Tensor | None, message: str, images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    before = model(images)
    with pytest.raises(ValueError, match=re.escape(message)):
        model.with_class_embeddings(W, b)
    with pytest.raises(ValueError, match="expected 5 class names, one for each class, got 2"):
        model.with_class_embeddings(torch.zeros(24, 5), class_names=["a", "b"])
    assert torch.equal(model(images), before)


@pytest.mark.parametrize("kind_name", ["cls", "map", "distilled", "post_norm"])
def test_a_model_without_classes_gives_features_or_an_error(kind_name: str, images: Tensor) -> None:
    source = make_timm(kind_name, num_classes=0)
    model = HookedViT.from_timm(source)
    torch.testing.assert_close(model(images), source(images), rtol=1e-4, atol=1e-5)
    for ask in (
        lambda: model.class_logits(torch.zeros(2, 24)),
        lambda: model.W_U,
        lambda: model.b_U,
        model.require_classes,
        lambda: model.class_indices(0, 2),
    ):
        with pytest.raises(ValueError, match=re.escape("add them with `model.with_class_embeddings(W, class_na")):
            ask()
    W = torch.randn(24, 5)
    with_classes = model.with_class_embeddings(W)
    torch.testing.assert_close(with_classes(images), model(images) @ W, rtol=1e-4, atol=1e-5)
    assert with_classes.class_logits(torch.zeros(2, 24)).shape == (2, 5)


def test_a_copy_of_a_model_is_independent(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    before = model(images)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.W_U.zero_()
    assert torch.equal(model(images), before)
    assert torch.equal(other(images), model.b_U.expand(2, 7))


@torch.no_grad()
def test_a_single_logit_becomes_two_classes(kind: str, images: Tensor) -> None:
    one = HookedViT.from_timm(make_timm(kind, num_classes=1))
    two = one.with_two_classes(["no", "yes"])
    logit, logits = one(images)[:, 0], two(images)
    torch.testing.assert_close(logits, torch.stack([torch.zeros_like(logit), logit], dim=1))
    torch.testing.assert_close(logits.softmax(-1)[:, 1], logit.sigmoid())
    vectors = torch.randn(5, one.cfg.d_model)
    torch.testing.assert_close(two.class_logits(vectors)[:, 1:], one.class_logits(vectors))
    assert torch.equal(two.W_U[:, 1:], one.W_U)
    assert not two.W_U[:, 0].any()
    assert not two.b_U[0].any()
    assert two.class_names == ("no", "yes")
    assert two.embed.patch.weight.data_ptr() == one.embed.patch.weight.data_ptr()
    assert one.cfg.n_classes == 1
    labels = torch.tensor([1, 0])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, labels.float())
    torch.testing.assert_close(two(images, return_type="loss", labels=labels), loss)


@pytest.mark.parametrize("kind", ["cls", "distilled"])
def test_the_heads_of_two_classes_are_kept_apart(kind: str, images: Tensor) -> None:
    one = HookedViT.from_timm(make_timm(kind, num_classes=1))
    names = "hook_logits_dist" if kind == "distilled" else "hook_logits"
    with torch.no_grad():
        (_, expected), (_, found) = (
            model.run_with_cache(images, names_filter=names) for model in (one, one.with_two_classes())
        )
    torch.testing.assert_close(found[names][:, 1:], expected[names])


def test_only_a_single_logit_is_split() -> None:
    with pytest.raises(ValueError, match="with_two_classes splits a single logit, this model has 7 classes"):
        ported("cls").with_two_classes()
    with pytest.raises(ValueError, match=r"this model has no classes \(n_classes is 0\)"):
        HookedViT.from_timm(make_timm("cls", num_classes=0)).with_two_classes()
    with pytest.raises(ValueError, match="expected 2 class names, one for each class, got 3"):
        HookedViT.from_timm(make_timm("cls", num_classes=1)).with_two_classes(["a", "b", "c"])

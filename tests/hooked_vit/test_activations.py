"""A cache of everything holds each thing once; what it computes when it is read is bitwise what the run had."""

import copy
import pickle

import pytest
import torch
from conftest import make_timm, ported
from torch import Tensor
from whole_caches import everything

from hooked_vit import HookedViT, ViTActivationCache
from hooked_vit.activations import Activations, Computed, Recipe, Versions

COMPUTED = ("hook_attn_scores", "hook_pattern", "hook_normalized", "hook_post", "hook_mid")


@pytest.fixture
def model(kind: str) -> HookedViT:
    """A model of each kind."""
    return ported(kind)


def computed_names(cache: ViTActivationCache) -> list[str]:
    """The entries that are computed when they are read."""
    return [name for name, entry in cache.cache_dict._entries.items() if isinstance(entry, Computed)]


# ---------------------------------------------------------------- a cache of everything


def test_every_entry_is_bitwise_that_of_a_cache_that_holds_it(model: HookedViT, images: Tensor) -> None:
    logits, cache = model.run_with_cache(images)
    expected = everything(model, images)
    assert list(cache) == list(expected)
    assert torch.equal(logits, model(images))
    for name, activation in expected.items():
        assert torch.equal(cache[name], activation), name
        assert not cache[name].requires_grad
    computed = computed_names(cache)
    assert all(name.endswith(COMPUTED) for name in computed)
    assert {"blocks.1.attn.hook_pattern", "blocks.1.attn.hook_attn_scores"} <= set(computed)
    norm = "ln1" if model.cfg.parallel_attn_mlp else "ln2"
    assert (f"blocks.1.{norm}.hook_normalized" in computed) != model.cfg.post_norm


def test_what_is_held_is_held_once(model: HookedViT, images: Tensor) -> None:
    _, cache = model.run_with_cache(images)
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in cache.cache_dict.held()}
    assert cache.nbytes == sum(held.values())
    assert cache.nbytes < 0.8 * sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                                      for t in everything(model, images).values()}.values())  # fmt: skip


@pytest.mark.parametrize("kind", ["cls", "swiglu_packed", "qk_norm", "distilled"])
def test_with_dropped_tokens_and_of_a_single_image(model: HookedViT, images: Tensor) -> None:
    mask = torch.ones(2, model.cfg.n_ctx, dtype=torch.bool)
    mask[0, -3:] = False
    _, cache = model.run_with_cache(images, token_mask=mask)
    for name, activation in everything(model, images, token_mask=mask).items():
        assert torch.equal(cache[name], activation), name
    _, cache = model.run_with_cache(images[:1], remove_batch_dim=True)
    for name, activation in everything(model, images[:1]).items():
        assert torch.equal(cache[name], activation[0]), name


@pytest.fixture(params=["edit", "live", "module"])
def edited(request: pytest.FixtureRequest) -> HookedViT:
    """A model in which something may write into activations."""
    model = HookedViT.from_timm(make_timm("cls"))
    if request.param == "edit":
        model.add_hook(("resid_mid", 1), lambda residual, hook: 2 * residual)
    elif request.param == "live":
        model.set_live_hook_points("pattern")
    else:
        model.blocks[1].mlp.register_forward_hook(lambda module, args, out: 2 * out)
    return model


def test_edited_runs_hold_everything(edited: HookedViT, images: Tensor) -> None:
    _, cache = edited.run_with_cache(images)
    assert type(cache.cache_dict) is dict
    with pytest.raises(ValueError, match=r"lean=True computes activations again without hooks, and a hook on "):
        edited.run_with_cache(images, lean=True)


def test_what_is_asked_for_is_held(images: Tensor) -> None:
    model = ported("cls")
    for options in ({"names_filter": "pattern"}, {"pos_slice": 0}, {"device": "cpu"}, {"return_cache_object": False}):
        _, cache = model.run_with_cache(images, **options)
        assert type(getattr(cache, "cache_dict", cache)) is dict


def test_a_slice_of_the_tokens_does_not_keep_the_others_alive(images: Tensor) -> None:
    _, cache = ported("cls").run_with_cache(images, names_filter=["resid_post", "q"], pos_slice=0)
    assert cache.nbytes == sum(tensor.nbytes for tensor in cache.values())


def test_later_changes_of_weights_do_not_reach_a_cache_of_everything(images: Tensor) -> None:
    for kind in ("cls", "qk_norm", "swiglu_packed"):
        model = HookedViT.from_timm(make_timm(kind))
        expected = everything(model, images)
        _, cache = model.run_with_cache(images)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        model.blocks[1].mlp.act = torch.tanh
        for name, activation in expected.items():
            assert torch.equal(cache[name], activation), name


def test_an_edit_of_what_an_entry_is_computed_from_is_noticed(images: Tensor) -> None:
    _, cache = ported("cls").run_with_cache(images)
    pattern = cache["pattern", 0].clone()
    cache["pattern", 0].zero_()  # of what is computed
    assert torch.equal(cache["pattern", 0], pattern)
    cache["q", 1].zero_()
    with pytest.raises(ValueError, match=r"'blocks\.1\.attn\.hook_pattern' is computed when it is read, and an act"):
        cache["pattern", 1]
    assert torch.equal(cache["pattern", 0], pattern)


def test_holding_everything_and_forgetting(images: Tensor) -> None:
    model = ported("cls")
    _, cache = model.run_with_cache(images)
    before = cache.nbytes
    _ = cache["post", 1]
    assert cache.nbytes == before + cache["post", 1].nbytes
    cache.drop_computed()
    assert cache.nbytes == before
    assert cache.hold_everything() is cache
    assert type(cache.cache_dict) is dict
    assert {name: tensor.sum() for name, tensor in cache.items()} == {
        name: tensor.sum() for name, tensor in everything(model, images).items()
    }
    cache.drop_computed()  # nothing to do
    assert len(cache) == len(everything(model, images))


def test_copies_and_files_hold_everything(images: Tensor) -> None:
    _, cache = ported("cls").run_with_cache(images)
    for other in (pickle.loads(pickle.dumps(cache.cache_dict)), copy.deepcopy(cache.cache_dict)):
        assert type(other) is dict
        assert torch.equal(other["blocks.1.mlp.hook_post"], cache["post", 1])


def test_under_autocast_and_in_inference_mode(images: Tensor) -> None:
    model = ported("qk_norm")
    with torch.autocast("cpu", torch.bfloat16):
        _, cache = model.run_with_cache(images)
        expected = everything(model, images)
    with torch.inference_mode():
        _, inference = model.run_with_cache(images)
    for name, activation in expected.items():
        assert cache[name].dtype == activation.dtype, name
        assert torch.equal(cache[name], activation), name
    for name, activation in everything(model, images).items():
        assert torch.equal(inference[name], activation), name


# ---------------------------------------------------------------- the parts


def test_a_recipe_does_not_follow_its_weights() -> None:
    x, weight = torch.arange(3.0), torch.ones(3)
    recipe = Recipe("x", torch.mul, [x], [weight])
    weight.zero_()
    assert torch.equal(recipe(), x)


def test_entries_are_set_removed_and_mapped() -> None:
    activations = Activations({"a": torch.ones(1), "b": Computed(lambda: torch.zeros(1))}, {"c": torch.ones(1)})
    doubled = activations.mapped(lambda x: 2 * x + 1)
    assert [doubled[name].item() for name in "abc"] == [3, 1, 3]
    assert "c" not in activations
    assert activations.offers("c")
    activations["b"] = torch.full((1,), 7.0)
    del activations["a"]
    assert dict(activations) == {"b": torch.full((1,), 7.0)}
    assert [doubled[name].item() for name in "ab"] == [3, 1]


def test_versions_see_moved_data() -> None:
    tensor = torch.zeros(2)
    versions = Versions([tensor, None])
    assert versions.edited() is None
    tensor.data = torch.zeros(2)
    assert versions.edited() is tensor

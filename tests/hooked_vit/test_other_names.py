"""Names of TransformerLens and timm: the error says what to use instead, and a module stays a module."""

import copy
import io
import pickle

import pytest
import torch
from conftest import ported

from hooked_vit import HookedViT
from hooked_vit.other_names import OTHER_NAMES

MODEL = ported("cls")


@pytest.mark.parametrize("name", sorted(OTHER_NAMES.keys() - {"W_pos", "W_E", "b_E"}))
def test_a_name_from_elsewhere_is_refused_with_what_to_use(name: str) -> None:
    with pytest.raises(AttributeError) as refusal:
        getattr(MODEL, name)
    assert str(refusal.value) == f"a HookedViT has no '{name}': {OTHER_NAMES[name]}"
    assert refusal.value.name == name
    assert refusal.value.obj is MODEL
    assert not hasattr(MODEL, name)
    assert getattr(MODEL, name, None) is None


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("to_tokens", "preprocess"),
        ("loss_fn", 'return_type="loss"'),
        ("W_E_pos", "W_pos"),
        ("to_string", "class_names"),
        ("get_token_position", "patch_token"),
        ("forward_features", "run_with_cache"),
        ("W_gate", "not gated"),
    ],
)
def test_the_error_names_ours(name: str, use: str) -> None:
    with pytest.raises(AttributeError, match=use):
        getattr(MODEL, name)


def test_what_the_errors_name_exists() -> None:
    code = [part for hint in OTHER_NAMES.values() for part in hint.split("`") if part.startswith("model.")]
    for path in (part.split("(")[0] for part in code):
        found = MODEL
        for name in path.split(".")[1:]:
            found = getattr(found, name.split("[")[0])
    points = {part for hint in OTHER_NAMES.values() for part in hint.split("'") if "hook_" in part and " " not in part}
    assert points
    assert points <= MODEL.hook_dict.keys()


def test_other_missing_names_are_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match=r"^'HookedViT' object has no attribute 'no_such_name'$"):
        _ = MODEL.no_such_name
    assert not hasattr(MODEL, "no_such_name")
    assert getattr(MODEL, "no_such_name", 3) == 3


def test_properties_of_other_architectures() -> None:
    assert MODEL.W_pos.shape == (13, 24)
    gated = ported("swiglu_packed")
    assert gated.W_gate.shape[0] == 3
    assert hasattr(gated, "b_gate")
    with pytest.raises(AttributeError, match="a HookedViT has no 'W_gate': the MLPs of this model are not gated"):
        _ = MODEL.W_gate


def test_modules_parameters_and_buffers_are_found() -> None:
    assert MODEL.blocks[0].attn is dict(MODEL.named_modules())["blocks.0.attn"]
    assert MODEL.get_submodule("ln_final") is MODEL.ln_final
    assert MODEL.head is not None


@torch.no_grad()
def test_copies_and_pickles_work() -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    images = torch.zeros(1, 3, 64, 64)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        copy.copy(model),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert torch.equal(other(images), model(images))
        with pytest.raises(AttributeError, match="preprocess"):
            _ = other.to_tokens
    # an object without attributes, as unpickling makes it first
    with pytest.raises(AttributeError, match="no attribute 'blocks'"):
        _ = HookedViT.__new__(HookedViT).blocks


def test_a_name_can_be_given_by_the_user() -> None:
    model = copy.deepcopy(MODEL)
    model.tokenizer = torch.nn.Identity()
    assert isinstance(model.tokenizer, torch.nn.Identity)


@torch.no_grad()
def test_unembed_is_the_head_without_its_norm(kind: str) -> None:
    model = ported(kind)
    x = torch.randn(2, 3, 24)
    torch.testing.assert_close(model.unembed(x), model.class_logits(x, normalise=False))
    if model.ln_final is not None and not model.cfg.norm_after_pool:
        torch.testing.assert_close(model.unembed(model.ln_final(x)), model.class_logits(x), rtol=1e-4, atol=1e-5)

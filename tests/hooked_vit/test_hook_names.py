"""Names of hook points, and the errors for unknown names."""

import re

import numpy as np
import pytest
from conftest import make_timm

from hooked_vit import HookedViT
from hooked_vit.hook_names import require_names, resolve_names

KNOWN = [
    "hook_embed", "blocks.0.ln1.hook_scale", "blocks.0.ln2.hook_scale", "blocks.0.attn.hook_q",
    "blocks.0.attn.hook_pattern", "blocks.0.attn.hook_attn_scores", "blocks.0.attn.hook_result",
    "blocks.0.hook_q_input", "blocks.0.hook_mlp_in", "blocks.0.mlp.hook_pre", "blocks.0.hook_resid_post",
    "blocks.1.attn.hook_pattern", "blocks.1.hook_resid_post", "ln_final.hook_scale", "hook_logits",
]  # fmt: skip


def resolve(names: object) -> list[str]:
    """The names among `KNOWN`, of a model of two layers."""
    return resolve_names(names, KNOWN, n_layers=2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("blocks.1.hook_resid_post", ["blocks.1.hook_resid_post"]),
        ("embed", ["hook_embed"]),
        ("pattern1", ["blocks.1.attn.hook_pattern"]),
        ("pre0", ["blocks.0.mlp.hook_pre"]),
        ("scale0ln2", ["blocks.0.ln2.hook_scale"]),
        ("scale", ["ln_final.hook_scale"]),
        ("resid_post", ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]),
        ("hook_resid_post", ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]),
        ("attn", ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]),
        ("query", ["blocks.0.attn.hook_q"]),
        ("attn_logits", ["blocks.0.attn.hook_attn_scores"]),
        (("resid_post", 1), ["blocks.1.hook_resid_post"]),
        (("resid_post", -2), ["blocks.0.hook_resid_post"]),
        (("attn", 1), ["blocks.1.attn.hook_pattern"]),
        (("scale", -2, "ln1"), ["blocks.0.ln1.hook_scale"]),
        (["hook_logits", "embed"], ["hook_embed", "hook_logits"]),
        (("hook_logits", "pattern"), ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern", "hook_logits"]),
        ([("pattern", 1), "pattern1"], ["blocks.1.attn.hook_pattern"]),
        (("pattern", np.int64(1)), ["blocks.1.attn.hook_pattern"]),
        (lambda name: name.startswith("blocks.1"), ["blocks.1.attn.hook_pattern", "blocks.1.hook_resid_post"]),
        (["result"], ["blocks.0.attn.hook_result"]),
    ],
)
def test_names_select_hook_points_in_the_models_order(names: object, expected: list[str]) -> None:
    assert resolve(names) == expected


def test_none_selects_all_except_those_on_demand() -> None:
    on_demand = {"blocks.0.attn.hook_result", "blocks.0.hook_q_input", "blocks.0.hook_mlp_in"}
    assert resolve(None) == [name for name in KNOWN if name not in on_demand]
    assert resolve_names(None, KNOWN, 2, on_demand=()) == KNOWN


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("blocks.0.attn.hook_patern", "unknown hook point 'blocks.0.attn.hook_patern'; did you mean "
         "'blocks.0.attn.hook_pattern' or"),
        ("logit", "unknown hook point 'logit'; did you mean 'hook_logits'"),
        ("wwwwwwwwwwwwwwwww", "unknown hook point 'wwwwwwwwwwwwwwwww'. `model.hook_names()` lists all 15."),
        ("resid_post2", "unknown hook point 'resid_post2'; did you mean 'blocks."),
        (("resid_post", 2), "no layer 2 for 'resid_post': the model has layers 0 to 1"),
        (("resid_post", -3), "no layer -3 for 'resid_post': the model has layers 0 to 1"),
        (("scale", 0), "unknown hook point ('scale', 0); did you mean 'blocks.0.ln"),
        ([], "the list of hook names is empty: name at least one, or pass None for everything"),
        (lambda name: False, "the names filter accepts none of the 15 hook points, such as 'hook_logits'"),
    ],
)  # fmt: skip
def test_unknown_names_suggest_known_names(names: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve(names)


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("names", [[3], 3.5])
def test_other_types_are_refused(names: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"expected a hook name|not iterable"):
        resolve(names)


def test_a_list_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown hook point 'pattrn'"):
        resolve(["embed", "pattrn"])


def test_a_model_lists_its_hook_points(kind: str) -> None:
    model = HookedViT.from_timm(make_timm(kind))
    assert model.hook_names() == list(model.hook_dict)
    assert "blocks.2.attn.hook_pattern" in model.hook_names()
    assert set(model.hook_names()) - set(model.hook_names(None)) == {
        f"blocks.{layer}.{name}"
        for layer in range(3)
        for name in ("attn.hook_result", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in")
    }


def test_missing_names_are_counted_and_the_first_is_named() -> None:
    held = {"hook_embed": 1, "hook_tokens": 2}
    require_names(["hook_tokens", "hook_embed"], held, "the cache", ": run the model")
    require_names([], held, "the cache", ": run the model")
    with pytest.raises(ValueError, match=r"^the cache lacks 'hook_pooled': run the model$"):
        require_names(["hook_embed", "hook_pooled"], held, "the cache", ": run the model")
    with pytest.raises(ValueError, match=r"^`means` lacks 'hook_pooled' and 1 more: compute it$"):
        require_names(["hook_pooled", "hook_logits"], held, "`means`", ": compute it")

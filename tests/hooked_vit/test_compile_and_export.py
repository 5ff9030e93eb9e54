"""A compiled model follows hooks attached later; an exported one takes any batch; weights always have gradients."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import traced_models
from conftest import make_timm
from torch import Tensor

from hooked_vit import HookedViT


@pytest.mark.parametrize("what", ["compiled", "exported"])
def test_hooks_act_when_compiled_and_any_batch_is_exported(what: str) -> None:
    script, root = traced_models.__file__, Path(traced_models.__file__).parents[1]
    env = {**os.environ, "JAXTYPING_DISABLE": "1", "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    result = subprocess.run([sys.executable, script, what], capture_output=True, text=True, timeout=300, env=env)
    assert result.returncode == 0, result.stderr[-3000:]


def test_a_model_made_in_inference_mode_has_gradients(images: Tensor) -> None:
    with torch.inference_mode():
        ported = HookedViT.from_timm(make_timm("cls"))
        embedded = HookedViT.from_pretrained("emoji-vit")
        probed = embedded.with_class_embeddings(embedded.W_U[:, :2], class_names=["a", "b"])
        folded = ported.fold_layer_norm()
    for model in (ported, folded):
        _, _, gradients = model.run_with_gradients(images, lambda logits: logits[:, 3], "resid_post")
        assert gradients["resid_post", 0].abs().max() > 0
    for model in (embedded, probed):
        model(torch.zeros(1, 3, 64, 64)).sum().backward()


def test_live_points_run_without_hooks(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = HookedViT.from_timm(make_timm("post_norm"))
    logits, ran = model(images), []
    kind = type(model.hook_tokens)
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda point, x: ran.append(point.name) or forward(point, x))
    model(images)
    assert {"blocks.0.attn.hook_pattern", "blocks.0.attn.hook_result"}.isdisjoint(ran)
    ran.clear()
    model.set_live_hook_points()
    torch.testing.assert_close(model(images), logits, rtol=1e-5, atol=1e-5)
    assert set(ran) == set(model.hook_dict)
    ran.clear()
    model.set_live_hook_points(live=False)
    assert torch.equal(model(images), logits)
    assert "blocks.0.attn.hook_pattern" not in ran


def test_an_edit_at_a_live_point_is_followed(images: Tensor, kind: str) -> None:
    """As tools make it that wrap a module's forward, past every hook."""
    model = HookedViT.from_timm(make_timm(kind))
    model.set_live_hook_points()
    plain = model(images)
    norm = "ln1" if model.cfg.parallel_attn_mlp else "ln2"
    for name in ("blocks.1.attn.hook_pattern", "blocks.0.attn.hook_result", f"blocks.1.{norm}.hook_scale"):
        point = model.hook_dict[name]
        point.forward = lambda x: 0.5 * x  # type: ignore[method-assign]
        assert not torch.allclose(model(images), plain, atol=1e-6), name
        del point.forward

"""Attribution of a logit: its parts sum to it exactly, and each is compared with TransformerLens or a slow loop."""

import pytest
import torch
from conftest import make_timm, ported
from torch import Tensor

from analyses.attribution import LogitAttribution, attribution_names, logit_attribution
from hooked_vit import HookedViT, ViTActivationCache

LINEAR = ("cls", "clip", "distilled", "dynamic", "gap_registers_layerscale", "inner_norms", "no_final_norm",
          "post_norm", "qk_norm", "swiglu_packed", "swiglu_rms")  # fmt: skip
CLASSES = torch.tensor([1, 3])


def attributed(kind: str, images: Tensor) -> tuple[HookedViT, ViTActivationCache, LogitAttribution]:
    model = HookedViT.from_timm(make_timm(kind).double())
    names = attribution_names(model.cfg, neurons=True, sources=True)
    with torch.no_grad():
        logits, cache = model.run_with_cache(images.double(), names_filter=names)
    parts = logit_attribution(model, cache, CLASSES, neurons=True, sources=True)
    assert torch.allclose(parts.logit, logits.gather(1, CLASSES[:, None])[:, 0])
    return model, cache, parts


@pytest.mark.parametrize("kind", LINEAR)
def test_the_parts_sum_exactly_to_the_logit(kind: str, images: Tensor) -> None:
    _, _, parts = attributed(kind, images)
    close = {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(parts.total, parts.logit, **close)
    assert parts.mlp_bias is not None
    assert parts.neuron is not None
    assert parts.source is not None
    assert parts.source_bias is not None
    torch.testing.assert_close(parts.mlp_bias + parts.neuron.sum(-1), parts.mlp, **close)
    by_source = (parts.source.sum(-1) + parts.source_bias).sum(-1)
    torch.testing.assert_close(by_source, parts.head.sum(-1), **close)
    table = parts.table()
    found = torch.tensor(table.groupby("image")["value"].sum().to_numpy())
    torch.testing.assert_close(found, parts.logit, **close)
    assert set(table["component"]) >= {"constant", "embed", "attn_bias", "source", "neuron"}


@pytest.mark.parametrize("kind", LINEAR)
def test_each_part_is_the_loss_of_logit_without_it(kind: str, images: Tensor) -> None:
    # with the final scale frozen the logit is linear in the last stream: take a part out of it, and see
    model, _, parts = attributed(kind, images)
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    with torch.no_grad():
        _, full = model.run_with_cache(images.double(), names_filter=lambda name: "norm.hook" not in name)
        whole = {"attn": full["attn_out", 1], "mlp": full["mlp_out", 2], "embed": full["hook_tokens"]}
        bias = parts.attn_bias[1] + parts.head[1].sum(-1)
        start = parts.embed if parts.pos_embed is None else parts.embed + parts.pos_embed
        for name, expected in (("attn", bias), ("mlp", parts.mlp[2]), ("embed", start)):
            scale = full.cache_dict.get("ln_final.hook_scale")
            hooks = [(last, lambda x, hook, name=name: x - whole[name])]
            if scale is not None:
                hooks.append(("ln_final.hook_scale", lambda x, hook, scale=scale: scale))
            lost = (
                parts.logit - model.run_with_hooks(images.double(), fwd_hooks=hooks).gather(1, CLASSES[:, None])[:, 0]
            )
            torch.testing.assert_close(lost, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["cls", "clip", "qk_norm", "swiglu_packed"])
def test_heads_are_those_of_transformer_lens(kind: str, images: Tensor) -> None:
    model, _, parts = attributed(kind, images)
    with torch.no_grad():
        _, cache = model.run_with_cache(images.double())
        heads = cache.stack_head_results(apply_ln=True, pos_slice=0)
        directions = model.tokens_to_residual_directions(CLASSES)
        expected = torch.einsum("pbd,bd->pb", heads, directions)
        found = parts.head.permute(0, 2, 1).flatten(0, 1)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_sources_are_those_of_a_loop(images: Tensor) -> None:
    model, cache, parts = attributed("cls", images)
    assert parts.source is not None
    scale = cache["ln_final.hook_scale"][:, 0]
    for image, label in enumerate(CLASSES.tolist()):
        for layer, head, token in [(0, 1, 0), (1, 2, 5), (2, 0, 12)]:
            block = model.blocks[layer]
            written = cache["pattern", layer][image, head, 0, token] * cache["v", layer][image, token, head]
            vector = written @ block.attn.W_O[head]
            expected = ((vector - vector.mean()) / scale[image]) @ model.tokens_to_residual_directions(label)
            torch.testing.assert_close(parts.source[layer, image, head, token], expected)


def test_a_difference_of_two_classes_is_the_difference_of_their_parts(images: Tensor) -> None:
    model = ported("gap_registers_layerscale")
    _, cache = model.run_with_cache(images, names_filter=attribution_names(model.cfg))
    both = logit_attribution(model, cache, 2, against=CLASSES)
    one, other = logit_attribution(model, cache, 2), logit_attribution(model, cache, CLASSES)
    for part in ("constant", "embed", "pos_embed", "head", "mlp", "attn_bias", "logit"):
        torch.testing.assert_close(getattr(both, part), getattr(one, part) - getattr(other, part), rtol=1e-4, atol=1e-5)
    assert both.neuron is None
    assert set(both.table()["component"]) == {"constant", "embed", "pos_embed", "attn_bias", "head", "mlp"}


@pytest.mark.usefixtures("bad_input")
def test_errors(images: Tensor) -> None:
    model = ported("cls")
    _, cache = model.run_with_cache(images, names_filter=attribution_names(model.cfg))
    with pytest.raises(ValueError, match=r"the cache lacks 'blocks.0.mlp.hook_post' and 2 more: run .*neurons=True"):
        logit_attribution(model, cache, 0, neurons=True)
    with pytest.raises(ValueError, match=r"a class index for each image, \[2\], got shape \(3,\)"):
        logit_attribution(model, cache, [0, 1, 2])
    with pytest.raises(ValueError, match=r"expected class indices from 0 to 6, got"):
        logit_attribution(model, cache, [0, 7])
    with pytest.raises(ValueError, match="class index 9 is out of range"):
        logit_attribution(model, cache, 9)
    pooled = ported("map")
    _, cache = pooled.run_with_cache(images)
    with pytest.raises(ValueError, match="a head after attention pooling does not read the stream linearly"):
        logit_attribution(pooled, cache, 0)
    mask = torch.ones(2, 13, dtype=torch.bool)
    mask[:, 5] = False
    _, cache = model.run_with_cache(images, token_mask=mask)
    with pytest.raises(ValueError, match="12 of 13 tokens were kept: attribute a run without token_mask"):
        logit_attribution(model, cache, 0)

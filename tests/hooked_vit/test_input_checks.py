"""Errors for bad input name what was expected and what to do; the model is left unchanged."""

import re
from collections.abc import Callable

import pytest
import torch
from conftest import make_timm, ported
from torch import Tensor

from hooked_vit import HookedViT

pytestmark = pytest.mark.usefixtures("bad_input")
EXPECTED = "expected images of shape [batch, 3, 32, 24]"


def refused(model: HookedViT, run: Callable[[], object], error: type[Exception], message: str) -> None:
    """The call raises this error, and the model is bitwise as it was, with no hook on."""
    good = torch.ones(1, 3, 32, 24).to(model.embed.patch.weight)
    before = model(good)
    with pytest.raises(error, match=re.escape(message)):
        run()
    assert not model.list_hooks()
    assert torch.equal(model(good), before)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(2, 4, 32, 24), ValueError, "expected 3 channels in axis 1, got shape (2, 4, 32, 24)"),
        (torch.zeros(2, 32, 24, 3), ValueError, "expected 3 channels in axis 1, got shape (2, 32, 24, 3)"),
        (torch.zeros(3, 32, 24), ValueError, f"{EXPECTED}, got shape (3, 32, 24); add a batch axis with `images"),
        (torch.zeros(32, 24), ValueError, f"{EXPECTED}, got shape (32, 24)"),
        (torch.zeros(0, 3, 32, 24), ValueError, f"{EXPECTED}, got an empty batch"),
        (torch.zeros(2, 3, 24, 32), ValueError, f"{EXPECTED}, got 24 × 32 pixels: resize them (`model.preprocess` does)"
         ", or load the model with img_size=(24, 32) or dynamic_img_size=True"),
        (torch.zeros(2, 3, 32, 24).double(), ValueError, "the input is torch.float64, the model torch.float32: convert "
         "the input with `.to(torch.float32)`"),
        (torch.zeros(2, 3, 32, 24).byte(), ValueError, "the input is torch.uint8, the model torch.float32: convert the "
         "input with `.to(torch.float32)` after normalising it, as `model.preprocess` does"),
        (torch.zeros(2, 3, 32, 24, device="meta"), ValueError, "the input is on meta, the model on cpu: move one of "
         "them with `.to(...)`"),
        ("photo.jpg", TypeError, f"{EXPECTED}, got str: `model.preprocess` turns pictures into a batch"),
        ([[1.0]], TypeError, f"{EXPECTED}, got list"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["forward", "cache", "gradients", "hooks"])
def test_images_that_do_not_fit(images: object, error: type[Exception], message: str, way: str) -> None:
    model = ported("cls")
    run = {
        "forward": lambda: model(images),
        "cache": lambda: model.run_with_cache(images),
        "gradients": lambda: model.run_with_gradients(images, lambda logits: logits[:, 0]),
        "hooks": lambda: model.run_with_hooks(images, fwd_hooks=[("pattern", lambda pattern, hook: 2 * pattern)]),
    }[way]
    refused(model, run, error, message)


def test_another_device_is_reported(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls")).to("meta")
    with pytest.raises(ValueError, match="the input is on cpu, the model on meta"):
        model(images)
    with pytest.raises(ValueError, match="the input is on cpu, the model on meta"):
        model(torch.zeros(2, 13, 24), start_at_layer=1)


def test_another_dtype_is_reported(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls")).to(torch.bfloat16)
    message = "the input is torch.float32, the model torch.bfloat16: convert the input with `.to(torch.bfloat16)`"
    refused(model, lambda: model(images), ValueError, message)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ported("cls")(images).shape == (2, 7)


def test_a_size_that_is_not_whole_patches() -> None:
    model = ported("dynamic")
    message = "expected a height and width divisible into 8 × 8 patches, got 33 × 24 pixels"
    refused(model, lambda: model(torch.zeros(2, 3, 33, 24)), ValueError, message)
    assert model(torch.zeros(2, 3, 40, 16)).shape == (2, 7)


SHAPE = "token_mask must be bool of shape (2, {n}) ([batch token], prefix tokens included), got "
MASKS = [
    (lambda mask: mask.int(), SHAPE + "torch.int32 of shape (2, {n})"),
    (lambda mask: mask[:, :4], SHAPE + "torch.bool of shape (2, 4)"),
    (lambda mask: mask[:1], SHAPE + "torch.bool of shape (1, {n})"),
    (lambda mask: mask.to("meta"), "token_mask is on meta, the model on cpu"),
]


@pytest.mark.parametrize(("spoil", "message"), MASKS)
def test_masks_that_do_not_fit(kind: str, images: Tensor, spoil: Callable[[Tensor], Tensor], message: str) -> None:
    model, n = ported(kind), ported(kind).cfg.n_ctx
    mask = spoil(torch.ones(2, n, dtype=torch.bool))
    refused(model, lambda: model(images, token_mask=mask), ValueError, message.format(n=n))


def test_masks_that_drop_what_the_head_reads(kind: str, images: Tensor) -> None:
    model, layout = ported(kind), ported(kind).token_layout
    reads = {"cls": "keep CLS", "cls_and_dist": "keep CLS and the distillation token"}
    message = "token_mask drops what the head reads in image 1: " + reads.get(model.cfg.pool, "keep at least one patch")
    nothing = torch.ones(2, layout.n_tokens, dtype=torch.bool)
    nothing[1] = False
    refused(model, lambda: model(images, token_mask=nothing), ValueError, message)
    drop = torch.ones(2, layout.n_tokens, dtype=torch.bool)
    if model.cfg.pool == "cls":
        drop[1, layout.cls] = False
    elif model.cfg.pool == "cls_and_dist":
        drop[1, layout.dist] = False
    else:
        drop[1, layout.patches] = False
    refused(model, lambda: model(images, token_mask=drop), ValueError, message)
    refused(model, lambda: model.run_with_cache(images, token_mask=drop), ValueError, message)


def test_a_head_that_pools_all_tokens_needs_one(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls", global_pool="avg", pool_include_prefix=True))
    mask = torch.zeros(2, 13, dtype=torch.bool)
    mask[0, 4] = True
    message = "token_mask drops what the head reads in image 1: keep at least one token"
    refused(model, lambda: model(images, token_mask=mask), ValueError, message)
    mask[1, 0] = True
    assert model(images, token_mask=mask).isfinite().all()


def test_nan_passes_through_without_an_error(images: Tensor) -> None:
    images[1, 0, 0, 0] = torch.nan
    logits = ported("cls")(images)
    assert logits[0].isfinite().all()
    assert logits[1].isnan().all(), "NaN is checked where pictures enter, never inside the forward pass"

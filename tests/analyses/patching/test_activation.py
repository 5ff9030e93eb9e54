"""Every sweep against TransformerLens's generic_activation_patch, one full pass per patch, on every kind of model."""

import itertools
from collections.abc import Callable

import pandas as pd
import pytest
import torch
from conftest import ported
from torch import Tensor
from transformer_lens import patching as lens

from analyses.patching.activation import activation_patching
from analyses.patching.metrics import logit_difference
from analyses.patching.plan import PATCH_STREAMS
from hooked_vit import HookedViT
from hooked_vit.resuming import resumable

lens.tqdm = lambda rows, **options: rows  # hide its progress bar
CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(4))
ALL = slice(None)


def metric(logits: Tensor) -> Tensor:
    """One number for the batch."""
    return (logits[:, 0] - logits[:, 4]).mean()


@torch.no_grad()
def slow(model: HookedViT, stream: str, cells: pd.DataFrame, index: Callable, base: Tensor, source: Tensor) -> Tensor:
    """TransformerLens's loop: a whole run for each cell [layer, …], patched at `index(…)` of the activation."""

    def setter(activation: Tensor, cell: list[int], clean: Tensor) -> Tensor:
        at = index(*cell[1:])
        activation[at] = clean[at]
        return activation

    _, cache = model.run_with_cache(source)
    return lens.generic_activation_patch(model, base, cache, metric, setter, stream, index_df=cells)


INDEX: dict[str, Callable] = {
    "resid_pre": lambda token: (ALL, token), "resid_mid": lambda token: (ALL, token),
    "resid_post": lambda token: (ALL, token), "attn_out": lambda token: (ALL, token),
    "mlp_out": lambda token: (ALL, token),
    "z": lambda head: (ALL, ALL, head), "q": lambda head: (ALL, ALL, head), "k": lambda head: (ALL, ALL, head),
    "v": lambda head: (ALL, ALL, head), "pattern": lambda head: (ALL, head), "post": lambda neuron: (ALL, ALL, neuron),
}  # fmt: skip


@pytest.mark.parametrize("stream", PATCH_STREAMS)
def test_every_stream_matches_the_loop(kind: str, stream: str) -> None:
    model = ported(kind)
    if model.cfg.parallel_attn_mlp and stream == "resid_mid":
        with pytest.raises(ValueError, match="this model has no 'hook_resid_mid': attention and MLP of a block both"):
            activation_patching(model, CLEAN, CORRUPT, metric, stream)
        return
    some = {"neurons": [0, 3]} if stream == "post" else {}
    # memory for fewer than both images of a patch at once
    result = activation_patching(model, CLEAN, CORRUPT, metric, stream, memory_limit=9e4, **some)
    labels = {axis: labels if len(labels) < 5 else (labels[0], labels[-2]) for axis, labels in result.labels.items()}
    cells = pd.DataFrame(list(itertools.product(*labels.values())), columns=list(labels))
    expected = slow(model, stream, cells, INDEX[stream], CORRUPT, CLEAN)
    found = torch.stack([result.at(**dict(zip(labels, cell, strict=True))) for cell in cells.itertuples(index=False)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert result.effect.abs().max() > 1e-5
    torch.testing.assert_close(result.base, metric(model(CORRUPT)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.source, metric(model(CLEAN)), rtol=1e-5, atol=1e-6)
    assert not model.list_hooks()


@pytest.mark.parametrize(
    ("stream", "axes", "index"),
    [
        ("z", ["layer", "head", "token"], lambda head, token: (ALL, token, head)),
        ("k", ["layer", "head", "token"], lambda head, token: (ALL, token, head)),
        ("pattern", ["layer", "head", "query"], lambda head, query: (ALL, head, query)),
        ("post", ["layer", "neuron", "token"], lambda neuron, token: (ALL, token, neuron)),
    ],
)
def test_components_token_by_token(stream: str, axes: list[str], index: Callable) -> None:
    model = ported("swiglu_packed")
    some = {"neurons": [1, 29]} if stream == "post" else {"heads": [0, 2]}
    result = activation_patching(model, CLEAN, CORRUPT, metric, stream, layers=[0, -1], tokens=[0, 5, -1], **some)
    assert result.axes == tuple(axes)
    assert (result.labels["layer"], result.labels[axes[-1]]) == ((0, 2), (0, 5, 15))
    cells = pd.DataFrame(list(itertools.product(*(result.labels[axis] for axis in axes))), columns=axes)
    expected = slow(model, stream, cells, index, CORRUPT, CLEAN)
    torch.testing.assert_close(result.values.flatten(), expected, rtol=1e-5, atol=1e-5)


def test_noising_is_denoising_with_the_images_swapped() -> None:
    model = ported("post_norm")
    noising = activation_patching(model, CLEAN, CORRUPT, metric, "z", direction="noising")
    swapped = activation_patching(model, CORRUPT, CLEAN, metric, "z")
    assert torch.equal(noising.values, swapped.values)
    assert torch.equal(noising.base, swapped.base)
    assert set(noising.table()["direction"]) == {"noising"}


def test_groups_of_tokens_are_patched_together_per_image(kind: str) -> None:
    model = ported(kind)
    n_tokens = model.cfg.n_ctx
    on_object = torch.rand(2, n_tokens, generator=torch.Generator().manual_seed(1)) < 0.4
    groups = {"object": on_object, "context": ~on_object, "patches": "patch"}
    for stream in ("attn_out" if model.cfg.parallel_attn_mlp else "resid_mid", "v"):
        result = activation_patching(model, CLEAN, CORRUPT, metric, stream, groups=groups, layers=[1])
        assert result.axes[-1] == "group"
        with torch.no_grad():
            clean = model.run_with_cache(CLEAN, names_filter=(stream, 1))[1][stream, 1]
        for name, mask in (("object", on_object), ("context", ~on_object)):
            found = result.at(group=name, layer=1)
            for head in range(clean.shape[2]) if stream == "v" else [slice(None)]:

                def patch(activation: Tensor, hook: object, mask: Tensor = mask, head: int | slice = head) -> Tensor:
                    patched = activation.clone()
                    for image, token in itertools.product(range(2), range(n_tokens)):
                        if mask[image, token]:
                            patched[image, token, head] = clean[image, token, head]  # noqa: B023
                    return patched

                with torch.no_grad():
                    expected = metric(model.run_with_hooks(CORRUPT, fwd_hooks=[((stream, 1), patch)]))
                torch.testing.assert_close(found[head] if stream == "v" else found, expected, rtol=1e-5, atol=1e-5)


def test_all_tokens_together_restore_the_other_run(kind: str) -> None:
    result = activation_patching(ported(kind), CLEAN, CORRUPT, metric, "resid_pre", groups={"all": "any"})
    torch.testing.assert_close(result.recovered, torch.ones(3, 1), rtol=1e-3, atol=1e-3)


def test_patching_with_the_same_image_changes_nothing(kind: str) -> None:
    for stream in set(PATCH_STREAMS) & resumable(ported(kind).cfg).keys():
        some = {"neurons": slice(0, 4)} if stream == "post" else {}
        result = activation_patching(ported(kind), CLEAN, CLEAN, metric, stream, **some)
        assert (result.effect.abs() < 1e-6).all(), stream


def test_equal_patches_have_no_effect_in_the_first_block() -> None:
    model, half = ported("cls"), CLEAN.clone()
    half[:, :, :16] = CORRUPT[:, :, :16]  # the upper two rows of patches are those of the corrupt image
    result = activation_patching(model, half, CORRUPT, metric)
    grid = result.on_grid("effect")
    assert (grid[0, :2].abs() < 1e-6).all()
    assert (grid[0, 2:] != 0).all()
    assert (grid[1] != 0).all()


def test_one_number_per_image() -> None:
    model = ported("distilled")
    per_image = logit_difference(torch.tensor([0, 3]), against=4, per_image=True)
    mean = logit_difference(torch.tensor([0, 3]), against=4)
    kept = activation_patching(model, CLEAN, CORRUPT, per_image, "z", per_image=True)
    assert (kept.axes, kept.values.shape) == (("layer", "head", "image"), (3, 3, 2))
    averaged = activation_patching(model, CLEAN, CORRUPT, mean, "z")
    torch.testing.assert_close(kept.values.mean(-1), averaged.values)
    second = activation_patching(model, CLEAN[1:], CORRUPT[1:], logit_difference(3, against=4), "z")
    torch.testing.assert_close(kept.values[..., 1], second.values)
    assert len(kept.table()) == 3 * 3 * 2


def test_a_metric_may_return_a_float() -> None:
    def as_float(logits: Tensor) -> float:
        return float(logits[0].tolist()[2])

    model = ported("cls")
    result = activation_patching(model, CLEAN, CORRUPT, as_float, "z")
    expected = activation_patching(model, CLEAN, CORRUPT, lambda logits: logits[0, 2], "z")
    torch.testing.assert_close(result.values, expected.values)


def test_the_control_steps_in_a_random_direction() -> None:
    model = ported("cls")
    controls = [activation_patching(model, CLEAN, CORRUPT, metric, control="random", seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(controls[0].values, controls[1].values)
    assert not torch.equal(controls[0].values, controls[2].values)
    assert (activation_patching(model, CLEAN, CLEAN, metric, control="random").effect.abs() < 1e-6).all()


def test_the_memory_limit_changes_only_the_batches() -> None:
    model = ported("inner_norms")
    whole = activation_patching(model, CLEAN, CORRUPT, metric, "attn_out")
    rows = []

    def count(_: object, args: tuple) -> None:
        rows.append(len(args[0]))

    handle = model.blocks[2].ln2.register_forward_pre_hook(count)
    small = activation_patching(model, CLEAN, CORRUPT, metric, "attn_out", memory_limit=3e5)
    handle.remove()
    torch.testing.assert_close(small.values, whole.values, rtol=1e-5, atol=1e-6)
    assert max(rows) == 14  # seven of thirteen patches, for both images


def test_larger_images_if_the_model_accepts_them() -> None:
    model = ported("dynamic")
    larger = torch.randn(2, 1, 3, 40, 24, generator=torch.Generator().manual_seed(6))
    result = activation_patching(model, larger[0], larger[1], metric, "resid_pre", layers=[1])
    assert result.values.shape == (1, 3 + 15)
    cells = pd.DataFrame({"layer": [1, 1], "token": [0, 17]})
    expected = slow(model, "resid_pre", cells, INDEX["resid_pre"], larger[1], larger[0])
    torch.testing.assert_close(result.values[0, [0, 17]], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corrupt": CORRUPT[:1]}, r"a corrupt image for each clean one.* clean \(2, 3, 32, 24\) and corrupt \(1, 3"),
        ({"clean": CLEAN[..., :16]}, r"expected images of shape \[batch, 3, 32, 24\], got 32 × 16 pixels"),
        ({"metric": lambda logits: logits[:, 0]}, r"\(a scalar\), got shape \(2,\): take its mean over images, or"),
        ({"metric": lambda logits: logits}, r"one number \(a scalar\), got shape \(2, 7\)$"),
        ({"metric": lambda logits: logits.mean(), "per_image": True}, r"one number per image, \[2\], got shape \(\)"),
        ({"stream": "resid"}, "expected a stream out of 'resid_pre', .*, got 'resid'"),
        ({"layers": [3]}, "expected layers from 0 to 2 .*, got 3"),
        ({"tokens": [13]}, "expected tokens from 0 to 12 .*, got 13"),
        ({"tokens": "register"}, "the model has no register token"),
        ({"stream": "z", "heads": [3]}, "expected heads from 0 to 2"),
        ({"heads": [0]}, "'resid_pre' has no heads: patch them in 'z', 'q'"),
        ({"neurons": [0]}, "'resid_pre' has no neurons: patch them in 'post'"),
        ({"stream": "post", "neurons": [60]}, "expected neurons from 0 to 59"),
        ({"tokens": [0], "groups": {"a": "any"}}, "pass tokens, .* or groups, .* not both"),
        ({"tokens": torch.ones(3, 13) > 0}, "tokens is a mask for 3 images, the run has 2"),
        ({"tokens": torch.zeros(2, 13) > 0}, "expected at least one token to patch"),
        ({"groups": {}}, "at least one group of tokens"),
        ({"groups": {"a": torch.ones(3, 13) > 0}}, "group 'a' is a mask for 3 images, the run has 2"),
        ({"direction": "both"}, "'denoising' or 'noising', got 'both'"),
        ({"control": "noise"}, "expected control 'random' or None, got 'noise'"),
        ({"memory_limit": 1000}, "memory_limit=1000 bytes, but one patched image needs about .*: raise it"),
    ],
)  # fmt: skip
def test_errors(changes: dict, message: str) -> None:
    model = ported("cls")
    logits = model(CLEAN)
    arguments = {"clean": CLEAN, "corrupt": CORRUPT, "metric": metric, **changes}
    with pytest.raises(ValueError, match=message):
        activation_patching(model, **arguments)
    assert not model.list_hooks()
    assert torch.equal(model(CLEAN), logits)


def test_a_model_with_hooks_is_rejected() -> None:
    model = ported("cls")
    with (
        model.hooks(fwd_hooks=[(("z", 1), lambda z, hook: 2 * z)]),
        pytest.raises(ValueError, match=r"the model has a hook on 'blocks.1.attn.hook_z'"),
    ):
        activation_patching(model, CLEAN, CORRUPT, metric)


def test_a_metric_that_raises_leaves_the_model_unchanged() -> None:
    calls = []

    def failing(logits: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("on purpose")
        return logits.mean()

    model = ported("cls")
    weights = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(RuntimeError, match="on purpose"):
        activation_patching(model, CLEAN, CORRUPT, failing, "z")
    assert not model.list_hooks()
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))

"""Fitting: the solution is scikit-learn's ridge regression, and a planted change of basis is found."""

import warnings

import numpy as np
import pytest
import torch
from conftest import ported
from sklearn.linear_model import Ridge
from torch import Tensor

from analyses.projection import project
from analyses.statistics import Resampling
from analyses.tuned_lens import TunedLens, compare_lenses, fit_tuned_lens
from analyses.tuned_lens.fitting import _names
from hooked_vit import HookedViT

ALPHA = 0.02
Items = list[tuple[Tensor, int]]


@pytest.fixture(scope="module")
def items() -> Items:
    generator = torch.Generator().manual_seed(3)
    return [(torch.randn(3, 32, 24, generator=generator), label % 7) for label in range(11)]


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale", "parallel"])
@pytest.mark.parametrize("tokens", ["all", "read"])
@torch.no_grad()
def test_it_is_the_ridge_regression_of_the_change(kind: str, tokens: str, items: Items) -> None:
    model = ported(kind)
    if tokens == "read" and model.cfg.pool == "cls":
        items = items * 3  # at least 24 + 1 tokens: copies have the same moments
    lens = fit_tuned_lens(model, items, tokens=tokens, alpha=ALPHA, batch_size=4)
    _, cache = model.run_with_cache(torch.stack([image for image, _ in items]))
    read = slice(None) if tokens == "all" else model.cfg.read_tokens
    streams = [cache[name][:, read].reshape(-1, 24).double().numpy() for name in _names(model.cfg)]
    y = streams[-1]
    for index, x in enumerate(streams[:-1]):
        at = divmod(index, lens.weight.shape[1])
        if x.std(axis=0).max() < 1e-6:  # CLS before the first block is the same in every picture
            np.testing.assert_allclose(lens.weight[at].numpy(), 0, atol=1e-3)
            np.testing.assert_allclose(lens.bias[at].numpy(), (y - x).mean(axis=0), atol=1e-3)
            continue
        ridge = Ridge(alpha=ALPHA * len(x) * x.var(axis=0).mean(), tol=1e-10).fit(x, y - x)
        np.testing.assert_allclose(lens.weight[at].numpy(), ridge.coef_.T, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(lens.bias[at].numpy(), ridge.intercept_, rtol=1e-3, atol=1e-4)
    assert lens.record["n_tokens"] == len(y)


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale"])
@pytest.mark.parametrize("batch_size", [3, 64])
@torch.no_grad()
def test_variance_explained_is_that_of_pictures_that_are_held_out(kind: str, batch_size: int, items: Items) -> None:
    model = ported(kind)
    lens = fit_tuned_lens(model, items, alpha=ALPHA, batch_size=batch_size)
    _, cache = model.run_with_cache(torch.stack([image for image, _ in items]))
    held = np.arange(len(items)) % 5 == 1
    names = _names(model.cfg)
    parts = [[cache[name].numpy()[chosen].reshape(-1, 24).astype(float) for chosen in (~held, held)] for name in names]
    others, y = parts[-1]
    for index, (fitted, x) in enumerate(parts[:-1]):
        ridge = Ridge(alpha=ALPHA * len(fitted) * fitted.var(axis=0).mean(), tol=1e-10).fit(fitted, others - fitted)
        unexplained = np.square(y - x - ridge.predict(x)).sum() / np.square(y - y.mean(axis=0)).sum()
        found = lens.record["variance_explained"][index // 2][index % 2]
        assert found == pytest.approx(1 - unexplained, abs=1e-4)


def test_few_pictures_explain_less_of_others_and_are_warned_of() -> None:
    generator = torch.Generator().manual_seed(4)
    pictures = [torch.randn(3, 32, 24, generator=generator) for _ in range(120)]
    model = ported("cls")
    with pytest.warns(UserWarning, match="30 pictures have 30 tokens, few for maps of width 24.* from 120 pictures"):
        few = fit_tuned_lens(model, pictures[:30], tokens="read").record["variance_explained"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many = fit_tuned_lens(model, pictures, tokens="read").record["variance_explained"]
    assert few[1][0] < many[1][0]


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale"])
def test_a_planted_rotation_between_blocks_is_found(kind: str, items: Items) -> None:
    model = ported(kind)
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(9)))[0]
    last = model.cfg.n_layers - 1

    def silence(x: Tensor, hook: object) -> Tensor:
        return torch.zeros_like(x)

    # a last block that adds nothing but undoes the rotation: the classes are in the stream before it, in another basis
    hooks = [(f"blocks.{last}.{point}", silence) for point in ("hook_attn_out", "hook_mlp_out")]
    hooks.append((f"blocks.{last - 1}.hook_resid_post", lambda x, hook: x @ rotation))
    hooks.append((f"blocks.{last}.hook_resid_mid", lambda x, hook: x @ rotation.T))
    with model.hooks(fwd_hooks=hooks):
        lens = fit_tuned_lens(model, items, alpha=1e-9)
        _, cache = model.run_with_cache(torch.stack([image for image, _ in items]), names_filter="resid_post")
    found = torch.eye(24) + lens.weight[last, 0]
    torch.testing.assert_close(found, rotation.T, rtol=0, atol=1e-3)
    torch.testing.assert_close(lens.bias[last, 0], torch.zeros(24), rtol=0, atol=1e-3)
    assert lens.record["variance_explained"][last][0] == pytest.approx(1, abs=1e-6)
    tuned, direct = (project(model, cache, k=1, lens=chosen).top_classes for chosen in (lens, None))
    assert torch.equal(tuned[last - 1], tuned[last])
    assert not torch.equal(direct[last - 1], direct[last])


def test_batches_and_labels_change_nothing_and_the_seed_draws_the_pictures(items: Items) -> None:
    model = ported("cls")
    whole = fit_tuned_lens(model, items, batch_size=11)
    for other in (
        fit_tuned_lens(model, items, batch_size=2),
        fit_tuned_lens(model, [image for image, _ in items], batch_size=11),
        fit_tuned_lens(model, [(image, 99) for image, _ in items], batch_size=11),
    ):
        torch.testing.assert_close(other.weight, whole.weight, rtol=1e-4, atol=1e-5)
    drawn = [fit_tuned_lens(model, items, n_images=5, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0].fingerprint == drawn[1].fingerprint != drawn[2].fingerprint
    assert drawn[0].record["n_images"] == 5


def test_it_needs_no_classes(items: Items) -> None:
    import timm

    headless = timm.create_model("test_vit", num_classes=0, img_size=(32, 48)).eval()
    model = HookedViT.from_timm(headless)
    pictures = [torch.randn(3, 32, 48) for _ in range(30)]
    assert fit_tuned_lens(model, pictures).record["n_images"] == 30


def test_both_lenses_side_by_side(items: Items) -> None:
    model = ported("cls")
    lens = fit_tuned_lens(model, items[:6])
    table = compare_lenses(model, items[6:], lens, resampling=Resampling(9), batch_size=3)
    _, cache = model.run_with_cache(torch.stack([image for image, _ in items[6:]]), names_filter="resid_post")
    labels = torch.tensor([label for _, label in items[6:]])
    for name, chosen in (("direct", None), ("tuned", lens)):  # noqa: B007  (used in queries)
        rank = project(model, cache, labels=labels, lens=chosen).rank
        assert rank is not None
        for token_type, tokens in (("cls", slice(0, 1)), ("patch", slice(1, None))):  # noqa: B007
            score = (1 - rank[:, :, tokens] / 7).mean(dim=(1, 2)).numpy()
            rows = table.query("lens == @name and token_type == @token_type and metric == 'identifiability'")
            np.testing.assert_allclose(rows["value"], score, atol=1e-6)
    wide = table.pivot(index=["layer", "token_type", "metric"], columns="lens", values="value")
    np.testing.assert_allclose(wide["tuned_minus_direct"], wide["tuned"] - wide["direct"], atol=1e-9)
    assert (wide.xs(2, level="layer")["tuned_minus_direct"] == 0).all()
    assert (table["low"] <= table["value"] + 1e-9).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": "cls"}, "tokens is 'all' or 'read', got 'cls'"),
        ({"alpha": 0.0}, "alpha must be above 0, got 0.0"),
        ({"n_images": 12}, "n_images from 2, .* to the 11 of the dataset, got 32 and 12"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"n_images": 1}, "n_images from 2"),
    ],
)
@pytest.mark.usefixtures("bad_input")
def test_errors(arguments: dict, message: str, items: Items) -> None:
    with pytest.raises(ValueError, match=message):
        fit_tuned_lens(ported("cls"), items, **arguments)


def test_a_lens_of_another_model_is_refused(items: Items) -> None:
    with pytest.raises(ValueError, match="made for another model"):
        compare_lenses(ported("parallel"), items, TunedLens.identity(ported("cls").cfg))

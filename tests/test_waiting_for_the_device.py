"""A forward pass reads no number from a tensor, so it never waits for a GPU; nothing reads one per token or image."""

import pytest
import torch
from conftest import ported
from scalars_read import scalars_read
from torch import Tensor

from analyses.categorical_updates import CategoricalUpdates
from analyses.data.reading import ReadBatch
from analyses.feature_importance import feature_importance
from analyses.feature_importance.methods import METHODS, explainer
from analyses.identifiability import Identifiability
from analyses.memory_pairs import Compositionality, KeyValueAgreement
from analyses.projection import project
from analyses.sweep.accuracy import Accuracy
from analyses.sweep.run import run_batch
from hooked_vit import HookedViT


@pytest.fixture
def model(kind: str) -> HookedViT:
    """A model of each kind."""
    return ported(kind)


def test_the_counter_counts() -> None:
    x = torch.arange(3)
    assert scalars_read(lambda: x.sum().item()) == 1
    assert scalars_read(lambda: bool(x.any())) == 1
    assert scalars_read(lambda: x[x > 1]) == 1
    assert scalars_read(lambda: x + 1) == 0


def test_a_forward_pass_and_its_caches_read_none(model: HookedViT, images: Tensor) -> None:
    assert scalars_read(lambda: model(images)) == 0
    for options in ({}, {"lean": True}, {"names_filter": lambda name: True}):
        assert scalars_read(lambda options=options: model.run_with_cache(images, **options)) == 0
    stream = model.run_with_cache(images, names_filter=("resid_pre", 1))[1]["resid_pre", 1]
    assert scalars_read(lambda: model(stream, start_at_layer=1)) == 0


@pytest.mark.parametrize("kind", ["cls", "map"])
def test_a_token_mask_is_looked_at_once(model: HookedViT, images: Tensor) -> None:
    counts = []
    for n in (1, 4):
        mask = torch.ones(2 * n, model.cfg.n_ctx, dtype=torch.bool)
        mask[0, -3:] = False
        counts.append(scalars_read(lambda n=n, mask=mask: model(images.repeat(n, 1, 1, 1), token_mask=mask)))
    assert counts[0] == counts[1] <= 6


def of_batch(model: HookedViT, images: Tensor, compute) -> tuple[int, int]:
    """The count for two images, and for eight."""
    first, second = (scalars_read(lambda n=n: compute(images.repeat(n, 1, 1, 1))) for n in (1, 4))
    return first, second


@pytest.mark.parametrize(
    "analysis", [Accuracy, Identifiability, CategoricalUpdates, KeyValueAgreement, Compositionality]
)
def test_an_analysis_reads_no_more_for_more_images(images: Tensor, analysis) -> None:
    model, one = ported("cls"), analysis()
    names = one.names(model.cfg)

    def update(images: Tensor) -> None:
        index = torch.arange(len(images))
        read = ReadBatch(len(images), images, index % 7, index, images[:, 0] > 0, ())
        one.update(run_batch(model, names, read))

    update(images)  # what depends on the weights alone is computed once
    few, many = of_batch(model, images, update)
    assert few == many


def test_projection_and_explanations_read_no_more_for_more_images(images: Tensor) -> None:
    model = ported("cls")

    def projected(images: Tensor) -> None:
        _, cache = model.run_with_cache(images, names_filter="resid_post")
        project(model, cache, labels=torch.arange(len(images)) % 7)

    def importance(images: Tensor) -> None:
        feature_importance(model, images, torch.arange(len(images)) % 7)

    for compute in (projected, importance):
        few, many = of_batch(model, images, compute)
        assert few == many


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_reads_no_more_for_more_images(images: Tensor, method: str) -> None:
    model, explain = ported("cls"), explainer(method)
    few, many = of_batch(model, images, lambda images: explain(model, images, torch.arange(len(images)) % 7))
    assert few == many

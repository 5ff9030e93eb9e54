"""Scores equal loops over tokens; planted outliers, and no other patch, are found, and only after their block."""

import numpy as np
import pytest
import torch
from conftest import ported
from planted_outliers import LAYER, planted_outliers
from torch import Tensor

from analyses.outliers import attention_received, norm_ratios, outlier_names, outlier_scores


@torch.no_grad()
@pytest.mark.parametrize("kind_name", ["cls", "gap_registers_layerscale", "rotary"])
def test_scores_are_those_of_loops(kind_name: str, images: Tensor) -> None:
    model = ported(kind_name)
    _, cache = model.run_with_cache(images, names_filter=outlier_names(model.cfg))
    scores = outlier_scores(model, cache, threshold=1.2)
    for layer in range(3):
        for image in range(2):
            norms = [float(np.linalg.norm(x)) for x in cache["resid_post", layer][image].numpy()]
            median = float(np.median(norms[model.token_layout.n_prefix :]))
            pattern = cache["pattern", layer][image]
            for token, norm in enumerate(norms):
                assert float(scores.norm_ratio[layer, image, token]) == pytest.approx(norm / median, rel=1e-5)
                received = sum(float(head[:, token].sum()) for head in pattern) / (len(pattern) * len(norms))
                assert float(scores.attention[layer, image, token]) == pytest.approx(received, abs=1e-6)
                assert bool(scores.is_outlier[layer, image, token]) == (norm / median > 1.2)
    torch.testing.assert_close(scores.attention.sum(-1), torch.ones(3, 2))


@torch.no_grad()
@pytest.mark.parametrize("kind_name", ["cls", "gap_registers_layerscale", "swiglu_packed"])
def test_planted_outliers_are_found_and_no_other_patch(kind_name: str) -> None:
    planted = planted_outliers(kind_name)
    model = planted.model
    _, cache = model.run_with_cache(planted.images, names_filter=outlier_names(model.cfg))
    found = outlier_scores(model, cache).is_outlier[:, :, model.token_layout.patches]
    expected = torch.zeros_like(found)
    tokens = planted.marked - model.token_layout.n_prefix
    expected[LAYER:, torch.arange(len(tokens)), tokens] = True
    assert torch.equal(found[LAYER], expected[LAYER])
    assert not found[:LAYER].any()


@pytest.mark.usefixtures("bad_input")
def test_errors(images: Tensor) -> None:
    model = ported("cls")
    _, cache = model.run_with_cache(images, names_filter="resid_post")
    with pytest.raises(ValueError, match=r"the cache lacks 'blocks.0.attn.hook_pattern' and 2 more"):
        outlier_scores(model, cache)
    _, cache = model.run_with_cache(images)
    with pytest.raises(ValueError, match="expected a threshold above 1, a multiple of the median"):
        outlier_scores(model, cache, threshold=1)
    with pytest.raises(ValueError, match=r"expected 13 tokens, those of a grid of 4 × 3 .* `model.cfg.token_layout_at"):
        norm_ratios(torch.ones(1, 12, 4), model.token_layout)


def test_one_query_decides_where_there_is_one() -> None:
    assert attention_received(torch.tensor([[[[0.25, 0.75]]]])).tolist() == [[0.25, 0.75]]

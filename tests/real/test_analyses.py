"""Every analysis, explanation, patching and page on trained weights and photographs: exact, finite, and not trivial."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from real_dinov2 import load_dinov2, photographs
from real_models import pictures
from torch import Tensor

from analyses.analysis import Analysis
from analyses.attribution import attribution_names, logit_attribution
from analyses.circuits import CircuitFaithfulness
from analyses.commands.sweep_analyses import ANALYSIS_NAMES, make_analyses
from analyses.faithfulness import Faithfulness
from analyses.feature_importance import METHODS, explainer, feature_importance
from analyses.memory_pairs import CausalMemories
from analyses.pages.explorer import explore
from analyses.pages.report import report
from analyses.patching import AblationStudy, activation_patching, logit_difference
from analyses.prototypes import class_prototypes
from analyses.sweep import sweep
from hooked_vit import HookedViT

# hundreds of runs an image by default
FEWER_RUNS: dict[str, Callable[[], Analysis]] = {
    "ablation": lambda: AblationStudy(min_images=2),
    "causal-memories": lambda: CausalMemories(layers=[4, 11], ks=[5]),
    "circuits": lambda: CircuitFaithfulness(shares=[0.01, 0.1]),
    "faithfulness": lambda: Faithfulness(["importance", "raw_attention"], n_steps=6),
}
NAMES = ("cat", "astronaut", "cup", "rocket", "temple", "flower")


@pytest.fixture(scope="module")
def small(weights: Path) -> HookedViT:
    """The trained model at 8 × 8 patches, with a prototype per photograph."""
    model = load_dinov2(weights, 112)
    return class_prototypes(model, [(path, label) for label, path in enumerate(photographs().values())], NAMES).on(
        model
    )


@pytest.fixture(scope="module")
def two(small: HookedViT) -> Tensor:
    """The cat and the rocket."""
    return pictures(small, "cat", "rocket")


@torch.no_grad()
def test_prototypes_classify_their_photographs_and_views_of_them(small: HookedViT, weights: Path) -> None:
    images = pictures(small, *photographs())
    assert small(images).argmax(dim=1).tolist() == list(range(6))
    assert small(images.flip(-1)).argmax(dim=1).tolist() == list(range(6))
    views = []
    for path in photographs().values():
        picture = Image.open(path)
        views.append(picture.crop((picture.width // 5, picture.height // 5, picture.width, picture.height)))
    right = small(small.preprocess(views)).argmax(dim=1) == torch.arange(6)
    assert right.sum() >= 5


@torch.no_grad()
def test_attribution_sums_to_the_logit(small: HookedViT, two: Tensor) -> None:
    names = attribution_names(small.cfg, neurons=True, sources=True)
    logits, cache = small.run_with_cache(two, names_filter=names)
    labels = torch.tensor([0, 3])
    parts = logit_attribution(small, cache, labels, neurons=True, sources=True)
    logit = logits.gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(parts.total, logit, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(parts.source.sum(-1) + parts.source_bias, parts.head, rtol=1e-3, atol=1e-4)
    # in this model the last two blocks write nearly everything that CLS says
    written = parts.head.sum(-1) + parts.mlp + parts.attn_bias
    assert (written[-2:].abs().sum(0) > 0.5 * written.abs().sum(0)).all()


def test_feature_importance_is_autograds_and_not_saturated(small: HookedViT, two: Tensor) -> None:
    labels = torch.tensor([0, 3])
    importance = feature_importance(small, two, labels)
    assert (importance != 0).all(dim=-1).all()
    layer, block = 10, small.blocks[10]
    _, cache = small.run_with_cache(two, names_filter=["pattern", "v"])
    pattern = cache["pattern", layer].detach().clone().requires_grad_()
    z = torch.einsum("bhqs,bshd->bqhd", pattern, cache["v", layer].detach()).flatten(-2)
    logits = small(block.attn.out(z) * block.ls1, start_at_layer=small.cfg.n_layers)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), pattern)
    torch.testing.assert_close(importance[:, layer], -gradient[:, :, 0, 1:], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_explanations_are_finite_and_differ_between_patches(small: HookedViT, two: Tensor, method: str) -> None:
    maps = explainer(method)(small, two, torch.tensor([0, 3]))
    assert maps.shape == (2, 64)
    assert maps.isfinite().all()
    assert (maps.std(dim=1) > 0).all()


@torch.no_grad()
def test_patching_recovers_what_a_hook_recovers(small: HookedViT, two: Tensor) -> None:
    clean, corrupt = two[:1], two[1:]
    found = activation_patching(small, clean, corrupt, logit_difference(0, 3), stream="resid_pre", layers=[4, 11])
    _, cache = small.run_with_cache(clean, names_filter="resid_pre")
    for row, layer in enumerate((4, 11)):
        for token in (0, 30):

            def patch(stream: Tensor, hook: object, token: int = token, layer: int = layer) -> Tensor:
                stream[:, token] = cache["resid_pre", layer][:, token]
                return stream

            logits = small.run_with_hooks(corrupt, fwd_hooks=[(("resid_pre", layer), patch)])
            difference = float(logits[0, 0] - logits[0, 3])
            torch.testing.assert_close(float(found.values[row, token]), difference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", sorted(set(ANALYSIS_NAMES) - {"dictionary"}))  # it needs one of this model
def test_analyses_of_a_dataset(small: HookedViT, name: str) -> None:
    mask = torch.zeros(112, 112, dtype=torch.bool)
    mask[20:90, 20:90] = True
    images = pictures(small, "cat", "rocket", "cup")
    items = [(image, label, mask) for image, label in zip(images, (0, 3, 2), strict=True)]
    analyses = [FEWER_RUNS[name]()] if name in FEWER_RUNS else make_analyses([name])
    tables = sweep(small, items, analyses, batch_size=8)
    (table,) = [table for found, table in tables.items() if found not in ("accuracy", "skipped")]
    numbers = table.select_dtypes("number").drop(columns="threshold", errors="ignore")  # infinite: no block is enough
    assert len(table)
    # the effect size of a loss of all images alike is infinite, such as that of accuracy
    assert not (numbers.drop(columns=["effect_size"], errors="ignore").abs() == float("inf")).any().any()
    # an interval needs more images: two right and two wrong ones, or two after calibration
    few = name in ("failure-prediction", "early-exit")
    unknown = ["head", *(["low", "high", "value_low", "value_high"] if few else [])]
    assert numbers.drop(columns=unknown, errors="ignore").notna().any().all()


def test_pages(small: HookedViT, tmp_path: Path) -> None:
    explore(small, photographs()["cat"]).save(tmp_path / "cat.html")
    assert (tmp_path / "cat.html").stat().st_size > 100_000
    items = [(path, label) for label, path in enumerate(photographs().values())]
    sweep(small, items, make_analyses(["identifiability", "updates"]), out=tmp_path / "found")
    report(tmp_path / "found").save(tmp_path / "report.html")
    assert "identifiab" in (tmp_path / "report.html").read_text("utf-8").lower()

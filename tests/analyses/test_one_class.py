"""Models with a single logit: what compares classes refuses them and names the way out, everything else works."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_timm
from PIL import Image
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.attribution import attribution_names, logit_attribution
from analyses.categorical_updates import (
    CategoricalUpdates,
    residual_composition,
    similarity_change_rate,
    similarity_increase,
)
from analyses.commands.explain_result import explain_report
from analyses.commands.lens_result import lens_report
from analyses.commands.patch_result import two_classes
from analyses.faithfulness import Faithfulness, Localisation, deletion_curve, insertion_curve, removal_curve
from analyses.feature_importance import METHODS, explainer, feature_importance, importance_map
from analyses.feature_importance.class_gradients import class_gradients
from analyses.feature_importance.importance import importance_from_cache
from analyses.identifiability import Identifiability, ImageIdentifiability, identifiability
from analyses.linear_probe import fit_ridge_probe, probe_features, projection_ranks
from analyses.memory_pairs import (
    CausalMemories,
    Compositionality,
    KeyValueAgreement,
    MemoryMeans,
    MemoryTables,
    TopActivations,
    compositionality,
    key_value_agreement,
)
from analyses.pages.explorer import explore
from analyses.pages.explorer.content import explorer_data
from analyses.patching import (
    AblationStudy,
    activation_patching,
    attribution_patching,
    class_probability,
    class_rank,
    kl_divergence,
    logit_difference,
    path_patching,
)
from analyses.perturbation import Perturbation, perturb, self_only
from analyses.projection import class_ranks, project
from analyses.sweep import sweep
from analyses.sweep.accuracy import Accuracy
from analyses.value_vectors import (
    class_value_agreement,
    compare_class_value_agreement,
    head_class_directions,
    mlp_class_directions,
    semantic_coherence,
    top_classes,
    top_memories,
    value_logits,
)
from hooked_vit import HookedViT

ONE = HookedViT.from_timm(make_timm("cls", num_classes=1))
ONE.data_config = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "input_size": (3, 32, 24)}
TWO = ONE.with_two_classes()
CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(2))
LABELS = torch.tensor([0, 0])
ORDER = torch.arange(12).expand(2, -1)
PICTURE = Image.fromarray(np.arange(32 * 24 * 3, dtype=np.uint8).reshape(32, 24, 3))


class Dataset:
    """Two images and their labels."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return CLEAN[index], 0


@torch.no_grad()
def cached(model: HookedViT) -> Any:
    """A cache of everything."""
    return model.run_with_cache(CLEAN)[1]


def analysed(model: HookedViT, analysis: Analysis) -> pd.DataFrame:
    """The table of an analysis of one batch."""
    with torch.no_grad():
        logits, cache = model.run_with_cache(CLEAN, names_filter=[*analysis.names(model.cfg), "hook_tokens"])
        masks = torch.zeros(2, 32, 24, dtype=torch.bool)
        masks[:, :20] = True
        analysis.update(AnalysisBatch(model, cache, logits, LABELS, torch.arange(2), masks, CLEAN))
    return analysis.compute()


def patched(model: HookedViT, metric: Any) -> Tensor:
    """Effects of patching heads."""
    return activation_patching(model, CLEAN, CORRUPT, metric, "z").values


def logits(model: HookedViT) -> Tensor:
    """The logits of two images."""
    with torch.no_grad():
        return model(CLEAN)


COMPARE_CLASSES: dict[str, Callable[[HookedViT], Any]] = {
    "loss": lambda model: model(CLEAN, return_type="loss", labels=LABELS),
    "class_ranks": lambda model: class_ranks(logits(model), LABELS),
    "project with labels": lambda model: project(model, cached(model), labels=LABELS, k=1),
    "identifiability": lambda model: identifiability(torch.zeros(3).long(), model.cfg.n_classes),
    "Identifiability": lambda model: analysed(model, Identifiability()),
    "ImageIdentifiability": lambda model: analysed(model, ImageIdentifiability()),
    "perturb": lambda model: perturb(model, CLEAN, LABELS, self_only(model)),
    "Perturbation": lambda model: analysed(model, Perturbation()),
    "similarity_increase": lambda model: similarity_increase(model, cached(model), LABELS, "mlp"),
    "similarity_change_rate": lambda model: similarity_change_rate(model, cached(model), LABELS, "mlp"),
    "residual_composition": lambda model: residual_composition(model, cached(model)),
    "CategoricalUpdates": lambda model: analysed(model, CategoricalUpdates()),
    "feature_importance": lambda model: feature_importance(model, CLEAN, LABELS),
    "importance_map": lambda model: importance_map(model, CLEAN, LABELS),
    "importance_from_cache": lambda model: importance_from_cache(model, cached(model), LABELS[:, None]),
    "class_gradients": lambda model: class_gradients(model, torch.randn(2, 1, 24), LABELS[:, None]),
    "class_probability": lambda model: patched(model, class_probability(0)),
    "kl_divergence": lambda model: patched(model, kl_divergence(logits(model))),
    "class_rank": lambda model: patched(model, class_rank(0)),
    "AblationStudy": lambda model: analysed(model, AblationStudy(method="zero")),
    "key_value_agreement": lambda model: key_value_agreement(model, cached(model), LABELS),
    "KeyValueAgreement": lambda model: analysed(model, KeyValueAgreement()),
    "compositionality": lambda model: compositionality(model, cached(model)),
    "Compositionality": lambda model: analysed(model, Compositionality()),
    "CausalMemories": lambda model: analysed(model, CausalMemories(layers=[-1], ks=[1])),
    "MemoryTables": lambda model: MemoryTables(model, "mlp"),
    "top_classes": lambda model: top_classes(model, 1, [0], k=1),
    "semantic_coherence": lambda model: semantic_coherence(model, [("a", "b"), ("a", "c")], k=2, n_permutations=9),
    "head_class_directions": lambda model: head_class_directions(model, 1),
    "mlp_class_directions": lambda model: mlp_class_directions(model, 1),
    "fit_ridge_probe": lambda model: fit_ridge_probe(torch.randn(2, 24), LABELS, model.cfg.n_classes),
    "projection_ranks": lambda model: projection_ranks(model, probe_features(model, [(CLEAN, LABELS)])),
    "removal_curve": lambda model: removal_curve(model, CLEAN, LABELS, ORDER, [0, 4]),
    "deletion_curve": lambda model: deletion_curve(model, CLEAN, LABELS, ORDER, [0, 4]),
    "insertion_curve": lambda model: insertion_curve(model, CLEAN, LABELS, ORDER, [0, 4]),
    "Faithfulness": lambda model: analysed(model, Faithfulness(["relevance"], n_steps=2)),
    "Accuracy": lambda model: analysed(model, Accuracy()),
    "sweep": lambda model: sweep(model, Dataset(), [], progress=False),
    "lens_report": lambda model: lens_report(model, PICTURE, "picture"),
    "explain_report": lambda model: explain_report(model, PICTURE, "picture", [0], ["relevance"]),
    "explorer_data": lambda model: explorer_data(model, CLEAN[:1]),
    "explore": lambda model: explore(model, PICTURE),
    "two_classes": lambda model: two_classes(model, [CLEAN[:1], CORRUPT[:1]], [0, model.cfg.n_classes - 1]),
}


@pytest.mark.parametrize("use", COMPARE_CLASSES.values(), ids=COMPARE_CLASSES.keys())
def test_what_compares_classes_refuses_a_single_logit(use: Callable[[HookedViT], Any]) -> None:
    with pytest.raises(ValueError, match=r"at least two classes.* `model\.with_two_classes\(\)`.* logits \[0, logit\]"):
        use(ONE)
    assert use(TWO) is not None


def last(model: HookedViT) -> int:
    """The class of the logit."""
    return model.cfg.n_classes - 1


def heads_of_the_logit(model: HookedViT) -> Tensor:
    """The contributions of heads to the logit."""
    with torch.no_grad():
        _, cache = model.run_with_cache(CLEAN, names_filter=attribution_names(model.cfg))
    parts = logit_attribution(model, cache, last(model))
    torch.testing.assert_close(parts.total, parts.logit, rtol=1e-4, atol=1e-5)
    return parts.head


def maps(method: str) -> Callable[[HookedViT], Tensor]:
    """The maps of an explanation method for the logit."""
    return lambda model: explainer(method)(model, CLEAN, torch.full((2,), last(model)))


NEED_THE_LOGIT_ONLY: dict[str, Callable[[HookedViT], Tensor]] = {
    "forward": lambda model: logits(model)[:, -1],
    "class_logits": lambda model: model.class_logits(torch.arange(48.0).view(2, 24))[:, -1],
    "project without labels": lambda model: project(model, cached(model), k=model.cfg.n_classes).top_logits.sum(-1),
    "logit_attribution": heads_of_the_logit,
    **{f"{name} map": maps(name) for name in METHODS if name != "importance"},
    "activation_patching": lambda model: patched(model, logit_difference(last(model))),
    "attribution_patching": lambda model: (
        attribution_patching(model, CLEAN, CORRUPT, logit_difference(last(model))).values
    ),
    "path_patching": lambda model: (
        path_patching(model, CLEAN, CORRUPT, logit_difference(last(model)), [("logits",)]).values
    ),
    "value_logits": lambda model: value_logits(model, 1)[:, -1],
    "class_value_agreement": lambda model: class_value_agreement(model)[:, -1],
    "uncentred directions": lambda model: mlp_class_directions(model, 1, centre=False).singular_values[:1],
    "top_memories": lambda model: torch.tensor(top_memories(model, 1, [last(model)], k=3)["logit"]),
}


@pytest.mark.parametrize("use", NEED_THE_LOGIT_ONLY.values(), ids=NEED_THE_LOGIT_ONLY.keys())
def test_what_needs_the_logit_only_gives_the_same_for_two_classes(use: Callable[[HookedViT], Tensor]) -> None:
    torch.testing.assert_close(use(ONE), use(TWO), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("analysis", [MemoryMeans, Localisation, TopActivations], ids=lambda kind: kind.__name__)
def test_analyses_that_compare_no_classes_work(analysis: Callable[..., Analysis]) -> None:
    arguments = {Localisation: (["relevance"],), TopActivations: (1, [0, 3])}.get(analysis, ())
    assert len(analysed(ONE, analysis(*arguments)))


def test_class_value_agreement_of_one_class_has_a_value_and_no_test() -> None:
    table = compare_class_value_agreement(ONE)
    assert table["value"].between(-1, 1).all()
    assert table["p_value"].isna().all()


def test_importance_of_two_classes_is_not_zero() -> None:
    importance = feature_importance(TWO, CLEAN, torch.tensor([[0, 1], [0, 1]]))
    assert importance.abs().max() > 1e-4
    p = logits(ONE)[:, 0].sigmoid()
    assert ((p > 0) & (p < 1)).all()

"""What to run: one study for each of the paper's models, or for each embedded model in a rehearsal."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from analyses.analysis.base import Analysis
from analyses.catalogue import CATALOGUE
from analyses.catalogue.published import PUBLISHED, PublishedModel
from analyses.faithfulness import Faithfulness

__all__ = ["MODELS", "Study", "paper_studies", "rehearsal_studies"]

_DATASET_ANALYSES = (
    "identifiability", "categorical_updates", "perturbation", "key_value_agreement", "compositionality",
    "class_value_agreement",
)  # fmt: skip
_METHODS = ("importance", "relevance", "random")  # the published areas, but for the probe's


@dataclass(frozen=True)
class Study:
    """One model over one dataset, with everything that the paper measures on it.

    Attributes:
        key: A short name, which is also that of its folder.
        title: The name for people.
        model: As for `HookedViT.from_pretrained`.
        data: As for `analyses.data.open_dataset`.
        load_options: More arguments for `from_pretrained`, such as `weights`.
        explains: Whether explanation methods are compared (the paper does so for ViT-B/32).
        probe_data: The images that probes are fitted to, for the probe order; `None` leaves it out.
        probe_shots: Images per class for each probe.
        n_steps: Removals of patches per image, as in `Faithfulness`.
        published: The values to compare with.
        needs: What is missing to run the study, in words; "" if nothing is.
    """

    key: str
    title: str
    model: str
    data: str
    load_options: Mapping[str, Any] = field(default_factory=dict)
    explains: bool = False
    probe_data: str | None = None
    probe_shots: int = 5
    n_steps: int = 50
    published: PublishedModel | None = None
    needs: str = ""

    def analyses(self, methods: Mapping[str, Any] = MappingProxyType({})) -> list[Analysis]:
        """New analyses of the study.

        Args:
            methods: More explanation methods by name, such as the probe order, which has to be fitted first.
        """
        made: list[Analysis] = [CATALOGUE[name].analysis() for name in _DATASET_ANALYSES]
        if self.explains:
            from analyses.feature_importance.methods import explainer

            compared = {**{name: explainer(name) for name in _METHODS}, **methods}
            made.append(Faithfulness(compared, n_steps=self.n_steps))
        return made

    def null_analyses(self) -> list[Analysis]:
        """The analyses that are repeated with the untrained model: those that do not bring a control of their own."""
        own_control = ("key_value_agreement", "class_value_agreement")
        return [CATALOGUE[name].analysis() for name in _DATASET_ANALYSES if name not in own_control]


@dataclass(frozen=True)
class _PaperModel:
    published: str
    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict)
    from_file: bool = False


_PAPER: Mapping[str, _PaperModel] = MappingProxyType(
    {
        "b32": _PaperModel("B/32", PUBLISHED["B/32"].names[0]),
        "b16": _PaperModel("B/16", PUBLISHED["B/16"].names[0]),
        "l16": _PaperModel("L/16", PUBLISHED["L/16"].names[0]),
        "miil": _PaperModel("MIIL", PUBLISHED["MIIL"].names[0]),
        "cifar": _PaperModel("CIFAR", "vit_base_patch16_224", {"num_classes": 100}, from_file=True),
        "refinement": _PaperModel("refinement", "deit_base_patch16_224", from_file=True),
        "gap": _PaperModel("GAP", PUBLISHED["GAP"].names[0]),
    }
)
MODELS = tuple(_PAPER)
"""Short names of the paper's seven models."""


def paper_studies(
    data: str,
    models: Collection[str] = MODELS,
    *,
    weights: Mapping[str, Path] = MappingProxyType({}),
    cifar: str | None = None,
    probe_data: str | None = None,
) -> list[Study]:
    """The paper's studies.

    Args:
        data: ImageNet-S, as for `open_dataset`: `"imagenet-s:DIR?n=5"` is the published setting.
        models: Some of `MODELS`.
        weights: Weights files by model. `cifar` and `refinement` need one, since timm does not have their weights.
        cifar: CIFAR-100, as for `open_dataset` (`"cifar100:DIR?n=5"`), for the model that was fine-tuned on it.
        probe_data: Images that the probes of ViT-B/32 are fitted to, at least five per class, such as
            `"imagenet-s:DIR?partition=train-semi&masks=no"`; without it, the probe order is left out.

    Raises:
        ValueError: If there is no such model, or none is named.

    >>> [study.title for study in paper_studies("imagenet-s:DIR?n=5", ["b32", "gap"])]
    ['ViT-B/32', 'ViT-B/16-GAP']
    >>> paper_studies("imagenet-s:DIR?n=5", ["cifar"])[0].needs
    'its weights (--weights cifar=FILE) and CIFAR-100 (--cifar cifar100:DIR?n=5)'
    """
    for name in (*models, *weights):
        if name not in _PAPER:
            near = get_close_matches(name, MODELS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"no model '{name}' in the paper: expected some of {', '.join(MODELS)}{hint}")
    if not models:
        raise ValueError(f"expected at least one of {', '.join(MODELS)}")
    return [_paper_study(name, data, weights.get(name), cifar, probe_data) for name in MODELS if name in models]


def _paper_study(name: str, data: str, weights: Path | None, cifar: str | None, probe_data: str | None) -> Study:
    entry, published = _PAPER[name], PUBLISHED[_PAPER[name].published]
    missing = [f"its weights (--weights {name}=FILE)"] if entry.from_file and weights is None else []
    if name == "cifar" and cifar is None:
        missing.append("CIFAR-100 (--cifar cifar100:DIR?n=5)")
    explains = any(key.startswith("auc_") for key in published.values)
    return Study(
        key=name,
        title=published.title,
        model=entry.architecture,
        data=(cifar or "") if name == "cifar" else data,
        load_options={**entry.options, **({} if weights is None else {"weights": weights})},
        explains=explains,
        probe_data=probe_data if explains else None,
        published=published,
        needs=" and ".join(missing),
    )


def rehearsal_studies(n_scenes: int = 200, n_steps: int = 50) -> list[Study]:
    """The same experiments on the embedded models and Emoji Scenes, which need no download.

    Args:
        n_scenes: Scenes per study.
        n_steps: Removals of patches per image.

    Raises:
        ValueError: If there is no scene.

    >>> [study.key for study in rehearsal_studies(8)]
    ['emoji-vit', 'emoji-vit-gap', 'emoji-vit-context']
    """
    if n_scenes < 1:
        raise ValueError(f"a rehearsal needs at least one scene, got {n_scenes}")
    probes = "emoji-scenes:500?seed=23"  # the first five scenes of each of the 100 classes
    return [
        Study(name, name, name, f"emoji-scenes:{n_scenes}", explains=explains,
              probe_data=probes if explains else None, n_steps=n_steps)
        for name, explains in (("emoji-vit", True), ("emoji-vit-gap", False), ("emoji-vit-context", False))
    ]  # fmt: skip

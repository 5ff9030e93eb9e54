"""The studies are the paper's seven models, and say what they lack."""

from pathlib import Path

import pytest

from analyses.catalogue.published import PUBLISHED
from analyses.faithfulness import Faithfulness
from analyses.reproduction import MODELS, paper_studies, rehearsal_studies


def test_each_published_model_has_a_study() -> None:
    studies = paper_studies("imagenet-s:DIR?n=5")
    assert [study.key for study in studies] == list(MODELS)
    assert {id(study.published) for study in studies} == {id(model) for model in PUBLISHED.values()}
    assert [study.key for study in studies if study.needs] == ["cifar", "refinement"]


def test_files_and_cifar_complete_the_models_that_timm_lacks(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    given = {"cifar": file, "refinement": file}
    studies = {study.key: study for study in paper_studies("imagenet-s:A", weights=given, cifar="cifar100:B?n=5")}
    assert not any(study.needs for study in studies.values())
    assert dict(studies["cifar"].load_options) == {"num_classes": 100, "weights": file}
    assert (studies["cifar"].data, studies["refinement"].data) == ("cifar100:B?n=5", "imagenet-s:A")


def test_only_the_model_with_published_areas_compares_explanations() -> None:
    explaining = [study for study in paper_studies("imagenet-s:A", probe_data="imagenet-s:B") if study.explains]
    assert [study.key for study in explaining] == ["b32"]
    [faithfulness] = [a for a in explaining[0].analyses({"own": lambda *_: None}) if isinstance(a, Faithfulness)]
    assert faithfulness.methods == ("importance", "relevance", "random", "own")
    assert explaining[0].probe_data == "imagenet-s:B"


def test_unknown_models_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no model 'b23' in the paper.*did you mean 'b32'"):
        paper_studies("imagenet-s:A", ["b23"])
    with pytest.raises(ValueError, match="no model 'L'"):
        paper_studies("imagenet-s:A", weights={"L": Path("x")})
    with pytest.raises(ValueError, match="at least one of"):
        paper_studies("imagenet-s:A", [])
    with pytest.raises(ValueError, match="at least one scene, got 0"):
        rehearsal_studies(0)

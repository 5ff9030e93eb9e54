"""A study is swept with its null control, resumes, and says what is missing."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from analyses.reproduction import Outcome, Study, check_claims, estimate_study, rehearsal_studies, run, run_study
from analyses.sweep.output import read_sweep


@pytest.fixture(scope="module")
def study() -> Study:
    [first, *_] = rehearsal_studies(4, n_steps=2)
    return dataclasses.replace(first, probe_data=None)


@pytest.fixture(scope="module")
def outcome(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_study(study, tmp_path_factory.mktemp("studies"), batch_size=4, progress=False)


def test_every_claim_finds_its_row(outcome: Outcome) -> None:
    assert outcome.folder is not None
    found, null = read_sweep(outcome.folder), read_sweep(outcome.folder / "null")
    assert found.record["model"]["weights_sha256"] != null.record["model"]["weights_sha256"]
    assert len(check_claims(found.tables, null.tables)) == 11


def test_what_is_finished_is_not_repeated(study: Study, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome.folder is not None
    monkeypatch.setattr(run, "_load", lambda study: pytest.fail("loaded again"))
    again = run_study(study, outcome.folder.parent, batch_size=4)
    assert again.folder == outcome.folder
    estimated = estimate_study(study, outcome.folder.parent)
    assert (estimated.folder, estimated.cost and estimated.cost.seconds) == (outcome.folder, 0)


def test_an_interrupted_study_keeps_the_finished_sweep(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = dataclasses.replace(study, explains=False)
    swept, real = [], run.sweep

    def interrupted(*args: Any, out: Path, **options: Any) -> Any:
        swept.append(out.name)
        if out.name == "null" and len(swept) == 2:
            raise KeyboardInterrupt
        return real(*args, out=out, **options)

    monkeypatch.setattr(run, "sweep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(few, tmp_path, batch_size=4, progress=False)
    assert run_study(few, tmp_path, batch_size=4, progress=False).folder == tmp_path / study.key
    assert swept == [study.key, "null", "null"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"needs": "its weights"}, "it needs its weights"),
        ({"model": "emoji-vlt"}, "its weights cannot be loaded: .*emoji-vit"),
        ({"load_options": {"weights": "missing.safetensors"}}, "its weights cannot be loaded: .*missing.safetensors"),
        ({"data": "folder:missing"}, "its images cannot be opened: .*missing"),
        ({"probe_data": "folder:missing"}, "the probes' images, .*missing"),
        ({"probe_data": "emoji-scenes:3"}, "the probes' images, 5 shots a class"),
    ],
)
def test_a_study_that_cannot_run_says_why(study: Study, tmp_path: Path, changes: dict, reason: str) -> None:
    found = run_study(dataclasses.replace(study, **changes), tmp_path, progress=False)
    assert found.folder is None
    assert re.match(reason, found.reason), found.reason
    assert not list(tmp_path.iterdir())


def test_the_probes_count_in_the_expected_cost(study: Study, tmp_path: Path) -> None:
    with_probes = dataclasses.replace(study, probe_data="emoji-scenes:500?seed=23")
    without, found = (estimate_study(each, tmp_path, batch_size=4).cost for each in (study, with_probes))
    assert without is not None
    assert found is not None
    assert found.peak_bytes - without.peak_bytes >= 500 * 8 * 66 * 128 * 4

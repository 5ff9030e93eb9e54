"""The page shows every comparison and claim, links to the reports, and names the models that were not run."""

import dataclasses
from pathlib import Path

import pytest

from analyses.catalogue.published import PublishedModel
from analyses.pages.reproduction import reproduction_page
from analyses.reproduction import Outcome, rehearsal_studies, run_study


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    study = rehearsal_studies(4)[1]
    published = PublishedModel("<b>GAP</b>", {"rate": 50.0, "accuracy": 90.0}, {"rate": 1.0})
    study = dataclasses.replace(study, title="<b>GAP</b>", published=published)
    done = run_study(study, tmp_path_factory.mktemp("studies"), batch_size=4, progress=False)
    return [done, Outcome(dataclasses.replace(study, key="other", title="Other"), reason="it needs <weights>")]


def test_page(outcomes: list[Outcome]) -> None:
    page = reproduction_page(outcomes)
    key = outcomes[0].study.key
    assert [row.label for row in page.comparisons[key]][:1] == ["accuracy, top 1"]
    for row in page.comparisons[key]:
        assert row.label in page.html
    for finding in page.findings[key]:
        assert finding.claim.replace("'", "&#39;") in page.html
    assert "not comparable" in page.html
    assert "<b>GAP" not in page.html
    assert "<weights>" not in page.html
    assert "it needs &lt;weights&gt;" in page.html
    assert f'href="{key}/report.html"' in page.html
    assert outcomes[0].folder is not None
    assert (outcomes[0].folder / "report.html").is_file()


def test_rehearsal_compares_no_number(outcomes: list[Outcome]) -> None:
    study = dataclasses.replace(outcomes[0].study, published=None)
    page = reproduction_page([dataclasses.replace(outcomes[0], study=study)], rehearsal=True)
    assert "This is a rehearsal" in page.html
    assert not page.comparisons[study.key]


def test_page_can_be_saved(outcomes: list[Outcome], tmp_path: Path) -> None:
    page = reproduction_page(outcomes)
    assert page.save(tmp_path / "page.html").read_text("utf-8") == page.html

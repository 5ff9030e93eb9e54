"""A report is one page with the results of a sweep, for any content of the folder; names in it are text."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from analyses.analysis.base import Analysis
from analyses.commands.cli import app
from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.faithfulness.over_dataset import Localisation
from analyses.identifiability import Identifiability
from analyses.pages.pdf import print_page
from analyses.pages.report.build import report
from analyses.statistics import Resampling
from analyses.sweep.run import sweep
from hooked_vit import HookedViT
from hooked_vit.initialisation import freshly_initialised

NASTY = "<img src=x onerror=alert(1)>"


class Own(Analysis):
    """Counts <b>images</b>.

    And nothing else.
    """

    def __init__(self) -> None:
        super().__init__()
        import torch

        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")

    def names(self, cfg) -> list[str]:
        return []

    def update(self, batch) -> None:
        self.n += len(batch.labels)

    def compute(self) -> pd.DataFrame:
        return pd.DataFrame([{"layer": layer, "metric": NASTY, "value": layer * int(self.n)} for layer in range(3)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep with its null control."""
    folder = tmp_path_factory.mktemp("report") / "out"
    arguments = ["sweep", "--data", "emoji-scenes:6?seed=2", "--analyses", "identifiability,updates", "--null-control"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(folder)])
    assert result.exit_code == 0, result.output
    return folder


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<style>.*?</style>", "", html)).split())


def test_the_page_has_every_section_and_its_parts(folder: Path) -> None:
    page = report(folder)
    assert page.title == "emoji-vit"
    text = text_of(page.html)
    for expected in (
        "Class identifiability, block by block",
        "Sub-layer updates and residual composition",
        "section 5.1",
        "Residual composition",
        "6 images",
        "95 % interval",
        "with a null control",
        "The run",
        "emoji-scenes:6?seed=2",
        "the model freshly initialised",
        "No values were published for this model",
    ):
        assert expected in text  # fmt: skip
    table = pd.read_parquet(folder / "identifiability.parquet")
    last_block = "layer == 7 and metric == 'identifiability_rate' and token_type == 'patch' and region == 'all'"
    null = pd.read_parquet(folder / "null" / "identifiability.parquet").query(last_block)["value"].item()
    row = table.query(last_block).iloc[0]
    expected = (
        f"patch tokens with the class on top {row['value']:.2f} % {row['low']:.2f} to {row['high']:.2f} {null:.2f}"
    )
    assert expected in text
    assert (
        page.html.count("<img ") == 3
    )  # identifiability includes the null control; updates has a separate figure of it
    assert set(re.findall(r'src="(data:image/svg\+xml)', page.html)) == {"data:image/svg+xml"}
    assert set(re.findall(r'href="#([^"]*)"', page.html)) <= set(re.findall(r'id="([^"]*)"', page.html))
    assert "http://" not in re.sub(r'src="data:[^"]*"', "", page.html)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep from Python, whose record has no names."""
    folder = tmp_path_factory.mktemp("plain")
    sweep(
        HookedViT.from_pretrained("emoji-vit"),
        EmojiScenes(3, 0),
        [Identifiability(resampling=Resampling(9))],
        out=folder,
    )
    return folder


def test_published_values_are_shown_with_their_setting(plain: Path, tmp_path: Path) -> None:
    page = text_of(report(plain, published="B/32").html)
    assert "60.73 (untrained 0.066)" in page
    assert "81.71" in page
    assert "Their dataset is ImageNet-S, validation, 5 images per class." in page
    assert "are not comparable with them" in page
    by_name = text_of(report(plain, model="vit_base_patch32_224.augreg_in21k_ft_in1k").html)
    assert "60.73 (untrained 0.066)" in by_name
    record = json.loads((plain / "record.json").read_text())
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    (tmp_path / "record.json").write_text(json.dumps({**record, "asked": {"random_weights": True}}))
    untrained = report(tmp_path, model="vit_base_patch32_224.augreg_in21k_ft_in1k")
    assert "60.73" not in text_of(untrained.html)
    assert "freshly initialised" in text_of(untrained.html)
    with pytest.raises(ValueError, match="no values were published for 'B/17'"):
        report(plain, published="B/17")


def test_your_own_analysis_has_a_section_and_its_names_are_text(tmp_path: Path) -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    sweep(model, EmojiScenes(2, 0), {"mine": Own(), "id": Identifiability(resampling=Resampling(9))}, out=tmp_path)
    record = json.loads((tmp_path / "record.json").read_text())
    record["asked"] = {"model": NASTY, "data": NASTY}
    (tmp_path / "record.json").write_text(json.dumps(record))
    html = report(tmp_path).html
    assert NASTY not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") >= 4
    assert "Counts &lt;b&gt;images&lt;/b&gt;." in html
    assert "Class identifiability, block by block" in html


def test_a_table_that_cannot_be_drawn_says_why(tmp_path: Path) -> None:
    model, scenes = HookedViT.from_pretrained("emoji-vit"), EmojiScenes(2, 0)
    without_masks = [scenes[index][:2] for index in range(2)]
    sweep(model, without_masks, [Localisation(["importance"], resampling=Resampling(9))], out=tmp_path / "masks")
    assert "cannot be drawn or summed up: the table is empty: the dataset has no masks" in text_of(
        report(tmp_path / "masks").html
    )
    sweep(model, scenes, [Identifiability(resampling=Resampling(9))], out=tmp_path / "other")
    pd.DataFrame({"what": [1]}).to_parquet(tmp_path / "other" / "identifiability.parquet")
    assert "cannot be drawn or summed up: it lacks &#39;metric&#39;" in text_of(report(tmp_path / "other").html)


def test_unsuitable_null_controls_are_errors(folder: Path, tmp_path: Path) -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    sweep(
        freshly_initialised(model, 0),
        EmojiScenes(5, 2),
        [Identifiability(resampling=Resampling(9))],
        out=tmp_path / "five",
    )
    with pytest.raises(ValueError, match=r"is not a null control of .*: they differ in the dataset; run the"):
        report(folder, null=tmp_path / "five")
    with pytest.raises(ValueError, match="it has the same weights"):
        report(folder, null=folder)
    with pytest.raises(ValueError, match="no sweep in"):
        report(tmp_path / "nowhere")


def test_the_command_writes_the_page(plain: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(plain)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{plain / 'report.html'}\n"
    # the same tables give the same page
    assert (plain / "report.html").read_text("utf-8") == report(plain).html
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: no sweep in '{tmp_path}'")
    again = CliRunner().invoke(app, ["sweep", "--data", "emoji-scenes:3", "--out", str(tmp_path / "x"),
                                     "--random-weights", "--null-control"])  # fmt: skip
    assert again.exit_code == 2
    assert "needs another one to control" in again.stderr


def test_without_a_browser_there_is_no_pdf_and_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HOOKED_VIT_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"a PDF needs Chromium or Chrome, and none was found .*print it there"):
        print_page("<p>", tmp_path / "page.pdf")
    false = tmp_path / "false"
    false.write_text("#!/bin/sh\necho 'no display' >&2\nexit 1\n")
    false.chmod(0o755)
    monkeypatch.setenv("HOOKED_VIT_CHROMIUM", str(false))
    with pytest.raises(ValueError, match="did not print the page: no display"):
        print_page("<p>", tmp_path / "page.pdf")
    assert not (tmp_path / "page.pdf").exists()

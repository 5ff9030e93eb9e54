"""A finished sweep is read from its folder; any other folder is refused with the reason."""

import json
from pathlib import Path

import pytest

from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.identifiability import Identifiability, ImageIdentifiability
from analyses.statistics import Resampling
from analyses.sweep.output import read_sweep
from analyses.sweep.run import sweep
from hooked_vit import HookedViT


def test_a_finished_sweep_comes_back(tmp_path: Path) -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    tables = sweep(model, EmojiScenes(3, 0), {"mine": Identifiability(resampling=Resampling(9))}, out=tmp_path)
    found = read_sweep(tmp_path)
    assert list(found.tables) == list(tables)
    assert found.n_classes == 100
    assert found.kind("mine") == "identifiability"
    assert found.kind("skipped") == ""
    assert found.asked == {}
    (tmp_path / "mine.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"a table of the sweep in .* is missing or damaged: .*; run it again with"):
        read_sweep(tmp_path)
    (tmp_path / "mine.parquet").unlink()
    with pytest.raises(ValueError, match="is missing or damaged"):
        read_sweep(tmp_path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"finished": False}, "is not finished: run it again to resume it"),
        ({"finished": True}, "is not the record of a sweep: it lacks 'model'"),
        ([], "is not the record of a sweep: it lacks 'finished'"),
        ({}, "is not the record of a sweep: it lacks 'finished'"),
    ],
)
def test_other_records_are_refused(record: object, message: str, tmp_path: Path, bad_input: None) -> None:
    (tmp_path / "record.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        read_sweep(tmp_path)


def test_a_sweep_of_format_1_has_todays_kinds(tmp_path: Path) -> None:
    """As an earlier version wrote it: types with their modules, and no format."""
    sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(3, 0), {"mine": ImageIdentifiability()}, out=tmp_path)
    path = tmp_path / "record.json"
    record = json.loads(path.read_text())
    del record["format"]
    record["analyses"]["accuracy"]["type"] = "analyses.sweeping.accuracy.Accuracy"
    record["analyses"]["mine"]["type"] = "analyses.identifiability.ImageIdentifiability"
    path.write_text(json.dumps(record))
    found = read_sweep(tmp_path)
    assert (found.kind("accuracy"), found.kind("mine")) == ("accuracy", "image_identifiability")
    assert len(found.tables["mine"]) == 3 * 8 * 4

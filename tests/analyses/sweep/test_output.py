"""A folder is a finished sweep, or the error says what it is."""

import json
from pathlib import Path

import pytest

from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.identifiability import Identifiability
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
    ("record", "told"),
    [
        ({"finished": False}, "is not finished: run it again, and it goes on where it stopped"),
        ({"finished": True}, "is no record of a sweep: it lacks 'model'"),
        ([], "is no record of a sweep"),
    ],
)
def test_what_is_no_finished_sweep(record: object, told: str, tmp_path: Path, bad_input: None) -> None:
    (tmp_path / "record.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=told):
        read_sweep(tmp_path)

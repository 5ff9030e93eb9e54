"""Files of a sweep are complete or absent, and no other file of the folder is touched."""

import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from analyses.sweep.store import Store, as_read


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write_record({"finished": False})

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space left"):
            store.write_record({"finished": True})
    assert store.read_record() == {"finished": False}
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_tables_come_back(tmp_path: Path) -> None:
    tables = {"one": pd.DataFrame({"layer": [0, 1], "name": ["a", None]}), "two": pd.DataFrame({"x": [1.5]})}
    store = Store(tmp_path / "deep" / "folder")
    store.write_tables(tables, {"a": 1})
    assert store.read_record() == {"a": 1, "tables": ["one", "two"], "finished": True}
    for name, table in store.read_tables(["one", "two"]).items():
        pd.testing.assert_frame_equal(table, tables[name])


def test_as_read_predicts_the_tables_that_are_read(tmp_path: Path) -> None:
    """A column of Python objects comes back as strings, and a frame's index is unchanged."""
    tables = {"one": pd.DataFrame({"reference": pd.Series(["a", None], dtype=object), "head": [1, None]})[::-1]}
    store = Store(tmp_path)
    store.write_tables(tables, {})
    pd.testing.assert_frame_equal(as_read(tables)["one"], store.read_tables(["one"])["one"])
    pd.testing.assert_frame_equal(as_read(as_read(tables))["one"], as_read(tables)["one"])


def test_checkpoints_come_back_by_rank(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.read_checkpoint(1, 2) is None
    store.write_checkpoint(1, 2, {"next_batch": 3, "nested": [["a", 0, {"x": torch.ones(2)}]]})
    found = store.read_checkpoint(1, 2)
    assert found is not None
    assert found["next_batch"] == 3
    assert found["nested"][0][2]["x"].tolist() == [1, 1]
    assert store.read_checkpoint(0, 2) is None


def test_clearing_removes_only_the_sweeps_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_tables({"one": pd.DataFrame({"x": [1]})}, {})
    store.write_checkpoint(0, 1, {})
    (tmp_path / ".one.parquet.123.tmp").touch()
    for name in (".record.json.123.tmp", ".two.parquet.123.tmp", "mine.parquet", ".mine.parquet.123.tmp"):
        (tmp_path / name).touch()
    store.clear(["two"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.parquet.123.tmp", "mine.parquet"]


def test_a_file_being_written_survives_another_process_that_clears_its_checkpoints(tmp_path: Path) -> None:
    temporary = tmp_path / ".record.json.123.tmp"
    temporary.touch()
    Store(tmp_path).clear_checkpoints()
    assert temporary.exists()


def test_a_file_or_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file: out must be a folder"):
        Store(tmp_path / "file")
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "record.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"is not the record of a sweep: .*; choose another folder"):
            Store(tmp_path).read_record()

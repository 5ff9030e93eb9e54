"""A killed sweep resumes and ends with the tables of an uninterrupted one; a different sweep is refused."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sweep_toys
import torch
from sweep_toys import (
    BATCH_SIZE,
    READABLE,
    FloatSums,
    ImageRows,
    ToyImages,
    assert_same_tables,
    forked,
    forked_result,
    in_a_process,
    run,
    toy_analyses,
    toy_model,
)

from analyses.sweep.run import sweep
from analyses.sweep.store import Store


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The tables of an uninterrupted sweep."""
    return run(str(tmp_path_factory.mktemp("undisturbed")))


def in_a_copy(work: Callable[[], Any], tmp_path: Path) -> Any:
    return forked_result(forked(work, tmp_path / "result"), tmp_path / "result")


@pytest.mark.parametrize("at_image", [0, 4, 7, 12, 36])
def test_kill_9_loses_and_repeats_nothing(
    undisturbed: dict[str, pd.DataFrame], images_passed: list[int], tmp_path: Path, at_image: int
) -> None:
    out, marker = tmp_path / "out", str(tmp_path / "marker")
    assert in_a_copy(lambda: run(str(out), at_image, marker), tmp_path) == "killed"
    assert not list(out.glob("*.parquet"))
    tables = run(str(out), at_image, marker)
    assert_same_tables(tables, undisturbed)
    assert tables["image_rows"]["index"].tolist() == READABLE
    # a checkpoint was written after each batch, so only the batches from the kill on are run now
    assert sum(images_passed) == len([index for index in READABLE if index >= at_image // BATCH_SIZE * BATCH_SIZE])
    assert {path.name for path in out.iterdir()} == {*(f"{name}.parquet" for name in tables), "record.json"}


def test_killed_again_and_again(undisturbed: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for at_image in (0, 6, 13, 29):
        marker = str(tmp_path / f"marker-{at_image}")
        assert in_a_copy(lambda i=at_image, m=marker: run(out, i, m), tmp_path) == "killed"
    assert_same_tables(run(out), undisturbed)


@pytest.mark.parametrize("nth", range(1, 16, 2))
def test_killed_while_a_file_is_written(
    undisturbed: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """An incomplete record, checkpoint or table never replaces a complete one."""
    calls = iter(range(1, 1000))

    def killed_in_between(descriptor: int) -> None:
        if next(calls) == nth:
            os.ftruncate(descriptor, 20)
            os.kill(os.getpid(), signal.SIGKILL)

    def interrupted() -> dict[str, pd.DataFrame]:
        monkeypatch.setattr(os, "fsync", killed_in_between)
        monkeypatch.setattr("analyses.sweep.store.flush_folder", lambda folder: None)
        return run(str(tmp_path / "out"))

    assert in_a_copy(interrupted, tmp_path) == "killed"
    assert list((tmp_path / "out").rglob("*.tmp"))
    assert_same_tables(run(str(tmp_path / "out")), undisturbed)
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_kill_9_of_a_program(undisturbed: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    script, out = str(Path(sweep_toys.__file__)), str(tmp_path)
    killed = in_a_process(script, out, "21", str(tmp_path / "marker"), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert_same_tables(run(out), undisturbed)


def test_without_a_checkpoint_yet_it_starts_over(undisturbed: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    out, marker = str(tmp_path / "out"), str(tmp_path / "marker")

    def rarely_written() -> Any:
        from sweep_toys import KillOnce

        killer = KillOnce(at_image=20, marker=marker)
        return sweep(toy_model(), ToyImages(), toy_analyses(killer), BATCH_SIZE, out, checkpoint_every=1000)

    assert in_a_copy(rarely_written, tmp_path) == "killed"
    assert_same_tables(run(out), undisturbed)


def test_a_finished_sweep_is_read_not_repeated(
    undisturbed: dict[str, pd.DataFrame], images_passed: list[int], tmp_path: Path
) -> None:
    run(str(tmp_path))
    images_passed.clear()
    assert_same_tables(run(str(tmp_path)), undisturbed)
    assert not images_passed


def test_resume_false_starts_over_and_leaves_other_files(tmp_path: Path, images_passed: list[int]) -> None:
    out = tmp_path / "out"
    sweep(toy_model(), ToyImages(5), [FloatSums()], 2, out)
    (out / "notes.txt").write_text("mine")
    tables = sweep(toy_model(), ToyImages(9), [ImageRows()], 2, out, resume=False)
    assert {path.name for path in out.iterdir()} == {
        *(f"{name}.parquet" for name in tables),
        "record.json",
        "notes.txt",
    }
    images_passed.clear()
    sweep(toy_model(), ToyImages(9), [ImageRows()], 2, out, resume=False)
    assert sum(images_passed) == 7


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "weights": ({"model": toy_model(seed=1)}, "model.weights_sha256: "),
    "preprocessing": ({"model": "other preprocessing"}, "preprocessing.crop_pct: 0.875 then, 1.0 now"),
    "dataset": ({"dataset": ToyImages(seed=3)}, "dataset.description.seed: 0 then, 3 now"),
    "number of images": ({"limit": 20}, "dataset.n_images: 37 then, 20 now"),
    "an analysis's options": ({"analyses": [FloatSums(3)]}, "analyses.float_sums.options.power: 1 then, 3 now"),
    "analyses": ({"analyses": [ImageRows()]}, "analyses.float_sums: .* then, nothing now"),
    "batch size": ({"batch_size": 5}, "options.batch_size: 4 then, 5 now"),
    "errors": ({"on_error": "raise"}, "options.on_error: skip then, raise now"),
    "interventions": ({"fwd_hooks": [("hook_pooled", print)]}, "model.hooks: .* then, .*print.* now"),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("what", CHANGES)
def test_a_different_sweep_is_refused_with_the_differences(tmp_path: Path, what: str, finished: bool) -> None:
    arguments: dict[str, Any] = {
        "model": toy_model(), "dataset": ToyImages(), "analyses": [FloatSums()], "batch_size": 4,
        "out": tmp_path / "out",
    }  # fmt: skip
    sweep(**arguments)
    record = tmp_path / "out" / "record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "finished": finished}))
    change, message = CHANGES[what]
    arguments |= change
    if change.get("model") == "other preprocessing":
        arguments["model"] = toy_model()
        arguments["model"].data_config["crop_pct"] = 1.0
    with pytest.raises(ValueError, match=r"(?s)they differ in\s+" + message + ".*resume=False"):
        sweep(**arguments)


def test_checkpoints_run_no_code(tmp_path: Path) -> None:
    """A checkpoint that holds anything but tensors, numbers and strings is refused."""

    class Malicious:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    store = Store(tmp_path / "out")
    assert in_a_copy(lambda: run(str(tmp_path / "out"), 20, str(tmp_path / "marker")), tmp_path) == "killed"
    (checkpoint,) = (tmp_path / "out" / "checkpoints").iterdir()
    assert store.read_checkpoint(0, 1) is not None
    torch.save({"record": "{}", "totals": Malicious()}, checkpoint)
    with pytest.raises(ValueError, match=r"(?s)checkpoint .* is damaged: .*; delete it to run its share again"):
        run(str(tmp_path / "out"))
    assert not (tmp_path / "ran").exists()


def test_the_record_describes_the_sweep(tmp_path: Path) -> None:
    run(str(tmp_path))
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["finished"] is True
    assert record["model"]["cfg"]["n_layers"] == 3
    assert len(record["model"]["weights_sha256"]) == 64
    assert record["preprocessing"]["crop_mode"] == "center"
    assert record["dataset"] == {"n_images": 37, "description": {"type": "sweep_toys.ToyImages", "n": 37, "seed": 0}}
    assert record["analyses"]["float_sums"] == {"type": "float_sums", "options": {"power": 1}}
    assert record["definitions"]["accuracy"].startswith("Percentage of images whose class has the largest logit")
    assert record["hook_points"]["image_rows"] == ["hook_pooled"]
    assert record["options"] == {"batch_size": 4, "on_error": "skip"}
    assert record["versions"]["torch"]
    for name in record["tables"]:
        assert len(pd.read_parquet(tmp_path / f"{name}.parquet").columns)

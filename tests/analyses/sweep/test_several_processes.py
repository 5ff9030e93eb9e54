"""Several processes compute the tables of one process to the bit, also when one is killed and all are restarted."""

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sweep_toys
from sweep_toys import ToyImages, assert_same_tables, forked, forked_result, in_a_process, run, toy_analyses, toy_model

from analyses.categorical_updates.over_dataset import CategoricalUpdates
from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.identifiability import Identifiability
from analyses.perturbation.over_dataset import Perturbation
from analyses.statistics import Resampling
from analyses.sweep.run import sweep
from analyses.sweep.store import Store
from hooked_vit import HookedViT


@pytest.fixture(scope="module")
def one_process_tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The tables that one process computes."""
    return run(str(tmp_path_factory.mktemp("one")))


def together(works: Sequence[Callable[[], Any]], tmp_path: Path) -> list[Any]:
    """Run each of `works` in its own process, with torchrun's environment; processes left waiting are killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(len(works))}
    files = [tmp_path / f"result-{rank}" for rank in range(len(works))]
    copies = [
        forked(work, file, **environment, RANK=str(rank))
        for rank, (work, file) in enumerate(zip(works, files, strict=True))
    ]
    results: list[Any] = [None] * len(works)
    # the last one first, since it is the one that is killed; the others are then killed, as torchrun does
    for rank in reversed(range(len(works))):
        results[rank] = forked_result(copies[rank], files[rank])
        if results[rank] == "killed":
            for other in range(rank):
                os.kill(copies[other], signal.SIGKILL)
    return results


@pytest.mark.parametrize("n_processes", [2, 4, 11])
def test_tables_are_those_one_process_tables(
    one_process_tables: dict[str, pd.DataFrame], tmp_path: Path, n_processes: int
) -> None:
    """Ten batches, the last of one image: 5 and 5 of 20 and 17 images, 2, 3, 2, 3, and more processes than batches."""
    results = together([lambda: run(str(tmp_path / "out"))] * n_processes, tmp_path)
    for result in results:
        assert_same_tables(result, one_process_tables)
    assert_same_tables(
        {n: pd.read_parquet(tmp_path / "out" / f"{n}.parquet") for n in one_process_tables}, one_process_tables
    )
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_processes_share_a_sweep_without_a_folder(one_process_tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    for result in together([lambda: sweep(toy_model(), ToyImages(), toy_analyses(), 4)] * 2, tmp_path):
        assert_same_tables(result, one_process_tables)


def test_the_papers_analyses_merge_exactly(tmp_path: Path) -> None:
    model, scenes = HookedViT.from_pretrained("emoji-vit"), EmojiScenes(7, seed=4)

    def work() -> dict[str, pd.DataFrame]:
        kinds = (Identifiability, CategoricalUpdates, Perturbation)
        analyses = [kind(resampling=Resampling(9)) for kind in kinds]
        return sweep(model, scenes, analyses, 2)

    expected = work()
    for result in together([work] * 2, tmp_path):
        assert_same_tables(result, expected)


@pytest.mark.parametrize("shared_disk", [True, False])
def test_all_processes_restart_after_one_is_killed(
    one_process_tables: dict[str, pd.DataFrame], tmp_path: Path, shared_disk: bool
) -> None:
    outs = [str(tmp_path / ("out" if shared_disk else f"out-{rank}")) for rank in range(2)]
    works = [lambda out=out: run(out, at_image=29, marker=str(tmp_path / "marker")) for out in outs]
    assert together(works, tmp_path)[1] == "killed"
    for result in together(works, tmp_path):
        assert_same_tables(result, one_process_tables)
    # and a finished one is read by all
    for result in together(works, tmp_path):
        assert_same_tables(result, one_process_tables)


def test_another_number_of_processes_cannot_continue(tmp_path: Path) -> None:
    works = [lambda: run(str(tmp_path / "out"), at_image=29, marker=str(tmp_path / "marker"))] * 2
    assert together(works, tmp_path)[1] == "killed"
    with pytest.raises(ValueError, match="processes: 2 then, 1 now"):
        run(str(tmp_path / "out"))


def test_a_problem_one_process_tables_is_raised_in_all(tmp_path: Path) -> None:
    """The other processes are not left waiting."""
    works = [lambda seed=seed: sweep(toy_model(seed), ToyImages(), [], 4, tmp_path / f"{seed}") for seed in range(2)]
    sweep(toy_model(5), ToyImages(), [], 4, tmp_path / "1")
    for result in together(works, tmp_path):
        assert isinstance(result, ValueError)
        assert "model.weights_sha256" in str(result)


def test_the_first_process_may_write_as_soon_as_its_sweep_has_returned(tmp_path: Path) -> None:
    """The others may still be clearing their checkpoints, which must not touch a file that it is writing."""

    def clear_slowly(store: Store) -> None:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            clear_checkpoints(store)

    def work(out: Path) -> str:
        if os.environ["RANK"] == "1":
            Store.clear_checkpoints = clear_slowly
        sweep(toy_model(), ToyImages(3), [], 1, out)
        end = time.monotonic() + 0.4
        while os.environ["RANK"] == "0" and time.monotonic() < end:
            Store(out).write_record({"asked": "this", "finished": True})
        return "done"

    clear_checkpoints = Store.clear_checkpoints
    for out in (tmp_path / "0", tmp_path / "1", tmp_path / "2"):
        assert together([lambda out=out: work(out)] * 2, tmp_path) == ["done", "done"]
        assert Store(out).read_record() == {"asked": "this", "finished": True}
        assert sorted(path.name for path in out.iterdir()) == ["accuracy.parquet", "record.json", "skipped.parquet"]


@pytest.mark.slow
def test_torchrun_restarts_what_was_killed(one_process_tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    """A real agent and two programs on the loopback interface; the second is killed and both are restarted.

    Without `fresh_store`, torch 2.14 fails or hangs: gloo finds the addresses of the first start in the agent's store.
    """
    script = str(Path(sweep_toys.__file__))
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1", "--monitor-interval=0.1",
                "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]  # fmt: skip
    result = in_a_process(*launcher, script, str(tmp_path), "29", str(tmp_path / "marker"))
    assert (tmp_path / "marker").exists()
    assert "exitcode: -9" in result.stderr
    for rank in range(2):
        assert_same_tables(pd.read_pickle(tmp_path / f"result-{rank}.pickle"), one_process_tables)

"""The batches of each process, and the store of a launcher that restarts its processes."""

import itertools
import threading
from datetime import timedelta

import pytest
from torch import distributed

from analyses.sweep.processes import Processes, fresh_store, join_processes


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("n_batches", [1, 2, 10, 11])
def test_shares_are_all_batches_in_order(count: int, n_batches: int) -> None:
    shares = [list(Processes(rank, count).share(n_batches)) for rank in range(count)]
    assert list(itertools.chain(*shares)) == list(range(n_batches))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_processes() == Processes()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Processes().gather("x") == ["x"]
    assert join_processes() == Processes()


def test_each_start_has_its_own_part_of_the_store() -> None:
    """The first process joins last, so that the others find the entries of the previous start."""
    shared = distributed.HashStore()
    shared.set_timeout(timedelta(seconds=20))
    for start in range(3):
        found: dict[int, distributed.Store] = {}

        def join(rank: int, found: dict[int, distributed.Store] = found) -> None:
            found[rank] = fresh_store(shared, rank, 3)

        threads = [threading.Thread(target=join, args=(rank,)) for rank in (2, 1, 0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(found) == [0, 1, 2]
        assert not found[0].check(["address"])
        found[0].set("address", str(start))
        assert all(store.get("address").decode() == str(start) for store in found.values())

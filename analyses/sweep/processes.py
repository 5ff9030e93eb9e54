"""The processes that share a sweep: which batches each takes, and how what each has reaches all."""

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

from torch import distributed

__all__ = ["Processes", "join_processes"]

# processes finish at different times, and one may wait for another that is being restarted
_PATIENCE = timedelta(days=30)

# what torchrun (and through it `accelerate launch`) and the kinds of mpirun say the number of processes in
_LAUNCHERS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class Processes:
    """This process among those of a sweep.

    >>> Processes(rank=1, count=3).share(10)
    range(3, 6)
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    def share(self, n_batches: int) -> range:
        """The batches of this process: contiguous, so that all processes' in turn are all batches in order."""
        return range(n_batches * self.rank // self.count, n_batches * (self.rank + 1) // self.count)

    def gather(self, value: Any) -> list[Any]:
        """What every process gives here, by rank; to all of them."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count
        distributed.all_gather_object(gathered, value, group=self.group)
        return gathered


def join_processes() -> Processes:
    """Meet the others, under `accelerate launch`, torchrun or mpirun, or in a process group that is there already.

    What is exchanged is small and lies on the CPU, so it goes through gloo whatever the models run on.
    """
    if not distributed.is_available():
        return Processes()
    if not distributed.is_initialized():
        if not any(name in os.environ for name in _LAUNCHERS):
            return Processes()
        from accelerate.utils import get_cpu_distributed_information

        place = get_cpu_distributed_information()
        if place.world_size == 1:
            return Processes()
        store, rank, count = next(distributed.rendezvous("env://", place.rank, place.world_size))
        store = _unused(store, rank, count)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    if distributed.get_world_size() == 1:
        return Processes()
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return Processes(distributed.get_rank(), distributed.get_world_size(), group)


def _unused(store: Any, rank: int, count: int) -> distributed.Store:
    """A part of the launcher's store in which no earlier start of these processes has left anything.

    torchrun keeps its store when it starts processes again, and gloo would find the addresses of dead ones in it
    (pytorch issue 135712; the launcher's count of restarts differs between machines). So the first process makes up
    a name for this start, the others answer to it, and it confirms them: an answer of an earlier start is not theirs.
    """
    me = uuid4().hex
    if rank == 0:
        store.set("sweep/first", me)
        store.set(f"sweep/{me}/all", ",".join(store.get(f"sweep/{me}/{other}").decode() for other in range(1, count)))
        return distributed.PrefixStore(f"sweep/{me}", store)
    while True:
        first = store.get("sweep/first").decode()
        store.set(f"sweep/{first}/{rank}", me)
        if store.check([f"sweep/{first}/all"]) and me in store.get(f"sweep/{first}/all").decode().split(","):
            return distributed.PrefixStore(f"sweep/{first}", store)
        time.sleep(0.02)

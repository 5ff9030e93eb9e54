"""The processes that share a sweep: the batches of each, and the exchange of their results."""

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

from torch import distributed

__all__ = ["Processes", "fresh_store", "join_processes"]

# processes finish at different times, and one may wait for another that is being restarted
_TIMEOUT = timedelta(days=30)

# environment variables in which torchrun (also under `accelerate launch`) and kinds of mpirun pass the process count
_COUNT_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


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
        """The batches of this process: contiguous, so that the shares of all processes in turn are all batches."""
        return range(n_batches * self.rank // self.count, n_batches * (self.rank + 1) // self.count)

    def gather(self, value: Any) -> list[Any]:
        """The values that all processes pass here, by rank, returned to all of them."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count
        distributed.all_gather_object(gathered, value, group=self.group)
        return gathered


def join_processes() -> Processes:
    """Join the other processes, under `accelerate launch`, torchrun or mpirun, or in an existing process group.

    The exchanged values are small and on the CPU, so they go through gloo whatever device the models run on.
    """
    if not distributed.is_available():
        return Processes()
    if not distributed.is_initialized():
        if not any(name in os.environ for name in _COUNT_VARIABLES):
            return Processes()
        from accelerate.utils import get_cpu_distributed_information

        info = get_cpu_distributed_information()
        if info.world_size == 1:
            return Processes()
        store, rank, count = next(distributed.rendezvous("env://", info.rank, info.world_size))
        store = fresh_store(store, rank, count)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=_TIMEOUT)
    if distributed.get_world_size() == 1:
        return Processes()
    group = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
    return Processes(distributed.get_rank(), distributed.get_world_size(), group)


def fresh_store(store: Any, rank: int, count: int) -> distributed.Store:
    """A prefix of the launcher's store under which no earlier start of these processes has written anything.

    torchrun keeps its store when it restarts processes, and gloo would find the addresses of dead processes in it
    (pytorch issue 135712; the launcher's count of restarts differs between machines). So the first process draws a
    name for this start, the others reply with names of their own, and it lists the replies: a process that is not
    on the list has read the name of an earlier start, and tries again.
    """
    own_name = uuid4().hex
    if rank == 0:
        store.set("sweep/first", own_name)
        replies = (store.get(f"sweep/{own_name}/{other}").decode() for other in range(1, count))
        store.set(f"sweep/{own_name}/all", ",".join(replies))
        return distributed.PrefixStore(f"sweep/{own_name}", store)
    while True:
        first = store.get("sweep/first").decode()
        store.set(f"sweep/{first}/{rank}", own_name)
        if store.check([f"sweep/{first}/all"]) and own_name in store.get(f"sweep/{first}/all").decode().split(","):
            return distributed.PrefixStore(f"sweep/{first}", store)
        time.sleep(0.02)

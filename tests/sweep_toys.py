"""A small model, dataset and analyses for the tests of sweeps; as a script, runs one sweep of them."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pandas.testing import assert_frame_equal
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.sweep.run import sweep
from hooked_vit import HookedViT, HookedViTConfig

N_IMAGES, BATCH_SIZE = 37, 4
UNREADABLE = [5, 8, 9, 10, 11, 17, 30]
READABLE = [index for index in range(N_IMAGES) if index not in UNREADABLE]


def toy_model(seed: int = 0) -> HookedViT:
    """3 blocks, 7 classes, images of 32 × 24; the same weights in every process."""
    # imported here, so that a separate process runs without shape enforcement, as for users
    from conftest import make_timm

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return HookedViT.from_timm(make_timm("cls", seed))


class ToyImages(torch.utils.data.Dataset):
    """Noise images; 5, 8 to 11 (a whole batch) and 30 cannot be read, and 17 holds NaN."""

    broken = (5, 8, 9, 10, 11, 30)

    def __init__(self, n: int = N_IMAGES, seed: int = 0):
        self.n, self.seed = n, seed

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        if index in self.broken:
            raise OSError(f"image {index} is on a broken disk")
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        image = torch.randn(3, 32, 24, generator=generator)
        if index == 17:
            image[0, 3, 4] = torch.nan
        return image, index % 7, image[0] > 0


class FloatSums(Analysis):
    """Sums whose last bits depend on the order of summation."""

    float32: Tensor
    float64: Tensor
    largest: Tensor

    def __init__(self, power: int = 1):
        super().__init__()
        self.power = power
        self.add_state("float32", torch.zeros(3), dist_reduce_fx="sum")
        self.add_state("float64", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("largest", torch.tensor(-torch.inf), dist_reduce_fx="max")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        return [f"blocks.{layer}.hook_resid_post" for layer in range(cfg.n_layers)]

    def update(self, batch: AnalysisBatch) -> None:
        stacked = torch.stack([batch.cache["resid_post", layer] for layer in range(3)]) ** self.power
        self.float32 += stacked.sum((1, 2, 3))
        self.float64 += stacked.double().sum((1, 2, 3))
        self.largest = torch.maximum(self.largest, stacked.max())

    def compute(self) -> pd.DataFrame:
        return pd.DataFrame(
            {"layer": range(3), "float32": self.float32.numpy(), "float64": self.float64.numpy(),
             "largest": float(self.largest)}
        )  # fmt: skip


class ImageRows(Analysis):
    """One row per image: its index, its largest logit, the size of its object."""

    index: list[Tensor]
    values: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("index", [], dist_reduce_fx="cat")
        self.add_state("values", [], dist_reduce_fx="cat")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        return ["hook_pooled"]

    def update(self, batch: AnalysisBatch) -> None:
        assert batch.object_mask is not None
        self.index.append(batch.index)
        values = batch.logits.amax(-1), batch.cache["hook_pooled"].sum(-1), batch.object_mask.flatten(1).sum(-1)
        self.values.append(torch.stack(values, dim=1))

    def compute(self) -> pd.DataFrame:
        values = torch.cat(self.values).numpy()
        return pd.DataFrame({"index": torch.cat(self.index).numpy(), "logit": values[:, 0], "pooled": values[:, 1],
                             "object": values[:, 2]})  # fmt: skip


class KillOnce(Analysis):
    """Kills its process, as kill -9 does, at a given image; only once, since it then leaves a marker file."""

    n: Tensor

    def __init__(self, **test: int | str):
        # not an option in the record: a run without a kill is the same sweep
        super().__init__()
        self.at_image, self.marker = int(test.get("at_image", -1)), Path(test.get("marker", ""))
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        return []

    def update(self, batch: AnalysisBatch) -> None:
        if self.at_image in batch.index and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.n += len(batch.index)

    def compute(self) -> pd.DataFrame:
        return pd.DataFrame({"n": [int(self.n)]})


def toy_analyses(killer: KillOnce | None = None) -> list[Analysis]:
    return [FloatSums(), ImageRows(), killer or KillOnce()]


def run(out: str, at_image: int = -1, marker: str = "", **options) -> dict[str, pd.DataFrame]:
    """The sweep of the tests; with an image, it is killed once at that image."""
    return sweep(toy_model(), ToyImages(), toy_analyses(KillOnce(at_image=at_image, marker=marker)), BATCH_SIZE, out,
                 checkpoint_every=0, **options)  # fmt: skip


def assert_same_tables(tables: dict[str, pd.DataFrame], others: dict[str, pd.DataFrame]) -> None:
    """Check that the tables are bit-identical."""
    assert tables.keys() == others.keys()
    for name, table in tables.items():
        assert_frame_equal(table, others[name], check_exact=True, obj=name)


def in_a_process(*arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the tests' modules in its path and one thread."""
    tests = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, env={**env, **environment}, capture_output=True, text=True, timeout=300)
    assert not check or result.returncode == 0, result.stderr
    return result


def forked(work: Callable[[], Any], result_to: Path, **environment: str) -> int:
    """Call `work` in a fork of this process, which starts quickly; returns its process id, for `forked_result`."""
    copy = os.fork()
    if copy:
        return copy
    try:
        os.environ.update(environment)
        result_to.write_bytes(pickle.dumps(work()))
        os._exit(0)
    except BaseException as error:
        result_to.write_bytes(pickle.dumps(error))
        os._exit(1)


def forked_result(copy: int, result_to: Path) -> Any:
    """The value that a fork returned or raised, or `"killed"`; waits for it."""
    _, status = os.waitpid(copy, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return "killed"
    return pickle.loads(result_to.read_bytes())


if __name__ == "__main__":
    # imported by name, so that its classes are those of the tests
    import sweep_toys

    folder, image, marker_file = sys.argv[1:]
    rank = os.environ.get("RANK", "0")
    tables = sweep_toys.run(folder, int(image), marker_file)
    Path(folder, f"result-{rank}.pickle").write_bytes(pickle.dumps(tables))

"""Totals are bit-identical however batches are divided, and are the states that torchmetrics would have."""

import itertools

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from analyses.sweep.totals import Totals


class Toy(Metric):
    """A state of each kind; batches are vectors of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("fractions", torch.zeros(2), dist_reduce_fx="sum")
        self.add_state("whole", torch.tensor(0, dtype=torch.int32), dist_reduce_fx="sum")
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("largest", torch.tensor(-torch.inf), dist_reduce_fx="max")
        self.add_state("smallest", torch.tensor(99), dist_reduce_fx="min")

    def update(self, batch: Tensor) -> None:
        self.fractions = self.fractions + torch.stack([batch.sum(), (batch**2).sum()])
        self.whole += len(batch)
        self.rows.append(batch)
        self.largest = torch.maximum(self.largest, batch.max())
        self.smallest = torch.minimum(self.smallest, torch.tensor(len(batch)))

    def compute(self) -> None: ...


def batches(n: int) -> list[Tensor | None]:
    """Batches of different lengths and magnitudes; every seventh has no images."""
    generator = torch.Generator().manual_seed(n)
    return [None if i % 7 == 3 else 10 ** (i % 5) * torch.randn(1 + i % 4, generator=generator) for i in range(n)]


def total(values: list[Tensor | None], first: int = 0) -> Totals:
    metric, totals = Toy(), Totals()
    for number, value in enumerate(values, first):
        if value is not None:
            metric.update(value)
        totals.add_batch(number, metric)
    return totals


def state(totals: Totals) -> dict[str, Tensor]:
    metric = Toy()
    totals.put_into(metric)
    return {name: torch.cat(value) if isinstance(value, list) else value for name, value in metric.metric_state.items()}


@pytest.mark.parametrize("n", [1, 2, 5, 8, 13])
def test_the_same_bits_however_batches_are_divided(n: int) -> None:
    values = batches(n)
    expected = state(total(values))
    for cuts in itertools.chain.from_iterable(itertools.combinations(range(n + 1), k) for k in (1, 2, 3)):
        ends = [0, *cuts, n]
        merged = Totals()
        for first, last in itertools.pairwise(ends):
            merged.merge(Totals.unpack(total(values[first:last], first).pack()))
        for name, value in state(merged).items():
            assert torch.equal(value, expected[name]), (name, cuts)


def test_a_plain_sum_depends_on_the_order() -> None:
    """With the numbers of these tests, another order of summation changes the result."""
    sums = [batch.sum() for batch in batches(13) if batch is not None]
    assert not torch.equal(torch.as_tensor(sum(sums)), torch.as_tensor(sum(reversed(sums))))


def test_states_are_torchmetrics_own() -> None:
    values = batches(9)
    metric = Toy()
    for value in values:
        if value is not None:
            metric.update(value)
    found, plain = state(total(values)), metric.metric_state
    assert torch.equal(found["rows"], torch.cat(plain["rows"]))  # type: ignore[arg-type]
    for name in ("whole", "largest", "smallest"):
        assert found[name] == plain[name]
    assert torch.allclose(found["fractions"], plain["fractions"])  # type: ignore[arg-type]
    assert metric.update_count == 8


def test_the_number_of_nodes_is_logarithmic() -> None:
    totals, metric = Totals(), Toy()
    for number in range(1000, 1500):
        metric.update(torch.ones(1))
        totals.add_batch(number, metric)
        assert len(totals.pack()["nodes"]) <= 2 * 9


def test_whole_numbers_do_not_overflow() -> None:
    class Small(Toy):
        def update(self, batch: Tensor) -> None:
            self.whole = torch.tensor(2**31 - 1, dtype=torch.int32)

    totals, metric = Totals(), Small()
    for number in range(3):
        metric.update(torch.ones(1))
        totals.add_batch(number, metric)
    totals.put_into(metric)
    assert metric.whole == 3 * (2**31 - 1)


def test_states_made_at_the_first_update_are_restored() -> None:
    class Late(Metric):
        def update(self, batch: Tensor) -> None:
            if "late" not in self._defaults:
                self.add_state("late", torch.zeros(3), dist_reduce_fx="sum")
            self.late += batch

        def compute(self) -> Tensor:
            return self.late

    totals, metric = Totals(), Late()
    metric.update(torch.ones(3))
    totals.add_batch(0, metric)
    fresh = Late()
    Totals.unpack(totals.pack()).put_into(fresh)
    assert fresh.compute().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("default", "reduction"),
    [(torch.zeros(1), "mean"), (torch.zeros(1), None), (torch.ones(1), "sum"), (torch.zeros(1), lambda x: x.prod(0))],
)
def test_a_state_that_does_not_add_up_is_refused(default: Tensor, reduction: object) -> None:
    class Other(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.add_state("other", default, dist_reduce_fx=reduction)  # type: ignore[arg-type]

    metric = Other()
    metric.update(torch.ones(1))
    with pytest.raises(ValueError, match=r'state \'other\' of Other does not add up .* "sum" with a default of zeros'):
        Totals().add_batch(0, metric)

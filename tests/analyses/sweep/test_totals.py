"""Totals: the same bits however batches are divided, and states as torchmetrics would have them."""

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
    """Of different lengths and magnitudes; every seventh has no images."""
    generator = torch.Generator().manual_seed(n)
    return [None if i % 7 == 3 else 10 ** (i % 5) * torch.randn(1 + i % 4, generator=generator) for i in range(n)]


def total(some: list[Tensor | None], first: int = 0) -> Totals:
    metric, totals = Toy(), Totals()
    for place, batch in enumerate(some, first):
        if batch is not None:
            metric.update(batch)
        totals.take(metric, place)
    return totals


def state(totals: Totals) -> dict[str, Tensor]:
    metric = Toy()
    totals.put_into(metric)
    return {name: torch.cat(one) if isinstance(one, list) else one for name, one in metric.metric_state.items()}


@pytest.mark.parametrize("n", [1, 2, 5, 8, 13])
def test_the_same_bits_however_batches_are_divided(n: int) -> None:
    some = batches(n)
    expected = state(total(some))
    for cuts in itertools.chain.from_iterable(itertools.combinations(range(n + 1), k) for k in (1, 2, 3)):
        ends = [0, *cuts, n]
        merged = Totals()
        for first, last in itertools.pairwise(ends):
            merged.merge(Totals.unpack(total(some[first:last], first).pack()))
        for name, value in state(merged).items():
            assert torch.equal(value, expected[name]), (name, cuts)


def test_a_plain_sum_would_not_do() -> None:
    """The numbers of these tests are such that another order of summing shows."""
    some = [one.sum() for one in batches(13) if one is not None]
    plain = sum(some)
    turned = sum(reversed(some))
    assert not torch.equal(torch.as_tensor(plain), torch.as_tensor(turned))


def test_states_are_torchmetrics_own() -> None:
    some = batches(9)
    metric = Toy()
    for batch in some:
        if batch is not None:
            metric.update(batch)
    found, plain = state(total(some)), metric.metric_state
    assert torch.equal(found["rows"], torch.cat(plain["rows"]))  # type: ignore[arg-type]
    for name in ("whole", "largest", "smallest"):
        assert found[name] == plain[name]
    assert torch.allclose(found["fractions"], plain["fractions"])  # type: ignore[arg-type]
    assert metric.update_count == 8


def test_what_is_kept_grows_with_the_logarithm() -> None:
    totals, metric = Totals(), Toy()
    for place in range(1000, 1500):
        metric.update(torch.ones(1))
        totals.take(metric, place)
        assert len(totals.pack()["nodes"]) <= 2 * 9


def test_whole_numbers_do_not_overflow() -> None:
    class Small(Toy):
        def update(self, batch: Tensor) -> None:
            self.whole = torch.tensor(2**31 - 1, dtype=torch.int32)

    totals, metric = Totals(), Small()
    for place in range(3):
        metric.update(torch.ones(1))
        totals.take(metric, place)
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
    totals.take(metric, 0)
    fresh = Late()
    Totals.unpack(totals.pack()).put_into(fresh)
    assert fresh.compute().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("default", "reduction"),
    [(torch.zeros(1), "mean"), (torch.zeros(1), None), (torch.ones(1), "sum"), (torch.zeros(1), lambda x: x.prod(0))],
)
def test_what_does_not_add_up_is_refused(default: Tensor, reduction: object) -> None:
    class Other(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.add_state("other", default, dist_reduce_fx=reduction)  # type: ignore[arg-type]

    metric = Other()
    metric.update(torch.ones(1))
    with pytest.raises(ValueError, match=r'state \'other\' of Other does not add up .* "sum" with a default of zeros'):
        Totals().take(metric, 0)

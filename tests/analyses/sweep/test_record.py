"""An analysis's options, however it keeps them."""

import pandas as pd
import pytest
import torch
from sweep_toys import FloatSums, ToyImages, toy_model

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.sweep.record import analysis_options, check_continues, check_same, make_record


class Toy(Analysis):
    def names(self, cfg):
        return []

    def update(self, batch: AnalysisBatch) -> None: ...

    def compute(self) -> pd.DataFrame:
        return pd.DataFrame()


class Private(Toy):
    def __init__(self, k: int = 5, **kwargs):
        super().__init__(**kwargs)
        self._k = k
        self.seen = 0


class Elsewhere(Toy):
    def __init__(self, k: int = 5):
        super().__init__()
        self.resampling = {"k": k}
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")


@pytest.mark.parametrize(
    ("analysis", "options"),
    [
        (Toy(), {}),
        (FloatSums(3), {"power": 3}),
        (Private(7), {"k": 7}),
        (Elsewhere(7), {"resampling": {"k": 7}}),
    ],
)
def test_options_are_what_it_was_made_with(analysis: Analysis, options: dict) -> None:
    assert analysis_options(analysis) == options


def test_options_do_not_change_with_what_it_has_seen() -> None:
    analysis = Elsewhere(7)
    analysis.n += 1
    analysis.to("cpu")
    analysis._update_count = 1
    assert analysis_options(analysis) == {"resampling": {"k": 7}}


def test_a_finished_sweep_may_have_been_run_by_others() -> None:
    model = toy_model()
    one, two = (make_record(model, ToyImages(), 37, {"sums": FloatSums()}, {}, n) for n in (1, 2))
    check_same(one, two, "there")
    with pytest.raises(ValueError, match=r"'there' holds an interrupted sweep .*\n  processes: 1 then, 2 now"):
        check_continues(one, two, "there")


def test_long_lists_of_differences_are_cut() -> None:
    then, now = ({"options": {str(i): i + change for i in range(12)}} for change in (0, 1))
    with pytest.raises(ValueError, match=r"(?s)options.7: 7 then, 8 now\n  and 4 more\nChoose another folder"):
        check_same(then, now, "there")

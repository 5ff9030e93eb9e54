"""One pass for any number of analyses: forward passes counted, tables against a plain loop, unreadable images."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from sweep_toys import (
    BATCH_SIZE,
    READABLE,
    UNREADABLE,
    FloatSums,
    ImageRows,
    ToyImages,
    assert_same_tables,
    in_a_process,
    toy_analyses,
    toy_model,
)

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.sweep.run import sweep
from hooked_vit import HookedViT


@pytest.fixture
def model() -> HookedViT:
    return toy_model()


class Watching(Analysis):
    """Keeps the names in the cache of each batch."""

    def __init__(self, *names: str):
        super().__init__()
        self.wanted = list(names)
        self.seen: list[set[str]] = []
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")

    def names(self, cfg):
        return self.wanted

    def update(self, batch: AnalysisBatch) -> None:
        self.seen.append(set(batch.cache.cache_dict))
        self.n += 1

    def compute(self) -> pd.DataFrame:
        return pd.DataFrame({"n": [int(self.n)]})


# ---------------------------------------------------------------------- one pass


def test_one_forward_pass_per_batch_for_all_analyses(model: HookedViT, images_passed: list[int]) -> None:
    first, second = Watching("blocks.1.hook_resid_post"), Watching("hook_pooled", "blocks.1.hook_resid_post")
    sweep(model, ToyImages(10), {"first": first, "second": second}, batch_size=BATCH_SIZE)
    assert images_passed == [4, 3]  # one of images 4 to 7 is unreadable, and so are both 8 and 9
    assert first.seen == second.seen == [{"hook_pooled", "blocks.1.hook_resid_post"}] * 2


def test_without_names_nothing_is_cached(model: HookedViT, images_passed: list[int]) -> None:
    analysis = Watching()
    sweep(model, ToyImages(4), [analysis], batch_size=3)
    assert analysis.seen == [set(), set()]
    assert images_passed == [3, 1]


@torch.no_grad()
def test_tables_are_those_of_a_plain_loop(model: HookedViT) -> None:
    dataset = ToyImages()
    tables = sweep(model, dataset, toy_analyses(), BATCH_SIZE)
    rows, sums = tables["image_rows"], torch.zeros(3, dtype=torch.float64)
    assert rows["index"].tolist() == READABLE
    assert tables["kill_once"]["n"].item() == len(READABLE)
    for index, row in zip(READABLE, rows.itertuples(), strict=True):
        image, _, mask = dataset[index]
        logits, cache = model.run_with_cache(image[None], names_filter="resid_post")
        assert row.logit == pytest.approx(float(logits.max()), abs=1e-5)
        assert row.object == int(mask.sum())
        sums += torch.stack([cache["resid_post", layer].double().sum() for layer in range(3)])
    assert torch.allclose(torch.tensor(tables["float_sums"]["float64"].to_numpy()), sums, atol=1e-4)


def test_accuracy_comes_with_every_sweep(model: HookedViT) -> None:
    tables = sweep(model, ToyImages(), [], batch_size=5)
    assert tables.keys() == {"accuracy", "skipped"}
    ranks = []
    for index in READABLE:
        image, label, _ = ToyImages()[index]
        (logits,) = model(image[None])
        ranks.append(int((logits > logits[label]).sum()))
    expected = {
        "n_images": len(ranks),
        "top1": 100 * sum(rank == 0 for rank in ranks) / len(ranks),
        "top5": 100 * sum(rank < 5 for rank in ranks) / len(ranks),
    }
    assert tables["accuracy"].to_dict("records") == [expected]
    assert 0 < expected["top1"] < expected["top5"] < 100


def test_interventions_apply_to_every_batch_and_are_removed_afterwards(model: HookedViT) -> None:
    def silence(activation, hook):
        return torch.zeros_like(activation)

    image = ToyImages()[0][0][None]
    before = model(image)
    tables = sweep(model, ToyImages(4), [FloatSums()], fwd_hooks=[(("resid_post", 2), silence)])
    assert tables["float_sums"]["float32"].tolist()[2] == 0
    assert torch.equal(model(image), before)


def test_limit_takes_the_first_images(model: HookedViT) -> None:
    assert sweep(model, ToyImages(), [ImageRows()], 3, limit=7)["image_rows"]["index"].tolist() == [0, 1, 2, 3, 4, 6]


def test_worker_processes_read_the_same_images(model: HookedViT) -> None:
    assert_same_tables(sweep(model, ToyImages(12), toy_analyses(), 3, num_workers=2),
                       sweep(model, ToyImages(12), toy_analyses(), 3))  # fmt: skip


def test_the_global_random_state_is_unchanged(model: HookedViT) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    sweep(model, ToyImages(4), [])
    assert torch.equal(torch.rand(1), expected)


def test_a_second_sweep_resets_the_analysis(model: HookedViT) -> None:
    analyses = toy_analyses()
    once = sweep(model, ToyImages(9), analyses, 4)
    assert_same_tables(sweep(model, ToyImages(9), analyses, 4), once)


def test_afterwards_an_analysis_has_the_state_of_the_whole_dataset(model: HookedViT) -> None:
    analysis = ImageRows()
    table = sweep(model, ToyImages(), [analysis], 4)["image_rows"]
    assert torch.cat(analysis.index).tolist() == READABLE
    assert_frame_equal(analysis.compute(), table)


def test_a_progress_bar_is_shown_on_request(model: HookedViT, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(model, ToyImages(4), [])
    assert capsys.readouterr() == ("", "")
    sweep(model, ToyImages(4), [], batch_size=1, progress=True)
    shown = capsys.readouterr()
    assert "4/4" in shown.err
    assert "images/s" in shown.err
    assert not shown.out


# ---------------------------------------------------------------------- unreadable images


def test_unreadable_images_are_left_out_and_listed(model: HookedViT) -> None:
    skipped = sweep(model, ToyImages(), [])["skipped"]
    assert skipped["index"].tolist() == UNREADABLE
    assert skipped["reason"][0] == "OSError: image 5 is on a broken disk"
    assert skipped["reason"][5] == "it holds NaN or infinity"
    assert sweep(model, ToyImages(4), [])["skipped"].dtypes.astype(str).tolist() == skipped.dtypes.astype(str).tolist()


def test_unreadable_images_can_stop_the_sweep(model: HookedViT) -> None:
    with pytest.raises(ValueError, match=r"image 5 of the dataset cannot be read: OSError: .* on_error='skip'"):
        sweep(model, ToyImages(), [], on_error="raise")


def test_a_dataset_without_readable_images_is_an_error(model: HookedViT) -> None:
    class Broken(ToyImages):
        broken = range(100)

    with pytest.raises(ValueError, match="none of the 6 images could be read; image 0: OSError: image 0 is on"):
        sweep(model, Broken(6), toy_analyses(), 4)


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"analyses": [FloatSums(), FloatSums(2)]}, "several analyses are called .'float_sums'.*pass a dict"),
        ({"analyses": {"skipped": FloatSums()}}, "'skipped' cannot name a table"),
        ({"analyses": {"a/b": FloatSums()}}, "'a/b' cannot name a table"),
        ({"analyses": [FloatSums]}, "must be an analysis, got the class FloatSums: pass an instance"),
        ({"analyses": [Watching("hook_poled")]}, "unknown hook point 'hook_poled'; did you mean"),
        ({"batch_size": 0}, "batch_size and limit must be at least 1, got 0 and None"),
        ({"on_error": "ignore"}, "on_error is 'skip' or 'raise', not 'ignore'"),
        ({"dataset": iter([])}, "a dataset needs __len__ and __getitem__"),
        ({"dataset": []}, "expected at least one image, got an empty dataset"),
        ({"dataset": [(torch.zeros(3, 32, 24), 7)]}, "item 0 of the dataset has label 7, the model has classes 0 to 6"),
    ],
)
def test_invalid_arguments_are_refused(model: HookedViT, change: dict, message: str) -> None:
    arguments = {"dataset": ToyImages(4), "analyses": [], **change}
    with pytest.raises((ValueError, TypeError), match=message):
        sweep(model, **arguments)


def test_states_that_do_not_add_up_are_refused(model: HookedViT) -> None:
    class Mean(Watching):
        def __init__(self) -> None:
            super().__init__()
            self.add_state("mean", torch.tensor(0.0), dist_reduce_fx="mean")

    with pytest.raises(ValueError, match="state 'mean' of Mean does not add up over batches"):
        sweep(model, ToyImages(4), [Mean()])


# ---------------------------------------------------------------------- memory


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """From 200 to 2,000 images, less than 20 MB."""
    code = """
import resource, sys
from sweep_toys import ToyImages, FloatSums, ImageRows, toy_model, sweep
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def one(n): sweep(toy_model(), ToyImages(n), [FloatSums(), ImageRows()], 16, f"{sys.argv[1]}/{n}", checkpoint_every=0.2)
one(200); first = peak(); one(2000); print(peak() - first)
"""
    result = in_a_process("-c", code, str(tmp_path))
    assert float(result.stdout) < 20, result.stdout


def test_a_long_sweep_says_what_it_costs_and_counts_within_batches(
    model: HookedViT, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from contextlib import contextmanager

    from analyses.faithfulness import Faithfulness
    from analyses.statistics.intervals import Resampling
    from analyses.sweep import run

    advanced: list[float] = []

    @contextmanager
    def counting(total: int, done: int, show: bool | None, lines: bool):
        advanced[:] = [done, total, lines]
        yield advanced.append

    monkeypatch.setattr(run, "progress_bar", counting)
    analysis = Faithfulness(["random", "raw_attention"], n_steps=12, resampling=Resampling(9))
    assert analysis.passes(model.cfg) == 2 * 2 * 13 / 2
    tables = {}
    for progress in (None, False):
        tables[progress] = sweep(model, ToyImages(12), [analysis], batch_size=4, progress=progress)["faithfulness"]
        done, total, lines, *steps = advanced
        assert (done, total, lines) == (0, 12, True)
        assert sum(steps) == pytest.approx(12)
        # two batches: the forward pass, two methods, what is left; one batch of which nothing can be read
        assert len(steps) == 4 + 4 + 1
        said = capsys.readouterr().err
        words = "each of 12 images takes about as long as 27 forward passes (faithfulness 26): 324 in all"
        assert (words in said) == (progress is None)
    assert tables[None].equals(tables[False])

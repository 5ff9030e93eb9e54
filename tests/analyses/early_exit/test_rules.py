"""Exit rules against loops over images and blocks, and the errors of their arguments."""

import math

import pytest
import torch

from analyses.early_exit import ExitRule, agreement, calibrate, exit_layers, margin


def test_margin_is_the_lead_of_the_top_class() -> None:
    logits = torch.randn(3, 4, 5)
    for at in torch.cartesian_prod(torch.arange(3), torch.arange(4)).tolist():
        shares = sorted((logits[tuple(at)].exp() / logits[tuple(at)].exp().sum()).tolist())
        assert float(margin(logits)[tuple(at)]) == pytest.approx(shares[-1] - shares[-2], abs=1e-6)


def test_agreement_counts_blocks_in_a_row() -> None:
    tops = torch.randint(0, 2, (6, 9), generator=torch.Generator().manual_seed(1))
    found = agreement(tops)
    for image in range(9):
        streak = 0
        for layer in range(6):
            streak = streak + 1 if layer and tops[layer, image] == tops[layer - 1, image] else 1
            assert found[layer, image] == streak


def test_an_image_leaves_at_the_first_block_that_passes() -> None:
    confidence = torch.rand(5, 20, generator=torch.Generator().manual_seed(2))
    before = confidence.clone()
    for threshold in (0.0, 0.4, 0.8, 2.0):
        left = exit_layers(confidence, threshold)
        for image in range(20):
            passing = [layer for layer in range(4) if confidence[layer, image] >= threshold]
            assert left[image] == (passing[0] if passing else 4)
    assert torch.equal(confidence, before)


@pytest.mark.parametrize("measure", ["margin", "agreement"])
@pytest.mark.parametrize("tolerance", [0.0, 5.0, 30.0])
def test_calibration_takes_the_lowest_threshold_that_is_good_enough(measure: str, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(4)
    correct = torch.rand(4, 120, generator=generator) < torch.tensor([0.2, 0.4, 0.6, 0.9])[:, None]
    confidence = 0.7 * torch.rand(4, 120, generator=generator) + 0.3 * correct
    if measure == "agreement":
        confidence = agreement(torch.randint(0, 3, (4, 120), generator=generator))
    chosen = calibrate(confidence, correct, measure, tolerance=tolerance)

    def accuracy(threshold: float) -> float:
        left = exit_layers(confidence, threshold)
        return 100 * float(correct[left, torch.arange(120)].double().mean())

    whole = 100 * float(correct[-1].double().mean())
    assert accuracy(chosen) >= whole - tolerance - 1e-6
    lower = [t for t in torch.linspace(0, 1, 50).tolist() if t < chosen - 0.02] if measure == "margin" else [1, 2, 3]
    assert all(accuracy(t) < whole - tolerance for t in lower if t < chosen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_margins_that_round_to_1_do_not_pass_the_last_threshold(dtype: torch.dtype) -> None:
    logits = torch.zeros(3, 200, 7, dtype=dtype)
    logits[..., 2] = 40.0  # sure of one class after every block
    confidence = margin(logits)
    assert confidence.dtype == torch.float32
    assert (confidence == 1).all()
    correct = torch.zeros(3, 200, dtype=torch.bool)
    correct[-1] = True  # and wrong, except after the last
    threshold = calibrate(confidence, correct)
    assert threshold == math.inf == ExitRule(threshold).threshold
    assert (exit_layers(confidence, threshold) == 2).all()
    assert (exit_layers(confidence, 1.0) == 0).all()


def test_margins_of_bfloat16_are_not_rounded_to_it() -> None:
    logits = torch.tensor([[6.0, 0.5, 0.0], [6.125, 0.5, 0.0]], dtype=torch.bfloat16)
    exact = logits.double().softmax(-1)
    torch.testing.assert_close(margin(logits).double(), exact[:, 0] - exact[:, 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1,), "from 0 to 1, or math.inf for never, got -0.1"),
        ((1.1, "margin"), "from 0 to 1, or math.inf for never, got 1.1"),
        ((0, "agreement"), "a number of blocks in a row, from 1, got 0"),
        ((math.inf, "agreement"), "a number of blocks in a row, from 1, got inf"),
        ((math.nan,), "got nan"),
        ((1.5, "agreement"), "a number of blocks in a row, from 1, got 1.5"),
        ((0.5, "entropy"), "the measure is one of margin, agreement, got 'entropy'"),
    ],
)
@pytest.mark.usefixtures("bad_input")
def test_thresholds_out_of_range(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExitRule(*arguments)


@pytest.mark.usefixtures("bad_input")
def test_errors_of_calibration() -> None:
    confidence, correct = torch.rand(3, 99), torch.rand(3, 99) < 0.5
    for tolerance, enough in ((1.0, 100), (0.0, 100), (0.5, 200), (0.3, 334)):
        with pytest.raises(
            ValueError, match=f"99 images are too few .* of {tolerance:g} points: take at least {enough}"
        ):
            calibrate(confidence, correct, tolerance=tolerance)
        calibrate(*(part.repeat(1, 4)[:, :enough] for part in (confidence, correct)), tolerance=tolerance)
    with pytest.raises(ValueError, match=r"19 images are too few .* of 50 points: take at least 20"):
        calibrate(confidence[:, :19], correct[:, :19], tolerance=50)
    with pytest.raises(ValueError, match=r"of one shape, got \(3, 99\) and \(2, 99\)"):
        calibrate(confidence, correct[1:])
    with pytest.raises(ValueError, match="in percentage points of accuracy, from 0 to 100, got -1"):
        calibrate(confidence.repeat(1, 2), correct.repeat(1, 2), tolerance=-1)

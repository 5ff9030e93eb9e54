"""Figures of patching sweeps show the numbers of the sweep."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.patching.result import PatchResult, agreement
from analyses.plots.patching import ablation_figure, agreement_figure, head_patching_figure, token_patching_figure
from hooked_vit import TokenLayout

LAYOUT = TokenLayout(n_cls=1, n_dist=0, n_registers=2, grid=(2, 3))
PICTURE = np.zeros((16, 24, 3))


def sweep(axes: tuple[str, ...], **labels: range) -> PatchResult:
    """A sweep whose values rise from -1 to 2."""
    shape = [len(numbers) for numbers in labels.values()]
    values = torch.linspace(-1, 2, int(np.prod(shape))).reshape(shape)
    named = {name: tuple(numbers) for name, numbers in labels.items()}
    return PatchResult("resid_pre", "denoising", axes, named, values, torch.tensor(0.0), torch.tensor(1.0), LAYOUT)


def test_each_block_has_a_map_and_prefix_tokens_have_a_panel() -> None:
    result = sweep(("layer", "token"), layer=range(12), token=range(9))
    mask = torch.zeros(16, 24, dtype=torch.bool)
    mask[2:9, 3:20] = True
    figure = token_patching_figure(result, PICTURE, PICTURE, (8, 8), blocks=[0, 5, 11], mask=mask, title="$a_b$")
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:5] == ["clean", "corrupt", "block 0", "block 5", "block 11"]
    assert "prefix" in titles
    drawn = figure.axes[3].collections[0].get_array()
    assert np.asarray(drawn).ravel() == pytest.approx(result.recovered[5, 3:].numpy())
    by_prefix = next(ax for ax in figure.axes if ax.get_title() == "prefix")
    assert [text.get_text() for text in by_prefix.get_xticklabels()] == ["CLS", "reg.", "reg."]


def test_without_prefix_tokens_and_with_many_blocks() -> None:
    layout = TokenLayout(0, 0, 0, (2, 3))
    result = sweep(("layer", "token"), layer=range(24), token=range(6))
    figure = token_patching_figure(replace(result, layout=layout), PICTURE, PICTURE, (8, 8))
    blocks = [ax.get_title() for ax in figure.axes if ax.get_title().startswith("block")]
    assert (len(blocks), blocks[0], blocks[-1]) == (8, "block 0", "block 23")


def test_heads() -> None:
    result = sweep(("layer", "head"), layer=range(4), head=range(3))
    figure = head_patching_figure({"z": result, "pattern": result}, numbers_in_cells=True)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["z", "pattern"]
    assert [text.get_text() for text in figure.axes[0].texts] == [
        f"{share:.2f}" for share in result.recovered.flatten()
    ]
    figure.canvas.draw()
    with pytest.raises(ValueError, match="expected sweeps over layer × head, 'z' is over layer, token"):
        head_patching_figure({"z": sweep(("layer", "token"), layer=range(2), token=range(9))})


def test_agreement() -> None:
    result = sweep(("layer", "head"), layer=range(4), head=range(3))
    figure = agreement_figure({"heads": (result, result, agreement(result, result))})
    assert figure.axes[0].get_title() == "heads: r = 1.00"
    assert len(np.asarray(figure.axes[0].collections[0].get_offsets())) == 12


def ablated(heads: list[float], mlp: float) -> pd.DataFrame:
    """A table of one block as `AblationStudy` makes it, the same numbers for each metric."""
    rows = [("head", head, value) for head, value in enumerate(heads)] + [("mlp", None, mlp)]
    return pd.DataFrame(
        [
            {"layer": 0, "component": component, "head": head, "metric": metric, "class_index": None, "value": value,
             "n_images": 8}
            for metric in ("accuracy", "label_logit", "identifiability")
            for component, head, value in rows
        ]
    ).astype({"head": "Int64", "class_index": "Int64"})  # fmt: skip


def test_labels_of_colour_scales_are_below_their_panels() -> None:
    """To the left of the next panel, a label would look like that panel's axis."""
    figure = ablation_figure(ablated([-0.5, 0.2], mlp=-1.0))
    figure.draw_without_rendering()
    for panel, scale in zip(figure.axes[:3], figure.axes[3:], strict=True):
        label, box = scale.xaxis.label, panel.get_window_extent()
        assert label.get_text()
        assert box.x0 <= label.get_window_extent().x0 <= label.get_window_extent().x1 <= box.x1
        assert label.get_window_extent().y1 < box.y0
    result = sweep(("layer", "token"), layer=range(12), token=range(9))
    tokens = token_patching_figure(result, PICTURE, PICTURE, (8, 8))
    (scale,) = (ax for ax in tokens.axes if "share of the difference" in ax.get_xlabel())
    assert not scale.get_ylabel()


def test_one_large_patch_does_not_hide_the_others_and_the_figure_says_so() -> None:
    result = sweep(("layer", "token"), layer=range(12), token=range(9))
    values = result.values.clone()
    values[5, 4] = 1e5
    labels = []
    for swept in (result, replace(result, values=values)):
        figure = token_patching_figure(swept, PICTURE, PICTURE, (8, 8))
        labels += [ax.get_xlabel() for ax in figure.axes if "share of the difference" in ax.get_xlabel()]
        highest = figure.axes[3].collections[0].norm.vmax
    assert ["98th percentile" in label for label in labels] == [False, True]
    assert highest < 1e3


@pytest.mark.parametrize("nothing", [0.0, -1e-9, 3e-7])
def test_an_ablation_that_changes_nothing_is_white_on_a_scale_of_ones(nothing: float) -> None:
    figure = ablation_figure(ablated([0.0, nothing], mlp=nothing))
    figure.canvas.draw()
    drawn = figure.axes[0]
    assert [text.get_text() for text in drawn.texts] == ["0", "0", "0"]
    assert np.asarray(drawn.images[0].get_array())[..., :3].min() > 0.95
    colours = figure.axes[3]
    assert colours.get_xlim() == (-1, 1)
    assert not colours.xaxis.get_offset_text().get_text()


def test_numbers_in_cells_keep_two_digits_of_the_largest_and_read_as_numbers() -> None:
    figure = ablation_figure(ablated([-0.026, 0.0049, -0.0001], mlp=-100.0))
    assert [text.get_text() for text in figure.axes[0].texts] == ["-0.026", "0.005", "0", "-100"]

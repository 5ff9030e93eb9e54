"""The identifiability figure shows the numbers of the table, and leaves out what the table lacks."""

import pytest
from analysis_batches import batch_of

from analyses.analysis.null_control import compare_with_null
from analyses.identifiability import Identifiability
from analyses.plots.identifiability import identifiability_figure
from analyses.statistics import Resampling


def analysed(kind: str, masks: bool = True) -> Identifiability:
    analysis = Identifiability(resampling=Resampling(30))
    analysis.update(batch_of(kind, [analysis], index=range(5), masks=masks))
    return analysis


def lines(ax) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in ax.lines}


def test_curves_show_the_table(tmp_path):
    measured, null = analysed("cls"), analysed("qk_norm")
    table, untrained = measured.compute(), null.compute()
    figure = identifiability_figure(table, untrained, compare_with_null(measured, null))
    evolution, rates, regions, change = figure.axes
    all_patches = "token_type == 'patch' and region == 'all' and metric == "
    assert lines(evolution)["patches"] == table.query(all_patches + "'identifiability'")["value"].tolist()
    assert (
        lines(evolution)["patches, untrained"] == untrained.query(all_patches + "'identifiability'")["value"].tolist()
    )
    assert lines(rates)["patches"] == table.query(all_patches + "'identifiability_rate'")["value"].tolist()
    with_one = table.query(all_patches + "'images_with_identifiable'")["value"].tolist()
    assert lines(rates)["images with at least one such patch"] == with_one
    difference = table.query("region == 'object_minus_context' and metric == 'identifiability'")["value"].tolist()
    assert lines(regions)["within images, mean over images"] == difference
    assert lines(change)["CLS"] == table.query("token_type == 'cls' and metric == 'change_rate'")["value"].tolist()
    assert change.lines[1].get_xdata().tolist() == [1, 2]
    figure.savefig(tmp_path / "figure.png")


def test_chance_title_and_caption():
    table = analysed("cls").compute()
    figure = identifiability_figure(table, n_classes=7, title="model on images")
    assert lines(figure.axes[0])["chance"] == [8 / 14, 8 / 14]
    assert figure.get_suptitle() == "model on images"
    assert figure.legends[0].get_title().get_text().startswith("5 images. Bands: bootstrap intervals")
    assert lines(identifiability_figure(table).axes[0])["chance"] == [0.5, 0.5]


@pytest.mark.parametrize("kind", ["gap_registers_layerscale", "distilled", "post_norm"])
def test_models_without_cls_and_datasets_without_masks(kind, tmp_path):
    figure = identifiability_figure(analysed(kind, masks=False).compute())
    labels = set(lines(figure.axes[0]))
    assert ("CLS" in labels) == (kind == "distilled")
    assert ("registers" in labels) == (kind == "gap_registers_layerscale")
    assert not figure.axes[2].lines
    figure.savefig(tmp_path / "figure.png")

"""The figures of categorical updates show the table's numbers."""

import pytest
from analysis_batches import batch_of

from analyses.categorical_updates.over_dataset import CategoricalUpdates
from analyses.plots.categorical_updates import categorical_updates_figure, head_updates_figure
from analyses.statistics import Resampling


def table_of(kind: str, index=range(5), **options):
    analysis = CategoricalUpdates(resampling=Resampling(30), **options)
    analysis.update(batch_of(kind, [analysis], index=index))
    return analysis.compute()


def lines(ax) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in ax.lines}


def test_curves_are_the_tables(tmp_path):
    table = table_of("cls", references=("block_input", "layer_input"))
    figure = categorical_updates_figure(table, reference="layer_input")
    rate, size, _, of_cls, of_patches, _ = figure.axes
    of = "images == 'all' and region == 'all' and token_type == 'patch' and "
    mlp = of + "stream == 'mlp_out' and reference == 'layer_input' and metric == "
    assert lines(rate)["MLP, patches"] == table.query(mlp + "'similarity_change_rate'")["value"].tolist()
    assert lines(size)["MLP, patches"] == table.query(mlp + "'similarity_increase'")["value"].tolist()
    assert lines(of_patches)["none of the three"] == table.query(of + "metric == 'composition_none'")["value"].tolist()
    assert of_cls.get_title(loc="left").endswith("CLS, …")
    figure.savefig(tmp_path / "figure.png")


def test_without_cls_and_with_one_image_alone(tmp_path):
    figure = categorical_updates_figure(table_of("post_norm", index=[0]))
    assert set(lines(figure.axes[0])) >= {"attention, patches", "MLP, patches"}
    assert "CLS" not in "".join(lines(figure.axes[0]))
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["Updates towards the class", "Size of the updates", "Top class after the block, patches, …", ""]
    assert figure.axes[3].get_legend().get_title().get_text() == "… equals the top class of"
    figure.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("metric", ["similarity_change_rate", "similarity_increase"])
def test_heads(metric, tmp_path):
    table = table_of("cls", heads=True)
    figure = head_updates_figure(table, metric)
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == ["CLS", "patches"]
    assert figure.axes[0].images[0].get_array().shape[:2] == (3, 3)  # block, head
    figure.savefig(tmp_path / "figure.png")


def test_heads_must_be_there():
    with pytest.raises(ValueError, match=r"no heads: compute it with CategoricalUpdates\(heads=True\)"):
        head_updates_figure(table_of("cls"))

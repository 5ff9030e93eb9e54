"""The figure of perturbations shows the table's numbers before and after."""

import pytest
from analysis_batches import batch_of

from analyses.perturbation.over_dataset import Perturbation
from analyses.plots.perturbation import perturbation_figure
from analyses.statistics import Resampling


def table_of(kind: str, masks: bool = True):
    analysis = Perturbation(resampling=Resampling(30))
    analysis.update(batch_of(kind, [analysis], index=range(5), masks=masks))
    return analysis.compute()


@pytest.mark.parametrize("metric", ["identifiability", "identifiability_rate"])
def test_curves_show_the_table(metric, tmp_path):
    table = table_of("cls")
    figure = perturbation_figure(table, metric)
    names = [ax.get_title(loc="left") for ax in figure.axes]
    assert names == [
        "attention to self only", "no attention to CLS", "no context patches", "no object patches",
        "accuracy (black line: before)",
    ]  # fmt: skip
    of = f"perturbation == 'self_only' and token_type == 'patch' and region == 'all' and metric == '{metric}'"
    drawn = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert table.query(of)["after"].tolist() in drawn
    assert table.query(of)["before"].tolist() in drawn
    bars = [bar.get_width() for bar in figure.axes[4].patches]
    assert bars == pytest.approx(table.query("metric == 'accuracy'")["after"].tolist())
    figure.savefig(tmp_path / "figure.png")


def test_one_perturbation_of_a_model_without_cls(tmp_path):
    figure = perturbation_figure(table_of("post_norm", masks=False))
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "attention to self only",
        "accuracy (black line: before)",
    ]
    figure.savefig(tmp_path / "figure.png")


def test_a_perturbation_of_the_users_own_is_named_as_in_the_table() -> None:
    table = table_of("cls")
    table["perturbation"] = table["perturbation"].replace("self_only", "late_self_only")
    assert perturbation_figure(table).axes[0].get_title(loc="left") == "late self only"

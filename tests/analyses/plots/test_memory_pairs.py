"""Figures of memory pairs show the numbers of their tables."""

from analysis_batches import batch_of

from analyses.memory_pairs.agreement import KeyValueAgreement
from analyses.memory_pairs.composition import Compositionality
from analyses.plots.memory_pairs import compositionality_figure, key_value_agreement_figure
from analyses.statistics import Resampling


def table_of(analysis, kind="cls", **options):
    analysis.update(batch_of(kind, [analysis], index=range(5), **options))
    return analysis.compute()


def test_agreement_and_random_class_are_drawn(tmp_path):
    table = table_of(KeyValueAgreement(resampling=Resampling(30)))
    figure = key_value_agreement_figure(table, title="$tiny")
    assert figure.get_suptitle() == "$tiny"
    assert {line.get_label() for line in figure.axes[0].lines} == {"head output", "random class"}
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[:4] == ["attention, all tokens", "attention, CLS", "attention, patches", "attention, correct − wrong"]
    of = "stream == 'mlp_out' and token_type == 'cls' and region == 'all'"
    drawn = [list(line.get_ydata()) for line in figure.axes[titles.index("MLP, CLS")].lines]
    for metric in ("agreement_rate", "agreement_rate_random"):
        for kind in ("pre", "post"):
            rows = table.query(f"{of} and images == 'all' and metric == '{metric}' and coefficients == '{kind}'")
            assert rows["value"].tolist() in drawn
    rows = table.query("stream == 'attn_out' and token_type == 'all' and images == 'correct_minus_wrong'")
    rows = rows[rows["metric"] == "agreement_rate"]
    assert rows["value"].tolist() in [list(line.get_ydata()) for line in figure.axes[3].lines]
    figure.savefig(tmp_path / "figure.png")


def test_a_model_without_cls_that_classifies_all_images_alike(tmp_path):
    table = table_of(KeyValueAgreement(["attn"], resampling=Resampling(9)), "gap_registers_layerscale", masks=False)
    table = table[table["images"] != "correct_minus_wrong"]
    figure = key_value_agreement_figure(table)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "attention, all tokens", "attention, patches", "attention, correct − wrong",
    ]  # fmt: skip
    assert "all images are classified" in figure.axes[-1].texts[0].get_text()
    figure.savefig(tmp_path / "figure.png")


def test_compositionality_has_one_curve_per_k(tmp_path):
    table = table_of(Compositionality(ks=[1, 3], resampling=Resampling(30)))
    figure = compositionality_figure(table)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "attention", "MLP, coefficients before the activation", "MLP, coefficients after the activation",
    ]  # fmt: skip
    of = "metric == 'compositionality' and images == 'all' and token_type == 'all' and coefficients == 'post'"
    drawn = [list(line.get_ydata()) for line in figure.axes[2].lines]
    assert drawn == [table.query(f"{of} and k == {k}")["value"].tolist() for k in (1, 3)]
    assert [line.get_label() for line in figure.axes[0].lines] == ["1 memory", "3 memories"]
    figure.savefig(tmp_path / "figure.png")

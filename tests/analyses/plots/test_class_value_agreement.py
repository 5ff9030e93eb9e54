"""The figure of value vectors' statistics shows each table and its null."""

from analysis_batches import model_of

from analyses.plots.class_value_agreement import value_vector_statistics_figure
from analyses.statistics import Resampling
from analyses.value_vectors.alignment import compare_class_value_agreement
from analyses.value_vectors.coherence import semantic_coherence

PATHS = [("a",), ("a",), ("b",), ("b",), ("b",), ("c",), ("c",)]


def test_curves_are_the_tables(tmp_path):
    model = model_of("cls")
    agreement = compare_class_value_agreement(model, resampling=Resampling(9))
    coherence = semantic_coherence(model, PATHS, "attn", n_permutations=9).table()
    figure = value_vector_statistics_figure(agreement, coherence)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Class-value agreement", "Semantic coherence"]
    drawn = [[list(line.get_ydata()) for line in ax.lines] for ax in figure.axes]
    for stream in ("attn_out", "mlp_out"):
        for column in ("value", "null"):
            assert agreement[agreement["stream"] == stream][column].tolist() in drawn[0]
    assert coherence["value"].tolist() in drawn[1]
    figure.savefig(tmp_path / "figure.png")


def test_one_table_alone(tmp_path):
    table = semantic_coherence(model_of("cls"), PATHS, n_permutations=9).table()
    figure = value_vector_statistics_figure(table)
    assert len(figure.axes) == 1
    figure.savefig(tmp_path / "figure.png")

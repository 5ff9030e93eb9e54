"""The figure of the causal test shows each choice of memories, intervention and k."""

from analysis_batches import batch_of

from analyses.memory_pairs.causal import CausalMemories
from analyses.plots.causal_memories import causal_memories_figure
from analyses.statistics import Resampling


def test_curves_are_the_tables(tmp_path):
    analysis = CausalMemories(ks=[1, 4], interventions=["zero", 3.0], resampling=Resampling(9))
    analysis.update(batch_of("cls", [analysis], index=range(4)))
    table = analysis.compute()
    figure = causal_memories_figure(table)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "1 memory set to zero", "4 memories set to zero", "1 memory times 3", "4 memories times 3", *[""] * 4,
    ]  # fmt: skip
    for ax, metric in ((figure.axes[3], "label_logit"), (figure.axes[7], "accuracy")):
        drawn = [list(line.get_ydata()) for line in ax.lines]
        for choice in ("aligned", "contribution", "random", "aligned_other", "contribution_other"):
            of = f"k == 4 and intervention == 'x3' and memories == '{choice}' and metric == '{metric}'"
            assert table.query(f"{of} and against.isna()")["value"].tolist() in drawn
    figure.savefig(tmp_path / "figure.png")

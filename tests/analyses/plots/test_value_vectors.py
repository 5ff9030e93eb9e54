"""The figure of value vectors has one bar per class, on one scale, and frames the patch of each picture."""

import numpy as np
import pytest
from analysis_batches import batch_of, model_of

from analyses.memory_pairs.top_activations import TopActivations
from analyses.plots.value_vectors import value_vectors_figure
from analyses.value_vectors.vectors import top_classes


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
def test_bars_and_pictures(sublayer, tmp_path):
    analysis = TopActivations(1, [3, 20], sublayer, k=2)
    batch = batch_of("cls", [analysis], index=range(4))
    analysis.update(batch)
    activations = analysis.compute()
    classes = top_classes(batch.model, 1, [3, 20], sublayer, k=4)
    pictures = {index: np.full((32, 24, 3), index / 4) for index in range(4)}
    figure = value_vectors_figure(classes, activations, pictures, (8, 8), "cosine")
    assert len(figure.axes) == 6
    bars = [bar.get_width() for bar in figure.axes[0].patches]
    assert bars == pytest.approx(classes[classes["memory"] == 3]["logit"].tolist())
    labels = [text.get_text() for text in figure.axes[3].get_yticklabels()]
    assert labels == classes[classes["memory"] == 20]["class_name"].tolist()
    assert figure.axes[0].get_title(loc="left") == (
        "block 1, neuron 3" if sublayer == "mlp" else "block 1, head 0, dimension 3"
    )
    assert len({figure.axes[position].get_xlim() for position in (0, 3)}) == 1, "bars share their scale"
    assert "one scale for all rows" in figure.axes[3].get_xlabel()
    for ax, activation in zip((figure.axes[1], figure.axes[2]), activations.to_dict("records"), strict=False):
        assert float(ax.images[0].get_array()[0, 0, 0]) == pytest.approx(activation["index"] / 4)
        if activation["token_type"] == "patch":
            assert ax.patches[0].get_xy() == (8 * activation["column"], 8 * activation["row"])
        else:
            assert ax.texts[0].get_text().startswith(activation["token_type"].upper())
    figure.savefig(tmp_path / "figure.png")


def test_without_pictures_there_are_only_bars(tmp_path):
    classes = top_classes(model_of("cls"), 2, [3], k=3)
    figure = value_vectors_figure(classes)
    assert len(figure.axes) == 1
    figure.savefig(tmp_path / "figure.png")

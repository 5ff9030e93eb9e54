"""The figure of outliers shows the numbers of its table, the threshold and the control."""

import numpy as np
import torch
from conftest import ported

from analyses.outliers import Outliers
from analyses.plots.outliers import outliers_figure
from analyses.sweep import sweep
from hooked_vit.initialisation import freshly_initialised


def test_lines_are_the_numbers_of_the_table() -> None:
    model = ported("swiglu_packed")
    generator = torch.Generator().manual_seed(3)
    items = [(torch.randn(3, 32, 24, generator=generator), label) for label in (3, 0, 5)]
    table, null = (
        sweep(m, items, [Outliers(threshold=1.1)])["outliers"] for m in (model, freshly_initialised(model, seed=0))
    )
    figure = outliers_figure(table, null, title="a model")
    norms, images, attention = figure.axes
    assert [line.get_label() for line in norms.lines if not str(line.get_label()).startswith("_")] == [
        "CLS",
        "registers",
        "patches",
        "threshold",
    ]
    rows = table[(table["metric"] == "largest_norm_ratio") & (table["token_type"] == "patch")].sort_values("layer")
    patches = next(line for line in norms.lines if line.get_label() == "patches")
    np.testing.assert_allclose(np.asarray(patches.get_ydata()), rows["value"])
    threshold = next(line for line in norms.lines if line.get_label() == "threshold")
    assert list(np.asarray(threshold.get_ydata())) == [1.1, 1.1]
    of_null = null[(null["metric"] == "images_with_outlier") & (null["token_type"] == "patch")].sort_values("layer")
    np.testing.assert_allclose(np.asarray(images.lines[1].get_ydata()), of_null["value"])
    assert [line.get_label() for line in attention.lines] == ["CLS", "registers", "patches", "outlier patches"]

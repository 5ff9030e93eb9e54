"""Maps next to their pictures show each patch's number, image by image."""

import numpy as np
import torch
from matplotlib.colors import Normalize

from analyses.plots.map_rows import map_rows_figure
from hooked_vit import TokenLayout

LAYOUT = TokenLayout(1, 0, 0, (2, 3))


def test_each_image_has_its_row_and_each_quantity_its_column(tmp_path):
    maps = {"first": torch.rand(2, 6), "second": torch.rand(2, 6)}
    masks = [torch.zeros(16, 24, dtype=torch.bool), torch.ones(16, 24, dtype=torch.bool)]
    pictures = [np.full((16, 24, 3), shade) for shade in (0.2, 0.8)]
    figure = map_rows_figure(pictures, masks, maps, LAYOUT, (8, 8), label="share", limits=(-1, 1), names=["a", "b"],
                             title="title", caption="caption")  # fmt: skip
    *axes, _ = figure.axes
    assert [ax.get_title() for ax in axes[:3]] == ["picture", "first", "second"]
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["a", "b"]
    for row in range(2):
        for column, values in enumerate(maps.values(), start=1):
            mesh = axes[3 * row + column].collections[0]
            assert np.allclose(mesh.get_array().ravel(), values[row])
            assert isinstance(mesh.norm, Normalize)
            assert (mesh.norm.vmin, mesh.norm.vmax) == (-1, 1)
    assert figure.get_suptitle() == "title"
    assert figure.get_supxlabel() == "caption"
    figure.savefig(tmp_path / "figure.png")

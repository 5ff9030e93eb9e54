"""Each map is drawn on its grid, in its row and column; one bright patch does not hide the others."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from analyses.plots.explanation_maps import head_maps_figure, method_maps_figure
from hooked_vit import TokenLayout

LAYOUT = TokenLayout(1, 0, 0, (2, 3))


def mesh_of(ax: Axes) -> QuadMesh:
    """The patch map in a panel."""
    return next(mesh for mesh in ax.collections if isinstance(mesh, QuadMesh))


def test_one_column_per_method_and_one_row_per_class() -> None:
    maps = {"importance": torch.arange(12.0).reshape(2, 6), "rollout": torch.ones(2, 6)}
    masks = [torch.zeros(16, 24, dtype=torch.bool), torch.arange(24).expand(16, 24) < 9]
    figure = method_maps_figure(
        np.zeros((16, 24, 3)), maps, ["cat, tabby", "$dog"], LAYOUT, (8, 8), masks=masks, agnostic=["rollout"]
    )
    axes = figure.axes[:6]
    assert [ax.get_title() for ax in axes[:3]] == ["picture", "importance", "rollout\n(any class)"]
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["cat", "$dog"]
    meshes = [mesh_of(axes[position]) for position in (1, 4)]
    for row, mesh in enumerate(meshes):
        assert mesh.get_array().reshape(2, 3).tolist() == maps["importance"][row].reshape(2, 3).tolist()
        assert mesh.norm.vmin == maps["importance"][row].min()
        assert mesh.norm.vmax == maps["importance"][row].max()


def test_one_bright_patch_does_not_hide_a_map_and_the_figure_says_so() -> None:
    layout = TokenLayout(1, 0, 0, (8, 8))
    values = torch.arange(64.0)[None]
    bright = values.clone()
    bright[0, 7] = 1e4
    figure = method_maps_figure(np.zeros((64, 64, 3)), {"plain": values, "bright": bright}, ["cat"], layout, (8, 8))
    plain, clipped = figure.axes[1:3]
    assert (plain.get_xlabel(), clipped.get_xlabel()) == ("", "clipped at the 98th percentile")
    mesh = mesh_of(clipped)
    assert 50 < mesh.norm.vmax <= 63
    figure.draw_without_rendering()
    label = clipped.xaxis.label.get_window_extent()
    assert label.x0 >= plain.get_window_extent().x1
    for box in (label, figure.axes[-1].yaxis.label.get_window_extent()):
        assert figure.bbox.contains(box.x0, box.y0)
        assert figure.bbox.contains(box.x1, box.y1)


def test_a_map_that_is_zero_everywhere_says_so_and_methods_are_named_in_words() -> None:
    maps = {"grad_cam": torch.stack([torch.zeros(6), torch.arange(6.0)]), "raw_attention": torch.zeros(2, 6)}
    axes = method_maps_figure(np.zeros((16, 24, 3)), maps, ["cat", "dog"], LAYOUT, (8, 8)).axes
    assert [ax.get_title() for ax in axes[:3]] == ["picture", "Grad-CAM", "raw attention"]
    assert [ax.get_xlabel() for ax in axes[:6]] == ["", "zero everywhere", "zero everywhere", "", "", "zero everywhere"]
    assert mesh_of(axes[1]).norm(0.0) == 0


def test_blocks_by_heads_on_one_scale() -> None:
    importance = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(0))
    figure = head_maps_figure(importance, LAYOUT, (8, 8), title="$importance")
    axes = figure.axes[:6]
    assert [ax.get_ylabel() for ax in axes[::2]] == ["block 0", "block 1", "block 2"]
    norms = set()
    for ax, values in zip(axes, importance.flatten(0, 1), strict=True):
        assert ax.collections[0].get_array().flatten().tolist() == pytest.approx(values.tolist())
        norms.add((ax.collections[0].norm.vmin, ax.collections[0].norm.vmax))
    ((low, high),) = norms
    assert low == -high
    assert head_maps_figure(torch.zeros(1, 1, 6), LAYOUT, (8, 8), mask=torch.ones(16, 24).bool()).axes

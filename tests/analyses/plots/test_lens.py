"""The figure shows the projection: classes, ranks and CLS in the right places, and no registers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_timm
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analyses.plots.class_colours import ClassColours
from analyses.plots.lens import lens_figure, spread_blocks
from analyses.projection import Projection, project
from hooked_vit import HookedViT

PICTURE = np.zeros((32, 24, 3))


def projected(kind: str, images: torch.Tensor, **options) -> tuple[HookedViT, Projection]:
    model = HookedViT.from_timm(make_timm(kind))
    _, cache = model.run_with_cache(images)
    return model, project(model, cache, labels=torch.tensor([5, 0]), **{"k": 1, **options})


def mesh_of(ax: Axes):
    """The patch map in a panel."""
    return ax.collections[0]


def panels(figure: Figure) -> np.ndarray:
    """Axes by row and column: the picture over the legend, then classes over ranks."""
    return np.array(figure.axes[:-1]).reshape(2, -1)


def colours_of(ax: Axes) -> list[str]:
    """The colour of each patch."""
    mesh = mesh_of(ax)
    return [to_hex(mesh.cmap(mesh.norm(value))) for value in mesh.get_array().flat]


def test_ranks_lie_on_the_grid(kind: str, images: torch.Tensor) -> None:
    model, p = projected(kind, images)
    figure = lens_figure(PICTURE, p, model.cfg, model.class_names, reference=0, index=1)
    layout, (_, lower) = model.token_layout, panels(figure)
    for block, ax in enumerate(lower[1:]):
        shown = np.asarray(mesh_of(ax).get_array())
        assert shown.shape == (4, 3)
        for patch in range(12):
            token = layout.patch_token(patch // 3, patch % 3)
            assert shown.flat[patch] == p.rank[block, 1, token] + 1


def test_a_patch_has_the_colour_of_its_class(kind: str, images: torch.Tensor) -> None:
    model, p = projected(kind, images)
    figure = lens_figure(PICTURE, p, model.cfg, model.class_names, reference=5)
    upper, lower = panels(figure)
    (legend,) = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    names = [text.get_text() for text in legend.get_texts()]
    in_legend = {name: to_hex(patch.get_facecolor()) for name, patch in zip(names, legend.get_patches(), strict=True)}
    assert names[0] == "class 5"
    assert len(set(in_legend.values())) == len(names)
    has_others = False
    for block, ax in enumerate(upper[1:]):
        tops = p.top_classes[block, 0, model.token_layout.patches, 0].tolist()
        has_others |= any(f"class {top}" not in in_legend for top in tops)
        assert colours_of(ax) == [in_legend.get(f"class {top}") or in_legend["any other class"] for top in tops]
    assert ("any other class" in names) == has_others
    assert not lower[0].collections


def test_titles_show_the_top_class_of_cls(images: torch.Tensor) -> None:
    model, p = projected("dynamic", images)
    figure = lens_figure(PICTURE, p, model.cfg, model.class_names, reference=5, predicted=2, blocks=[2, 0])
    upper, _ = panels(figure)
    assert [ax.get_title() for ax in upper] == ["correct: class 5", "block 2", "block 0"]
    cls_tops = [int(p.top_classes[block, 0, model.token_layout.cls, 0]) for block in (2, 0)]
    assert [ax.texts[0].get_text() for ax in upper] == [
        "predicted: class 2", *(f"CLS: class {top}" for top in cls_tops),
    ]  # fmt: skip
    model, p = projected("map", images)
    without_cls, _ = panels(lens_figure(PICTURE, p, model.cfg, model.class_names, reference=5))
    assert not any(ax.texts for ax in without_cls)


@pytest.mark.parametrize("size", [(16, 64), (64, 16)])
def test_pictures_of_any_shape_are_drawn(size: tuple[int, int], tmp_path: Path) -> None:
    model = HookedViT.from_timm(make_timm("dynamic"))
    _, cache = model.run_with_cache(torch.zeros(1, 3, *size))
    names = ["a $ and_another $ of a [bold] class with a very long name, synonym"] * 7
    p = project(model, cache, labels=torch.tensor([3]), k=1)
    mask = torch.zeros(size, dtype=torch.bool)
    mask[:8, :8] = True
    figure = lens_figure(np.zeros((*size, 3)), p, model.cfg, names, reference=3, reference_is="predicted", mask=mask)
    figure.savefig(tmp_path / "lens.png")
    assert (tmp_path / "lens.png").stat().st_size > 10_000


@pytest.mark.parametrize("size", [(16, 80), (64, 16), (32, 24)])
@pytest.mark.parametrize("n_tops", [1, 7])
def test_rows_are_aligned_and_the_legend_is_inside_the_figure(size: tuple[int, int], n_tops: int) -> None:
    model = HookedViT.from_timm(make_timm("dynamic"))
    _, cache = model.run_with_cache(torch.zeros(1, 3, *size))
    p = project(model, cache, labels=torch.tensor([3]), k=1)
    p = replace(p, top_classes=(torch.arange(p.top_classes.numel()) % n_tops).reshape(p.top_classes.shape))
    figure = lens_figure(np.zeros((*size, 3)), p, model.cfg, model.class_names, reference=3)
    figure.draw_without_rendering()
    upper, lower = panels(figure)
    for row in (upper, lower[1:]):
        assert np.ptp([ax.get_position().y1 for ax in row]) < 1e-6
        assert np.ptp([ax.get_position().height for ax in row]) < 1e-6
    inside = figure.bbox.padded(1)
    texts = [text for ax in upper for text in (ax.title, *ax.texts)]
    for artist in (lower[0].get_legend(), figure.axes[-1].yaxis.label, *texts):
        assert all(inside.contains(*corner) for corner in artist.get_window_extent().get_points())


def test_a_class_has_one_colour_in_figures_that_share_their_colours() -> None:
    model = HookedViT.from_timm(make_timm("dynamic"))
    _, cache = model.run_with_cache(torch.zeros(1, 3, 32, 24))
    p = project(model, cache, labels=torch.tensor([0]), k=1)
    shared, legends = ClassColours(), []
    for step in (1, 2):
        tops = (1 + step * torch.arange(p.top_classes.numel()) % 5).reshape(p.top_classes.shape)
        figure = lens_figure(
            PICTURE, replace(p, top_classes=tops), model.cfg, model.class_names, reference=0, colours=shared
        )
        legend = panels(figure)[1][0].get_legend()
        pairs = zip(legend.get_texts(), legend.get_patches(), strict=True)
        legends.append({text.get_text(): to_hex(patch.get_facecolor()) for text, patch in pairs})
    both = legends[0].keys() & legends[1].keys()
    assert len(both) > 3
    assert all(legends[0][name] == legends[1][name] for name in both)


def test_drawing_leaves_no_global_state(images: torch.Tensor) -> None:
    import sys

    model, p = projected("cls", images)
    lens_figure(PICTURE, p, model.cfg, model.class_names, reference=5)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_blocks_are_spread_from_first_to_last() -> None:
    assert spread_blocks(24) == (0, 6, 12, 17, 23)
    assert spread_blocks(1) == (0,)
    assert spread_blocks(12, n=3) == (0, 6, 11)


class TestErrors:
    def test_a_projection_without_ranks_or_classes(self, images: torch.Tensor) -> None:
        model, p = projected("cls", images, k=0)
        with pytest.raises(ValueError, match="with labels and k of at least 1"):
            lens_figure(PICTURE, p, model.cfg, model.class_names, reference=5)

    def test_a_projection_of_heads(self, images: torch.Tensor) -> None:
        model, p = projected("cls", images, stream="result")
        with pytest.raises(ValueError, match="not the heads of stream 'result'"):
            lens_figure(PICTURE, p, model.cfg, model.class_names, reference=5)

    def test_blocks_that_were_not_projected(self, images: torch.Tensor) -> None:
        model, p = projected("cls", images, layers=[0, 2])
        with pytest.raises(ValueError, match=r"holds blocks \[0, 2\], asked for \[1\]"):
            lens_figure(PICTURE, p, model.cfg, model.class_names, reference=5, blocks=[1])

    def test_a_picture_of_another_size(self, images: torch.Tensor) -> None:
        model, p = projected("cls", images)
        with pytest.raises(ValueError, match="patches"):
            lens_figure(np.zeros((64, 24, 3)), p, model.cfg, model.class_names, reference=5)

"""Every figure of a result is a matplotlib figure that a notebook displays without pyplot."""

import importlib
import inspect
import io
import pkgutil
import typing

import matplotlib.figure
import pytest
from PIL import Image

import analyses.plots
from analyses.plots.figure import Figure

FUNCTIONS = {
    f"{module.name}.{name}": function
    for module in pkgutil.iter_modules(analyses.plots.__path__)
    for name, function in vars(importlib.import_module(f"analyses.plots.{module.name}")).items()
    if inspect.isfunction(function)
    and name.endswith(("_figure", "_figures"))
    and not name.startswith("_")
    and function.__module__ == f"analyses.plots.{module.name}"
    and typing.get_type_hints(function)["return"] is not type(None)
}


def test_there_are_many() -> None:
    assert len(FUNCTIONS) > 15


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_return_it(name: str) -> None:
    returned = typing.get_type_hints(FUNCTIONS[name])["return"]
    kinds = [kind for kind in (returned, *typing.get_args(returned)) if inspect.isclass(kind)]
    assert Figure in kinds, returned


def test_it_is_a_sharp_picture_of_its_own_size() -> None:
    figure = Figure(figsize=(3, 1.5), dpi=50)
    figure.subplots().plot([1, 2])
    assert isinstance(figure, matplotlib.figure.Figure)
    png, size = figure._repr_png_()
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.size == (2 * size["width"], 2 * size["height"]) == (576, 288)
    assert figure.dpi == 50


def test_ipython_displays_it() -> None:
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    data, metadata = formatter.format(Figure(figsize=(1, 1)))
    assert data["image/png"]
    assert metadata["image/png"]["width"] == 96

"""Every analysis that a sweep knows by name is defined in words, and unknown ones are told in their own."""

from importlib import import_module

import pytest

from analyses.commands.sweep import ANALYSES
from analyses.catalogue import DEFINITIONS, defined_as
from analyses.catalogue import FIGURES


@pytest.mark.parametrize("kind", [".".join(one) for one in ANALYSES.values()])
def test_every_analysis_of_the_command_line_is_defined_and_drawn(kind: str) -> None:
    assert DEFINITIONS[kind].terms
    assert kind in FIGURES


def test_definitions_are_of_classes_that_exist() -> None:
    for kind in DEFINITIONS:
        module, _, name = kind.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)


def test_an_unknown_analysis_has_the_words_of_its_docstring() -> None:
    told = defined_as("mine.Own", "my_own", "Counts\nthings.\n\nMore.")
    assert (told.title, dict(told.terms)) == ("My own", {"my_own": "Counts things."})
    assert not defined_as("mine.Own", "my_own", None).terms

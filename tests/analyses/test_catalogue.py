"""Every analysis of the command line is in the catalogue with definition and figure; others have their docstring."""

import pytest

from analyses.analysis import Analysis
from analyses.catalogue import CATALOGUE, definition_of
from analyses.commands.sweep_analyses import make_analyses


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_entry_is_defined_and_can_be_made(name: str) -> None:
    entry = CATALOGUE[name]
    assert entry.definition.title
    assert entry.definition.terms
    assert callable(entry.figure)
    [made] = make_analyses([entry.command])
    assert isinstance(made, Analysis)
    assert type(made) is entry.analysis


def test_command_names_are_unique() -> None:
    commands = [entry.command for entry in CATALOGUE.values()]
    assert len(set(commands)) == len(commands) == 18


def test_an_unknown_analysis_is_defined_by_its_docstring() -> None:
    definition = definition_of("own", "my_own", "Counts\nthings.\n\nMore.")
    assert (definition.title, dict(definition.terms)) == ("My own", {"my_own": "Counts things."})
    assert not definition_of("own", "my_own", None).terms

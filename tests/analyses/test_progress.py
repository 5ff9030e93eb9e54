"""Progress counts on standard error, in the unit it is given, and only where somebody looks."""

import pytest
from rich.console import Console

from analyses import progress


def test_a_bar_counts_in_its_unit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(progress, "Console", lambda **options: Console(force_terminal=True, width=120, **options))
    with progress.progress_bar(4, done=1, what="patches") as advance:
        advance(2)
    with progress.working("loading x[red]y"):
        pass
    shown = capsys.readouterr()
    assert "3/4" in shown.err
    assert "patches" in shown.err
    assert "loading x[red]y" in shown.err
    assert shown.out == ""


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture) -> None:
    with progress.progress_bar(4) as advance, progress.working("loading"):
        advance(2)
    assert capsys.readouterr() == ("", "")

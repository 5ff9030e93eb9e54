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


def test_lines_with_the_time_left_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    clock = iter([0.0, 10.0, 40.0, 50.0, 400.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress_bar(1000, done=100, lines=True) as advance:
        for n in (10, 10.5, 10, 869.5):
            advance(n)
    # 20.5 images in 40 s, 879.5 to go; the last line would have come at the end
    assert capsys.readouterr().err.splitlines() == ["120 of 1,000 images, 29 min left"]
    with progress.progress_bar(1000, show=False, lines=True) as advance:
        advance(10)
    assert [progress._duration(s) for s in (5, 119, 600, 9000)] == ["5 s", "2 min", "10 min", "2.5 h"]

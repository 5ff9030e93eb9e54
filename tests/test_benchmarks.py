"""What the benchmarks share: rows are printed and written when they are measured, with versions and machine."""

import csv
import sys
from pathlib import Path

import pytest
import timm
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import report  # noqa: E402
import timing  # noqa: E402


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Set the command line of a benchmark that writes into an empty folder."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield lambda *words: monkeypatch.setattr(sys, "argv", ["benchmark", "--threads", str(threads), *words])
    torch.set_num_threads(threads)


def test_quick_replaces_defaults_but_not_what_is_given(command_line) -> None:
    parser = report.options("what", {"batch": 2, "seconds": 1.0}, batch=32, seconds=60.0)
    command_line()
    assert (report.parse(parser).batch, report.parse(parser).seconds) == (32, 60)
    command_line("--quick", "--seconds", "7")
    arguments = report.parse(parser)
    assert (arguments.batch, arguments.seconds) == (2, 7)


def test_a_row_is_printed_and_written_at_once(command_line, capsys: pytest.CaptureFixture[str]) -> None:
    command_line("--markdown")
    rows = report.Report("name", ("task", "ratio"), report.parse(report.options("what", {})))
    rows.row("forward", 1.25)
    assert "forward" in capsys.readouterr().out
    (written,) = csv.DictReader(Path("out/benchmarks/name.csv").read_text("utf-8").splitlines())
    assert (written["task"], written["ratio"]) == ("forward", "1.25")
    assert (written["torch"], written["timm"]) == (torch.__version__.partition("+")[0], timm.__version__)
    assert written["cpu"]
    assert int(written["cores"]) > 0
    rows.finish()
    assert "| forward | 1.25 |" in capsys.readouterr().out


def test_ratios_are_medians_of_pairs() -> None:
    seconds = {"ours": [1.0, 4.0, 9.0], "base": [1.0, 2.0, 3.0]}
    assert timing.ratio(seconds, "ours", "base") == 2
    calls: list[str] = []
    found = timing.paired_seconds({name: lambda name=name: calls.append(name) for name in "ab"}, 0.0, (3, 60))
    assert [len(times) for times in found.values()] == [3, 3]
    assert calls == list("abab" + "ab" + "ba" + "ab")  # the order rotates after two rounds of warming up


def test_no_benchmark_asks_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = __import__("forward")
    import socket

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a look-up on the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    import transformers

    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 30}
    config = transformers.ViTConfig
    monkeypatch.setattr(transformers, "ViTConfig", lambda **options: config(**options, **small))
    bridge = forward.transformer_lens_bridge("vit_base_patch32_224", "cpu", torch.float32)
    assert bridge.processor is not None
    assert bridge(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)

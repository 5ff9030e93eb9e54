"""The README's Python runs unchanged from top to bottom; its commands parse; its figures exist."""

import re
from pathlib import Path

import pytest
from doc_blocks import ROOT, check_command, code_blocks, commands, run_python

README = (ROOT / "README.md").read_text("utf-8")


def test_every_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [block for block in code_blocks(README) if block.language == "python"]
    assert len(blocks) >= 4
    names = run_python(blocks, "README.md")
    assert names["logits"].shape == (1, 100)
    assert (names["edited"] - names["logits"]).abs().max() > 0
    assert len(names["rate"].dropna(subset=["value"])) >= 8, "one row per block"


def test_every_command_and_its_options_exist() -> None:
    found = [arguments for block in code_blocks(README) if block.language == "bash" for arguments in commands(block)]
    # commands within a sentence, such as `.venv/bin/hooked-vit lens photo.jpg`
    found += [line.split()[1:] for line in re.findall(r"`((?:\.venv/bin/)?hooked-vit [a-z][^`]*)`", README)]
    assert len(found) >= 3
    for arguments in found:
        check_command(arguments)


def test_linked_figures_and_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).is_file(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"(?:`|^)make (\w+)", README, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target

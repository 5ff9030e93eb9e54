"""Pages of the examples: each script is run; its cells become prose and code, followed by its output and figures.

If an example fails, the build fails. The output of a run is cached in `.cache/docs-examples` until the script or the
sources of the two packages change.
"""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "docs-examples"
COLUMNS = 88  # width of the printed output: that of a page on a desktop


def examples() -> list[Path]:
    """The numbered essays, in order; the unnumbered scripts train and measure the embedded models."""
    return sorted((ROOT / "examples").glob("[0-9]*.py"))


def on_files(files: Any, config: Any) -> Any:
    """Run the examples that have changed; add one page per example, its figures, and a page that lists them."""
    scripts = examples()
    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        runs = list(pool.map(_run, scripts, [_digest(script) for script in scripts]))
    for script, run in zip(scripts, runs, strict=True):
        files.append(File.generated(config, f"examples/{script.stem}.md", content=page(script, run)))
        for figure in json.loads((run / "figures.json").read_text("utf-8")):
            files.append(File.generated(config, f"examples/{script.stem}/{figure}", abs_src_path=str(run / figure)))
    files.append(File.generated(config, "examples/index.md", content=_index(scripts)))
    pages = ["examples/index.md", *({_short_title(script): f"examples/{script.stem}.md"} for script in scripts)]
    for entry in config.nav:
        if "Examples" in entry:
            entry["Examples"] = pages
    return files


def _digest(script: Path) -> str:
    """Hash of everything that determines a run: the script, the packages with their assets, and this file."""
    digest = hashlib.sha256()
    for folder in (ROOT / "hooked_vit", ROOT / "analyses"):
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    for path in (script, Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _run(script: Path, digest: str) -> Path:
    """The folder with the script's output (`output.txt`), its figures, and their order (`figures.json`)."""
    kept = CACHE / f"{script.stem}-{digest}"
    if kept.is_dir():
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        out = Path(folder) / "out"
        command = [sys.executable, str(script), "--out", "out"]
        environment = os.environ | {
            "COLUMNS": str(COLUMNS), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            raise PluginError(f"examples/{script.name} failed with exit status {run.returncode}:\n{run.stderr}")
        figures = sorted(out.glob("*.png"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        (out / "figures.json").write_text(json.dumps([path.name for path in figures]), "utf-8")
        (out / "output.txt").write_text(run.stdout, "utf-8")
        for old in CACHE.glob(f"{script.stem}-*"):
            shutil.rmtree(old)
        shutil.move(out, kept)
    return kept


def page(script: Path, run: Path) -> str:
    """A script and the output of its run, as Markdown."""
    source = script.read_text("utf-8")
    head, *cells = re.split(r"^# %%", source, flags=re.MULTILINE)
    printed = (run / "output.txt").read_text("utf-8").strip("\n")
    figures = json.loads((run / "figures.json").read_text("utf-8"))
    title, answer = _title_and_answer(source)
    parts = [f"# {title}", answer, _prose(head.rpartition('"""\n')[2])]
    parts.append(
        f"*First the output and the figures of `examples/{script.name}`{_on_which_model(source)}, made when these "
        "pages were built; then the script itself, cell by cell.*"
    )
    parts += ["## What it finds", f"```text\n{printed}\n```"]
    parts += [f"![{figure}]({script.stem}/{figure}){{ loading=lazy }}" for figure in figures]
    parts += [_cell(cell) for cell in cells]
    return "\n\n".join(part for part in parts if part) + "\n"


def _on_which_model(source: str) -> str:
    """What an example runs on unless it is told otherwise."""
    return " on the embedded model" if 'default="emoji-vit"' in source else ""


def _cell(cell: str) -> str:
    """A cell: its title as a heading, its leading comments as prose, the rest as code."""
    title, _, body = cell.partition("\n")
    lines = body.strip("\n").split("\n")
    n_prose = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    prose, code = "\n".join(lines[:n_prose]), "\n".join(lines[n_prose:]).strip("\n")
    block = f"```python\n{code}\n```" if code else ""
    if not title.strip():
        block = '??? note "Imports"\n\n' + "\n".join(f"    {line}" if line else "" for line in block.split("\n"))
    heading = f"## {title.strip()}" if title.strip() else ""
    return "\n\n".join(part for part in (heading, _prose(prose), block) if part)


def _prose(comments: str) -> str:
    lines = [line for line in comments.strip("\n").split("\n") if line.startswith("#")]
    return "\n".join(re.sub(r"^# ?", "", line) for line in lines)


def _title_and_answer(source: str) -> tuple[str, str]:
    """The first line of a script's docstring, without a full stop, and the rest."""
    title, _, answer = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
    return title.rstrip("."), answer.strip("\n")


def _short_title(script: Path) -> str:
    number, _, words = script.stem.partition("_")
    return f"{number} {words.replace('_', ' ').capitalize()}"


def _index(scripts: list[Path]) -> str:
    titles = [_title_and_answer(script.read_text("utf-8"))[0] for script in scripts]
    rows = [
        f"| [{script.stem[:2]}]({script.stem}.md) | {title} |" for script, title in zip(scripts, titles, strict=True)
    ]
    return "\n".join([
        "# Examples",
        "",
        "Essays in code, one question each. Each runs in a minute or less on the embedded model, prints a table and a "
        "summary of it in words, and draws figures. Each takes any other model as an argument (`--model NAME`); most "
        "also take other images (`--data KIND:PATH`). The output and figures shown here were made when these pages "
        "were built.",
        "",
        "| | question |",
        "|---|---|",
        *rows,
        "",
        "`examples/train_emoji_vit.py` trains the embedded models, and `examples/measure_emoji_vit.py` measures the "
        "numbers on their cards; neither is run here.",
        "",
    ])  # fmt: skip

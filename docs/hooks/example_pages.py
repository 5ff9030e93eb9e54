"""Pages of the examples: each script is run, and its cells become prose and code, with what it prints and draws.

An example that fails fails the build. What a run gives is kept in `.cache/docs-examples` for as long as the script and
the sources of the two packages stay the same.
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
COLUMNS = 88  # of what they print: what a page is wide on a desktop


def examples() -> list[Path]:
    """The essays, in order; scripts whose names have no number train and measure the embedded models."""
    return sorted((ROOT / "examples").glob("[0-9]*.py"))


def on_files(files: Any, config: Any) -> Any:
    """Run what has changed, and add a page for each example, its figures, and a page that lists them."""
    scripts = examples()
    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        runs = list(pool.map(_run, scripts, [_digest(script) for script in scripts]))
    for script, run in zip(scripts, runs, strict=True):
        files.append(File.generated(config, f"examples/{script.stem}.md", content=page(script, run)))
        for figure in json.loads((run / "figures.json").read_text("utf-8")):
            files.append(File.generated(config, f"examples/{script.stem}/{figure}", abs_src_path=str(run / figure)))
    files.append(File.generated(config, "examples/index.md", content=_index(scripts)))
    pages = ["examples/index.md", *({_short_title(one): f"examples/{one.stem}.md"} for one in scripts)]
    for entry in config.nav:
        if "Examples" in entry:
            entry["Examples"] = pages
    return files


def _digest(script: Path) -> str:
    """Of everything that a run follows from: the script, the packages with their assets, and this file."""
    known = hashlib.sha256()
    for folder in (ROOT / "hooked_vit", ROOT / "analyses"):
        for path in sorted(one for one in folder.rglob("*") if one.is_file() and "__pycache__" not in one.parts):
            known.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    for path in (script, Path(__file__)):
        known.update(path.read_bytes())
    return known.hexdigest()[:16]


def _run(script: Path, digest: str) -> Path:
    """The folder with what the script printed (`output.txt`), drew, and the order in which it drew it."""
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
    """A script and what its run gave, as Markdown."""
    source = script.read_text("utf-8")
    head, *cells = re.split(r"^# %%", source, flags=re.MULTILINE)
    printed = (run / "output.txt").read_text("utf-8").strip("\n")
    figures = json.loads((run / "figures.json").read_text("utf-8"))
    parts = [f"# {_title(source)}", _prose(head.partition('"""\n')[2])]
    parts.append(
        f"*Below, what `examples/{script.name}` printed and drew while these pages were built, on the embedded model; "
        "then the script itself, cell by cell.*"
    )
    parts += ["## What it finds", f"```text\n{printed}\n```"]
    parts += [f"![{figure}]({script.stem}/{figure}){{ loading=lazy }}" for figure in figures]
    parts += [_cell(cell) for cell in cells]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cell(cell: str) -> str:
    """A cell: its title as a heading, the comments that it begins with as prose, the rest as code."""
    title, _, body = cell.partition("\n")
    lines = body.strip("\n").split("\n")
    n_prose = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    prose, code = "\n".join(lines[:n_prose]), "\n".join(lines[n_prose:]).strip("\n")
    code = code.partition('\n\n\nif __name__ == "__main__":')[0]
    block = f"```python\n{code}\n```" if code else ""
    if not title.strip():
        block = '??? note "Imports"\n\n' + "\n".join(f"    {line}" if line else "" for line in block.split("\n"))
    heading = f"## {title.strip()}" if title.strip() else ""
    return "\n\n".join(part for part in (heading, _prose(prose), block) if part)


def _prose(comments: str) -> str:
    lines = [line for line in comments.strip("\n").split("\n") if line.startswith("#")]
    return "\n".join(re.sub(r"^# ?", "", line) for line in lines)


def _title(source: str) -> str:
    return (ast.get_docstring(ast.parse(source)) or "").split("\n")[0].rstrip(".")


def _short_title(script: Path) -> str:
    number, _, words = script.stem.partition("_")
    return f"{number} {words.replace('_', ' ').capitalize()}"


def _index(scripts: list[Path]) -> str:
    rows = [f"| [{one.stem[:2]}]({one.stem}.md) | {_title(one.read_text('utf-8'))}. |" for one in scripts]
    return "\n".join([
        "# Examples",
        "",
        "Essays in code, each about one question. They run in a minute or less each on the embedded model, print a "
        "table and what it says in words, and draw figures; each takes any other model as an argument "
        "(`--model NAME`), most of them images too (`--data KIND:PATH`). What you see here was printed and drawn while "
        "these pages were built.",
        "",
        "| | question |",
        "|---|---|",
        *rows,
        "",
        "`examples/train_emoji_vit.py` trains the embedded models, and `examples/measure_emoji_vit.py` measures what "
        "their cards say of them; neither is run here.",
        "",
    ])  # fmt: skip

"""Every code block of the documentation runs unchanged; names in it exist; the generated pages are complete."""

import ast
import importlib
import importlib.util
import pkgutil
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from doc_blocks import ROOT, check_command, code_blocks, commands, run_command, run_python

import analyses
from analyses.catalogue.published import PUBLISHED
from analyses.data import sample_scenes

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md"]
MOST_SKIPPED = 2  # Python blocks that need data that cannot be shipped


def page_name(path: Path) -> str:
    """The name that links use."""
    return str(path.relative_to(DOCS))


def hook(name: str) -> ModuleType:
    """A hook of the build, as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_generated(page: Path) -> bool:
    """Whether a hook of the build writes this page."""
    folder, source = page.parts[0], ROOT.joinpath(*page.parts[1:])
    if folder == "reference":
        return source.parent.is_dir() if page.name == "index.md" else source.with_suffix(".py").is_file()
    if folder == "examples":
        return page.name == "index.md" or (ROOT / page).with_suffix(".py").is_file()
    return page == Path("commands.md")


@pytest.fixture
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with the pictures that the pages mention the current one."""
    for name, scene in zip(("photo.jpg", "clean.png", "corrupt.png"), sample_scenes()[1:4], strict=True):
        scene.picture.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_python_blocks_run(path: Path, in_a_folder: Path) -> None:
    blocks = [block for block in code_blocks(path.read_text("utf-8")) if block.language == "python"]
    run_python(blocks, page_name(path))


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_commands_run(path: Path, in_a_folder: Path) -> None:
    for block in code_blocks(path.read_text("utf-8")):
        for arguments in commands(block) if block.language == "bash" else []:
            check_command(arguments)
            if not block.how:
                run_command(arguments)


def test_few_blocks_are_skipped() -> None:
    blocks = [block for path in PAGES for block in code_blocks(path.read_text("utf-8"))]
    python = [block for block in blocks if block.language == "python"]
    assert len(python) > 40
    assert sum(block.how != "" for block in python) <= MOST_SKIPPED
    assert all(block.how != "skip" for block in blocks if block.language == "bash"), "commands must parse"


def test_make_targets_and_scripts_in_pages_exist() -> None:
    targets = {line.split(":")[0] for line in (ROOT / "Makefile").read_text("utf-8").splitlines() if ":" in line}
    for path in PAGES:
        for block in code_blocks(path.read_text("utf-8")):
            for line in block.code.splitlines() if block.language == "bash" else []:
                words = line.split()
                if words[:1] == ["make"]:
                    assert words[1] in targets, f"{page_name(path)}: {line}"
                for word in words:
                    if word.startswith("examples/"):
                        assert (ROOT / word).is_file(), f"{page_name(path)}: {line}"


def test_published_values_match_those_of_reports() -> None:
    rows = [line for line in (DOCS / "how-to/imagenet-s.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    for model in PUBLISHED.values():
        numbers = " | ".join(f"{model.values[name]:.2f}" for name in ("rate", "images_with_one", "accuracy"))
        assert sum(numbers in row for row in rows) == 1, model.title


def dotted_names(text: str) -> set[str]:
    """Names such as `analyses.projection.project` in the inline code of a page."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    code = re.findall(r"`([^`\n]+)`", prose)
    return {name for span in code for name in re.findall(r"\b(?:analyses|hooked_vit)(?:\.[A-Za-z_]\w*)+", span)}


def shorter_path(module: str, name: str) -> str | None:
    """A package of `analyses` above `module` that exports the same object, from which users should import it."""
    parts = module.split(".")
    for depth in range(2, len(parts)):
        package = importlib.import_module(".".join(parts[:depth]))
        exported = getattr(package, "__all__", ())
        if name in exported and getattr(package, name) is getattr(importlib.import_module(module), name):
            return package.__name__
    return None


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_dotted_names_in_prose_exist(path: Path) -> None:
    for name in sorted(dotted_names(path.read_text("utf-8"))):
        try:
            pkgutil.resolve_name(name)
        except (AttributeError, ImportError) as error:
            pytest.fail(f"{path.name}: `{name}` does not exist: {error}")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_names_are_imported_from_the_package_that_exports_them(path: Path) -> None:
    text = path.read_text("utf-8")
    used = [name.rpartition(".")[::2] for name in dotted_names(text)]
    for block in code_blocks(text):
        if block.language == "python":
            imports = [node for node in ast.walk(ast.parse(block.code)) if isinstance(node, ast.ImportFrom)]
            used += [(node.module or "", alias.name) for node in imports for alias in node.names]
    for module, name in used:
        is_deep = module.startswith("analyses.") and isinstance(pkgutil.resolve_name(module), ModuleType)
        assert not is_deep or shorter_path(module, name) is None, f"{module}.{name}"


class TestWhichPackage:
    """The page `which-package.md`."""

    @staticmethod
    def rows() -> dict[str, list[str]]:
        """The cells of each row, by the package in it."""
        lines = (DOCS / "which-package.md").read_text("utf-8").splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
        return {row[1].split("`")[1]: row for row in cells if row[1].startswith("[`")}

    def test_every_package_has_a_row(self) -> None:
        assert set(self.rows()) == {module.name for module in pkgutil.iter_modules(analyses.__path__, "analyses.")}

    def test_functions_can_be_imported_from_their_package(self) -> None:
        for package, (_, _, functions, *_) in self.rows().items():
            for name in re.findall(r"`([^`]+)`", functions):
                pkgutil.resolve_name(name if name.startswith("analyses.") else f"{package}.{name}")

    def test_commands_and_names_of_analyses_exist(self) -> None:
        from analyses.catalogue import CATALOGUE

        known = {entry.command for entry in CATALOGUE.values()}
        listed: set[str] = set()
        for _, _, _, command, _ in self.rows().values():
            for span in re.findall(r"`([^`]+)`", command):
                name, _, names = span.partition(": ")
                check_command([name.split()[0], "--help"])
                listed |= set(filter(None, names.split(",")))
        assert listed == known, "every analysis of a sweep is listed"


class TestLinks:
    """Links between the pages: what a strict build refuses after two minutes, told in a moment."""

    @pytest.mark.parametrize("page", PAGES, ids=page_name)
    def test_linked_pages_exist(self, page: Path) -> None:
        for link in re.findall(r"\]\(([^():#]+\.md)", page.read_text("utf-8")):
            target = (page.parent / link).resolve()
            assert target.is_file() or is_generated(target.relative_to(DOCS)), f"{link} is not a page"


class TestBlocks:
    def test_blocks_are_found_with_their_marks(self) -> None:
        text = 'a\n```python\n1 / 0\n```\n```bash {test="parse: needs a disk"}\nhooked-vit plot x\n```\n'
        python, bash = code_blocks(text)
        assert (python.language, python.code, python.line, python.how) == ("python", "1 / 0\n", 3, "")
        assert (bash.how, bash.why) == ("parse", "needs a disk")

    def test_a_mark_with_a_typo_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="2 lines with a fence, but only 0 readable blocks"):
            code_blocks('```python {test="skipped"}\n1 / 0\n```\n')

    def test_an_error_names_page_and_line(self) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            run_python(code_blocks("\n\n```python\n1 / 0\n```\n"), "page.md")
        assert (caught.traceback[-1].path, caught.traceback[-1].lineno) == ("page.md", 3)

    def test_marked_blocks_must_compile(self) -> None:
        run_python(code_blocks('```python {test="skip: needs it"}\n1 / 0\n```\n'), "page.md")
        with pytest.raises(SyntaxError):
            run_python(code_blocks('```python {test="skip: needs it"}\n1 /\n```\n'), "page.md")

    def test_commands_with_launchers_comments_and_several_lines(self) -> None:
        (block,) = code_blocks(
            "```bash\ncd x\ntorchrun --no-python hooked-vit sweep ...  # all\nhooked-vit lens \\\n  'a b.png'\n```\n"
        )
        assert commands(block) == [["sweep", "..."], ["lens", "a b.png"]]

    @pytest.mark.parametrize("arguments", [["nope"], ["plot"], ["sweep", "--data", "x", "--out", "y", "--nope"]])
    def test_an_invalid_command_is_an_error(self, arguments: list[str]) -> None:
        with pytest.raises(Exception, match=r"No such|Missing"):
            check_command(arguments)


class TestBuild:
    def test_every_page_is_in_the_navigation_and_every_entry_exists(self) -> None:
        config = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader=yaml.BaseLoader)
        entries = [page for section in config["nav"] for pages in section.values() for page in pages if pages != page]
        listed = {entry for entry in entries if entry.endswith(".md")}
        made = {"commands.md"}
        assert listed - made == {page_name(path) for path in PAGES}

    def test_every_public_module_has_a_reference_page(self) -> None:
        pytest.importorskip("mkdocs")
        pages = hook("reference_pages")
        found = {path for package in pages.PACKAGES for path in _walk(pages, ROOT / package)}
        on_disk = {
            path
            for package in pages.PACKAGES
            for path in (ROOT / package).rglob("*.py")
            if not path.name.startswith("_")
        }
        assert found == on_disk
        assert all(pages.summary(path) for path in found), "each has a summary in its first line"

    def test_a_package_page_links_exported_names_to_their_definitions(self) -> None:
        pytest.importorskip("mkdocs")
        pages = hook("reference_pages")
        page = pages.package_page(ROOT / "analyses" / "data")
        assert "| [`EmojiScenes`][analyses.data.emoji_scenes.scenes.EmojiScenes] | " in page, "through two packages"
        assert "[`analyses.data.emoji_scenes.scenes`](emoji_scenes/scenes.md) |" in page
        assert "| [`emoji_scenes`](emoji_scenes/index.md) | " in page

    def test_every_exported_name_of_every_package_is_found_where_it_is_defined(self) -> None:
        pytest.importorskip("mkdocs")
        pages = hook("reference_pages")
        packages = [path.parent for top in pages.PACKAGES for path in (ROOT / top).rglob("__init__.py")]
        for package in packages:
            exported = pages.exports(package)
            face = importlib.import_module(".".join(package.relative_to(ROOT).parts))
            assert set(exported) == set(getattr(face, "__all__", ())), package
            for name, module in exported.items():
                assert getattr(importlib.import_module(module), name) is getattr(face, name), name

    def test_every_command_has_a_section_with_its_options(self) -> None:
        pytest.importorskip("mkdocs")
        import typer

        from analyses.commands.cli import app

        page, group = hook("command_page").page(), typer.main.get_command(app)
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            section = page.partition(f"## `hooked-vit {name}`")[2].partition("\n## ")[0]
            for parameter in command.params:
                if parameter.opts[0].startswith("--"):
                    assert f"`{parameter.opts[0]}" in section, f"{name} {parameter.opts[0]}"

    def test_an_example_becomes_prose_code_and_figures(self, tmp_path: Path) -> None:
        pytest.importorskip("mkdocs")
        script = tmp_path / "01_why.py"
        script.write_text(
            '"""Why?\n\nBecause, in 2 of 3\ncases.\n\nTakes a second.\n"""\n\n# Since *so*.\n\n# %%\nimport os\n\n'
            "# %% Then\n# And\n# so.\n\nx = 1\n"
        )
        (tmp_path / "output.txt").write_text("1 of 2\n")
        (tmp_path / "figures.json").write_text('["a.png"]')
        page = hook("example_pages").page(script, tmp_path)
        assert page.startswith("# Why?\n\nBecause, in 2 of 3\ncases.\n\nTakes a second.\n\nSince *so*.\n\n*First")
        assert '??? note "Imports"\n\n    ```python\n    import os\n    ```\n\n## Then\n\nAnd\nso.\n' in page
        assert "## What it finds\n\n```text\n1 of 2\n```\n\n![a.png](01_why/a.png)" in page
        assert page.endswith("```python\nx = 1\n```\n")

    def test_a_docstring_of_one_line_is_the_title_alone(self, tmp_path: Path) -> None:
        pytest.importorskip("mkdocs")
        script = tmp_path / "01_why.py"
        script.write_text('"""Why: because."""\n\n# Since *so*.\n\n# %%\nimport os\n')
        (tmp_path / "output.txt").write_text("1 of 2\n")
        (tmp_path / "figures.json").write_text("[]")
        assert hook("example_pages").page(script, tmp_path).startswith("# Why: because\n\nSince *so*.\n\n*First")

    def test_the_list_of_examples_shows_their_questions(self) -> None:
        pytest.importorskip("mkdocs")
        pages = hook("example_pages")
        questions = re.findall(r"^\| \[\d\d\]\(\w+\.md\) \| (.+) \|$", pages._index(pages.examples()), re.MULTILINE)
        assert len(questions) == len(pages.examples())
        assert all(question.endswith("?") for question in questions)

    def test_an_example_that_fails_fails_the_build(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plugins = pytest.importorskip("mkdocs.exceptions")
        pages, script = hook("example_pages"), tmp_path / "01_bad.py"
        script.write_text("raise SystemExit('no')\n")
        monkeypatch.setattr(pages, "CACHE", tmp_path / "cache")
        with pytest.raises(plugins.PluginError, match=r"01_bad.py failed with exit status 1:\nno"):
            pages._run(script, "0")

    def test_covered_models_have_one_row_each(self) -> None:
        pytest.importorskip("mkdocs")
        from hooked_vit.covered_models import covered_models

        rows = [line for line in hook("covered_models_table").table().splitlines() if line.startswith("| `")]
        assert len(rows) == covered_models()["architecture"].nunique()
        (base,) = [row for row in rows if row.startswith("| `vit_base_patch32_224`")]
        assert "| cls | CLS | 224 | 32 | 50 | 12 | 768 | 12 |" in base
        assert "`augreg_in21k_ft_in1k`" in base

    def test_shapes_of_a_single_word_keep_their_quotation_marks(self) -> None:
        griffe = pytest.importorskip("griffe")
        quoted = hook("docstrings").quoted
        source = 'from jaxtyping import Bool\ndef f(x: Bool[Tensor, "token"]) -> list[Bool[Tensor, "a b"]]: ...\n'
        with griffe.temporary_visited_module(source) as module:
            function = module["f"]
            assert str(quoted(function.parameters["x"].annotation)) == 'Bool[Tensor, "token"]'
            assert str(quoted(function.returns)) == 'list[Bool[Tensor, "a b"]]'


def _walk(pages: ModuleType, folder: Path) -> list[Path]:
    found = []
    for path in pages.modules(folder):
        found += _walk(pages, path) if path.is_dir() else [path]
    return found


def test_the_cache_of_examples_is_not_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()
    assert {".cache/", "/site/"} <= set(ignored)
    assert shutil.which("git") is None or not list((ROOT / "docs").rglob("*.html"))

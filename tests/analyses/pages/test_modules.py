"""JavaScript modules become one script: each runs once, after its imports, and names never collide."""

import shutil
import subprocess
from collections.abc import Mapping

import pytest

from analyses.pages.modules import bundle
from analyses.pages.page import render_page


def bundled(sources: Mapping[str, str]) -> str:
    """The bundle of `a/main.js`."""
    return bundle("a/main.js", sources.__getitem__)


def test_modules_run_once_after_their_imports_and_keep_their_names_apart() -> None:
    sources = {
        "a/main.js": 'import {\n  x as y,\n} from "../b.js";\n'
        'import { z } from "./c.js";\n\nconst own = await y + z();\n',
        "b.js": 'import { z } from "./a/c.js";\nexport const x = z();\nconst own = 1;\n',
        "a/c.js": "const own = 2;\nexport function z() { return own; }\n"
        "export class D {}\nexport async function e() {}\n",
    }
    assert bundled(sources) == "\n".join(
        [
            "// a/c.js", "const $module0 = (() => {", "const own = 2;", "function z() { return own; }", "class D {}",
            "async function e() {}", "return { z, D, e };", "})();",
            "// b.js", "const $module1 = (() => {", "const { z } = $module0;", "const x = z();", "const own = 1;",
            "return { x };", "})();",
            "// a/main.js", "const { x: y } = $module1;", "const { z } = $module0;", "", "const own = await y + z();",
        ]
    )  # fmt: skip


def test_a_circle_is_an_error_that_names_it() -> None:
    sources = {
        "a/main.js": 'import { b } from "./b.js";',
        "a/b.js": 'import { c } from "./c.js";\nexport const b = 1;',
        "a/c.js": 'import { b } from "./b.js";\nexport const c = 1;',
    }
    with pytest.raises(ValueError, match=r"in a circle: a/b\.js -> a/c\.js -> a/b\.js"):
        bundled(sources)


def test_an_imported_name_must_be_exported() -> None:
    sources = {"a/main.js": 'import { b, hidden } from "./b.js";', "a/b.js": "export const b = 1;\nconst hidden = 2;"}
    with pytest.raises(ValueError, match=r"'a/main\.js' imports hidden from 'a/b\.js', which does not export it"):
        bundled(sources)


@pytest.mark.parametrize(
    "statement",
    ["export let x = 1;", "export default 1;", "export { x };", 'import x from "./b.js";',
     'import * as b from "./b.js";', 'import "./b.js";', 'import { x } from "package";', "export const { x } = y;"],
)  # fmt: skip
def test_other_statements_are_errors(statement: str) -> None:
    with pytest.raises(ValueError, match=r"'a/main\.js' has a statement that cannot be bundled: '(import|export) "):
        bundled({"a/main.js": f"const x = 1;\n{statement}\n", "a/b.js": "export const x = 1;"})


def test_a_missing_module_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.js"):
        render_page("page.html", title="", script="explorer/missing.js")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_a_bundle_computes_what_its_modules_compute() -> None:
    sources = {
        "a/main.js": 'import { sum } from "./sum.js";\nimport { counter, next } from "./counter.js";\n'
        "next(); next();\nconsole.log(sum(counter.value, await 40));",
        "a/sum.js": "const add = (x, y) => x + y;\nexport const sum = (...terms) => terms.reduce(add, 0);",
        "a/counter.js": "export const counter = { value: 0 };\nexport function next() { counter.value += 1; }",
    }
    command = ["node", "--input-type=module", "-"]
    done = subprocess.run(command, input=bundled(sources), capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"

"""An installed wheel is complete: the embedded models and the bundled samples load from it, offline."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USE_IT = """
import hooked_vit, analyses, torch
from analyses.data.emoji_scenes.sample_pictures import sample_scenes
from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.dictionaries.loading import embedded_dictionaries, load_dictionary
from analyses.pages.explorer.build import explore
from hooked_vit import HookedViT
from hooked_vit.loading import EMBEDDED
scenes = sample_scenes()
for name in EMBEDDED:
    model = HookedViT.from_pretrained(name)
    logits = model(model.preprocess([scene.path for scene in scenes[:4]]))
    assert logits.shape == (4, 100) and logits.std() > 1, name
page = explore(model, scenes[0].path).html
assert page.startswith("<!doctype html>") and "dataset.ready" in page and ".cell" in page
for name in embedded_dictionaries():
    load_dictionary(name).check_fits(HookedViT.from_pretrained(name.split("/")[0]))
assert embedded_dictionaries()
assert EmojiScenes(3, seed=0)[1][0].shape == (3, 64, 64)
print(hooked_vit.__file__, analyses.__file__, sep="\\n")
"""


def built(kind: str, out: Path) -> Path:
    """A wheel or an sdist, made from the project's files."""
    subprocess.run(
        [sys.executable, "-c", f"import hatchling.build; hatchling.build.build_{kind}({str(out)!r})"],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (made,) = out.iterdir()
    return made


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """The wheel, unpacked as an installer does."""
    site = tmp_path / "site"
    with zipfile.ZipFile(built("wheel", tmp_path / "dist")) as archive:
        archive.extractall(site)
    return site


def test_models_and_samples_load_from_a_wheel(wheel: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(wheel), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", USE_IT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(Path(line).is_relative_to(wheel) for line in done.stdout.split()), "another installation was used"
    assert {path.name for path in wheel.glob("*.dist-info/licenses/*")} == {"LICENSE", "NOTICE"}


def test_a_source_distribution_holds_what_its_tests_need(tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path)) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames()}
    for needed in ("README.md", "Makefile", "docs/images/class-representations.png", "tests/conftest.py",
                   "examples/01_class_representations.py", "hooked_vit/assets/emoji-vit.safetensors"):  # fmt: skip
        assert needed in held


def test_extras_that_messages_and_pages_name_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    texts = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts += [path for package in ("hooked_vit", "analyses") for path in (ROOT / package).rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"hooked-vit\[([\w-]+)\]", text.read_text("utf-8"))}
    assert {"explain", "open-clip", "robustness"} <= named <= extras.keys()

"""Every example runs from top to bottom and leaves its pictures where it is told to."""

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from PIL import Image

from hooked_vit import TokenLayout

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9]*.py"))


def load(path: Path) -> ModuleType:
    """An example as a module; its name begins with a number, so it cannot be imported by name."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    main = load(path).main
    # an example may offer smaller numbers for a quick run
    quick = {"figures": 1, "quick": True}
    main(out=tmp_path / "out", **{name: quick[name] for name in quick if name in inspect.signature(main).parameters})
    assert len(capsys.readouterr().out) > 200
    pictures = list((tmp_path / "out").glob("*.png"))
    assert pictures
    for picture in pictures:
        with Image.open(picture) as opened:
            assert min(opened.size) > 200
    assert [one.name for one in tmp_path.iterdir()] == ["out"], "it writes nowhere else"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_reads_as_cells_and_takes_any_model(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith('"""')
    assert text.count("\n# %%") >= 3
    assert {"model", "out"} <= inspect.signature(load(path).main).parameters.keys()


class TestClassRepresentations:
    example = load(EXAMPLES[0])

    def test_the_table_against_a_count_by_hand(self) -> None:
        layout = TokenLayout(n_cls=1, n_dist=0, n_registers=1, grid=(1, 2))
        # two blocks, two images; CLS, a register, and two patches
        ranks = torch.tensor([[[3, 9, 0, 2], [1, 9, 4, 4]], [[0, 9, 0, 0], [0, 9, 1, 4]]])
        is_object = torch.tensor([[True, False], [True, False]])
        table = self.example.build_up(ranks, is_object, layout, n_classes=10)
        first, second = table.iloc[0], table.iloc[1]
        assert first["CLS identifiability"] == pytest.approx(0.8)
        assert first["patches identifiability"] == pytest.approx(1 - (0 + 2 + 4 + 4) / 4 / 10)
        assert first["object identifiability"] == pytest.approx(1 - (0 + 4) / 2 / 10)
        assert first["background identifiability"] == pytest.approx(1 - (2 + 4) / 2 / 10)
        assert first[["CLS rate", "patches rate", "images with one"]].tolist() == [0, 25, 50]
        assert second[["CLS rate", "object rate", "background rate"]].tolist() == [100, 50, 50]

    def test_findings_are_read_off_the_table(self) -> None:
        table = pd.DataFrame(
            {
                "CLS rate": [0.0, 60.0], "patches rate": [1.0, 30.0], "images with one": [5.0, 80.0],
                "object rate": [1.0, 50.0], "background rate": [1.0, 20.0],
                "object identifiability": [0.4, 0.9], "background identifiability": [0.5, 0.8],
            }
        )  # fmt: skip
        said = " ".join(self.example.findings(table, n_images=24, cls_is_read=True, n_classes=100))
        assert "first in half of the pictures after block 1, and in 60 % at the end" in said
        assert "30 % of the patches have it on top (30 times chance), and 80 % of the pictures" in said
        assert "after 1 of 2 blocks; after the last one 50 %" in said
        said = " ".join(self.example.findings(table.assign(**{"CLS rate": 0.0}), 24, False, 100, "predicted"))
        assert "the predicted class on top never in half" in said
        assert "the head reads them all" in said

    def test_a_model_with_other_classes_is_followed_by_its_own_predictions(self) -> None:
        from hooked_vit import HookedViT

        model = HookedViT.from_pretrained("emoji-vit")
        scenes, logits = self.example.one_object_scenes()[:2], torch.eye(100)[[7, 9]]
        labels, reference_is = self.example.reference_classes(model, scenes, logits)
        assert labels.tolist() == [scene.labels[0] for scene in scenes]
        assert reference_is == "correct"
        other = model.with_class_embeddings(model.W_U)
        labels, reference_is = self.example.reference_classes(other, scenes, logits)
        assert (labels.tolist(), reference_is) == ([7, 9], "predicted")

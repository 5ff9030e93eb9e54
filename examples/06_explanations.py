"""Which image parts matter? Maps of several methods for both objects of a scene, and three tests of what maps claim."""

# A map that colours the patches of a picture by how much they matter is quickly made, and always looks like something.
# Is it right? Scenes with known objects let us ask three times over. Does the map lie on the object (localisation)?
# Does the answer go when the patches go that the map calls important, and stay when the others go (faithfulness)? And
# with two objects in a picture: is the map for the first class on the first object, and the second on the second?
#
#     python examples/06_explanations.py                                  # the model that comes along
#     python examples/06_explanations.py --model vit_base_patch32_224.augreg_in21k_ft_in1k --data 'imagenet-s:DIR?n=5'
#
# Feature importance, and the comparison with probes, are those of Vilas, Schaumlöffel and Roig, "Analyzing Vision
# Transformers for Image Classification in Class Embedding Space" (NeurIPS 2023), sections 6 and 7.

# %%
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import typer
from rich.console import Console
from rich.table import Table

from analyses.data import EmojiScenes, ItemReader, LabelledImages, SceneBatch, images_for, token_labels
from analyses.faithfulness import SWEPT_METHODS, Faithfulness, Localisation, two_object_scores, two_object_test
from analyses.feature_importance import CLASS_AGNOSTIC, Explainer, ProbeOrder, explainer, feature_importance
from analyses.linear_probe import ProbeFeatures, compare_with_projection, fit_ridge_probe, probe_features
from analyses.plots.explanation_maps import head_maps_figure, method_maps_figure
from analyses.plots.explanation_quality import faithfulness_figure, localisation_figure
from analyses.plots.linear_probe import probe_figure
from analyses.plots.patch_maps import picture_of
from analyses.sweep import sweep
from hooked_vit import HookedViT

# %% Many images, one object: is the map on it, and does the answer depend on it?
# One sweep asks every method. Removing a patch means dropping its token after the position embedding: the model never
# sees pixels that were made up to fill the hole. Patches go from the least important on (accuracy should stay), and
# from the most important on (it should fall). The area under the curve sums this up, by the rule of the published code.


def measure(
    model: HookedViT, images: LabelledImages, methods: Mapping[str, Explainer], n_steps: int
) -> dict[str, pd.DataFrame]:
    """The tables of both tests."""
    return sweep(model, images, [Faithfulness(methods, n_steps=n_steps), Localisation(methods)])


def areas(faithfulness: pd.DataFrame, direction: str) -> Any:
    """Area under each method's curve with its interval, best first."""
    chosen = (faithfulness["direction"] == direction) & (faithfulness["metric"] == "auc_published")
    of: Any = pd.DataFrame(faithfulness[chosen]).set_index("method")[["value", "low", "high"]]
    return of.sort_values(by="value", ascending=direction == "positive")


# %% Two objects: does the map know which class it was asked for?
# For each scene, a map for the class of the first object and one for that of the second. A map is right if it is
# higher, on average, on its own object than on the other one. One that does not depend on the class is right for
# exactly one of the two; a coin is right for both in a quarter of the scenes.


def two_objects(model: HookedViT, scenes: SceneBatch, methods: Mapping[str, Explainer]) -> pd.DataFrame:
    """The scores of each method, over scenes that show both objects on some patch."""
    on_objects = token_labels(scenes.masks, model.token_layout.grid, anchor="centre")
    shown = on_objects.any(dim=-1).all(dim=-1)
    images, labels = scenes.images[shown].to(model.cfg.device), scenes.labels[shown].to(model.cfg.device)
    tests = {}
    for name, method in methods.items():
        maps = torch.stack([method(model, images, labels[:, which]) for which in (0, 1)], dim=1)
        tests[name] = two_object_test(maps.cpu(), on_objects[shown])
    return two_object_scores(tests)


# %% Probes: what fitting adds, and what it costs
# A linear probe learns from a few images of each class what the projection knows without any. Probes are fitted for
# every block and position at once, and to shuffled labels too: what those reach, any probe reaches. Where probes read
# the class best, patches may matter most: that order of patches is a method too, and is tested with the others.


def probed(
    model: HookedViT, train: LabelledImages, n_train: int, test: LabelledImages, shots: Sequence[int]
) -> tuple[pd.DataFrame, ProbeOrder]:
    """Probes beside the projection, and the order of patches by the probes of most shots."""

    def features(images: LabelledImages, n: int, size: int = 100) -> ProbeFeatures:
        reader = ItemReader(images, model.cfg, model.data_config)
        read = (reader.__getitems__(range(start, min(start + size, n))) for start in range(0, n, size))
        return probe_features(model, [(one.images, one.labels) for one in read if one.images is not None])

    fitted_to, asked = features(train, n_train), features(test, len(test))
    table = compare_with_projection(model, fitted_to, asked, shots)
    most = fitted_to.shots(max(shots))
    return table, ProbeOrder(fit_ridge_probe(most.features, most.labels, model.cfg.n_classes))


# %% The numbers for people


def printable(tables: dict[str, pd.DataFrame], title: str) -> Table:
    """A row a method, best under negative perturbation first."""
    caption = (
        "area: negative perturbation (higher is better), positive (lower is better), published rule; on the object: "
        "pointing game, average precision; of two objects: maps that are on their own one, scenes in which both are. "
        "Intervals are in the tables that are written."
    )
    printed = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    printed.add_column("method", no_wrap=True)
    for heading in (
        "area\nneg.",
        "area\npos.",
        "points\nat it",
        "average\nprec.",
        "right,\na map",
        "right,\nboth",
    ):
        printed.add_column(heading, justify="right")
    negative, positive = (areas(tables["faithfulness"], direction)["value"] for direction in ("negative", "positive"))
    kinds = {"localisation": ("pointing_game", "average_precision"), "two_objects": ("right", "both_right")}
    scores: Any = pd.concat(
        [pd.Series(dtype=float), *(tables[kind].set_index(["method", "metric"])["value"] for kind in kinds
                                   if kind in tables and len(tables[kind]))]
    )  # fmt: skip
    for method in negative.index:
        of_method = [
            f"{scores[method, metric]:.2f}" if (method, metric) in scores.index else "–"
            for metrics in kinds.values() for metric in metrics
        ]  # fmt: skip
        printed.add_row(str(method), f"{negative[method]:.3f}", f"{positive[method]:.3f}", *of_method)
    return printed


# %% What the numbers say
# Sentences, written from the tables: with another model, or after another training run, they tell something else.


def findings(tables: dict[str, pd.DataFrame]) -> list[str]:
    """What wins where."""
    said, table = [], tables["faithfulness"]
    published = {"negative": "0.836, relevance 0.845, random 0.716", "positive": "0.413, relevance 0.393, random 0.716"}
    for direction, words in (("negative", "the least"), ("positive", "the most")):
        of = areas(table, direction)
        # by more than chance among the images explains
        beaten = of.index[
            of["high"] < of.loc["random", "low"] if direction == "negative" else of["low"] > of.loc["random", "high"]
        ]
        said.append(
            f"Removing {words} important patches first, {_listed(of['value'], 2)} do best; feature importance is "
            f"number {list(of.index).index('importance') + 1} of {len(of)} with {_interval(of.loc['importance'])}, a "
            f"random order has {_interval(of.loc['random'])}"
            + (f", and {', '.join(beaten)} {'is' if len(beaten) == 1 else 'are'} certainly worse. " if len(beaten)
               else ", and none is certainly worse. ")
            + f"The paper has importance {published[direction]} (ViT-B/32 on ImageNet-S)."
        )  # fmt: skip
    if len(tables["localisation"]):
        points = _scores(tables["localisation"], "pointing_game")
        said.append(
            f"The most important patch is on the object in {_interval(points.loc['importance'])} of the pictures for "
            f"feature importance (chance {points.loc['importance', 'chance']:.3f}); {_listed(points['value'], 2)} lead."
        )
    if "two_objects" in tables:
        both = _scores(tables["two_objects"], "both_right")
        blind = [str(name) for name in both.index if name in CLASS_AGNOSTIC and name != "random"]
        said.append(
            f"In {both['n_images'].max()} scenes of two objects, both maps are on their own object in "
            f"{_interval(both.loc['importance'])} for feature importance; {_listed(both['value'], 2)} lead; "
            f"two maps drawn at random would be in 0.25. {' and '.join(blind)}, however well they do above, have one "
            "map for all classes and are right for one of the two: what they show is where the objects are, not why "
            "the class."
        )
        top = str(areas(table, "negative").index[0])
        if top in CLASS_AGNOSTIC:
            said.append(f"So {top} is the most faithful by area, and yet knows nothing of the class it explains.")
    return said


def findings_on_probes(table: pd.DataFrame, faithfulness: pd.DataFrame) -> list[str]:
    """What probes add."""
    last, k = table["layer"].max(), int(max(table["shots"]))
    rows: Any = table[(table["layer"] == last) & (table["metric"] == "accuracy")]

    def value(method: str, token_type: str) -> float:
        chosen = (rows["method"] == method) & (rows["token_type"] == token_type)
        if method != "projection":
            chosen &= rows["shots"] == k
        return float(rows[chosen]["value"].iloc[0])

    where = "cls" if "cls" in set(table["token_type"]) else "pooled"
    costs: Any = table.groupby(["method", "shots"])[["seconds", "megabytes"]].first()
    cost, free = costs.loc[("probe", k)], costs.loc[("projection", 0)]
    of = {direction: areas(faithfulness, direction) for direction in ("negative", "positive")}
    return [
        f"After the last block, probes fitted to {k} images of each class read the class from "
        f"{value('probe', 'patch'):.0f} % of the patches and {value('probe', where):.0f} % of the {where} tokens, the "
        f"projection from {value('projection', 'patch'):.0f} and {value('projection', where):.0f} %; with shuffled "
        f"labels it is {value('probe_null', 'patch'):.0f} %.",
        f"That takes {cost['seconds']:.1f} s and {cost['megabytes']:.0f} MB of features and weights; the projection "
        f"takes {free['seconds']:.2f} s, and keeps nothing.",
        "In the probes' order, the areas are "
        + " and ".join(
            f"{_interval(each.loc['probe'])} ({direction}; random {_interval(each.loc['random'])})"
            for direction, each in of.items()
        ) + ". The paper has 0.739 and 0.683, against 0.716 for a random order.",
    ]  # fmt: skip


def _scores(table: pd.DataFrame, metric: str) -> Any:
    of: Any = table[table["metric"] == metric]
    return of.set_index("method").sort_values(by="value", ascending=False)


def _interval(row: Any) -> str:
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _listed(values: Any, n: int) -> str:
    return " and ".join(f"{name} ({values[name]:.3f})" for name in values.index[:n])


# %% All of it


def main(
    model: str = "emoji-vit",
    out: Path = Path("out/06_explanations"),
    data: str | None = None,
    scenes: int = 48,
    figures: int = 3,
    quick: bool = False,
) -> None:
    """Run the whole story on any model; DATA (KIND:PATH) says which images, if its classes are not those of emoji-vit.

    Writes figures and tables to OUT; QUICK takes a few scenes and steps only.
    """
    console, vit = Console(), HookedViT.from_pretrained(model)
    n, n_steps, shots = (12, 4, (1,)) if quick else (scenes, 12, (1, 5))
    images = images_for(vit, n, data)
    title, drawn = f"{model} on {data or 'Emoji Scenes'}", {}
    methods, tables = {name: explainer(name) for name in SWEPT_METHODS}, {}
    is_emoji = isinstance(images, EmojiScenes)
    if is_emoji:
        train = EmojiScenes(100 * max(shots), 23, image_size=vit.cfg.image_size[0])
        tables["probes"], methods["probe"] = probed(vit, train, len(train), images, shots)
    tables |= measure(vit, images, methods, n_steps)
    if is_emoji:
        batch = EmojiScenes(n, 11, image_size=vit.cfg.image_size[0], objects=2).batch(range(n))
        tables["two_objects"] = two_objects(vit, batch, methods)
        for scene in range(min(figures, n)):
            image, labels = batch.images[[scene, scene]].to(vit.cfg.device), batch.labels[scene].to(vit.cfg.device)
            names = [vit.class_names[int(label)] for label in labels]
            maps = {name: method(vit, image, labels) for name, method in methods.items() if name != "random"}
            drawn[f"scene_{scene}-maps"] = method_maps_figure(
                picture_of(image[0], vit.data_config or {}), maps, names, vit.token_layout, vit.cfg.patch_size,
                masks=list(batch.masks[scene]), agnostic=CLASS_AGNOSTIC,
            )  # fmt: skip
            if scene == 0:
                importance = feature_importance(vit, image, labels)
                for of_class, mask, name in zip(importance, batch.masks[scene], names, strict=True):
                    drawn[f"scene_{scene}-heads-{name}"] = head_maps_figure(
                        of_class, vit.token_layout, vit.cfg.patch_size, mask=mask, title=f"importance for {name}"
                    )
    console.print(printable(tables, f"{title}, {len(images)} images"))
    said = findings(tables)
    if is_emoji:
        said += findings_on_probes(tables["probes"], tables["faithfulness"])
        drawn["probes"] = probe_figure(tables["probes"], title=title)
    for sentence in said:
        console.print(f"• {sentence}", highlight=False)

    drawn["faithfulness"] = faithfulness_figure(tables["faithfulness"], title=title)
    if len(tables["localisation"]):
        drawn["localisation"] = localisation_figure(tables["localisation"], title=title)
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False)
    for name, figure in drawn.items():
        figure.savefig(out / f"{name}.png", dpi=130)
    console.print(f"Figures and tables in {out}/", highlight=False)


if __name__ == "__main__":
    typer.run(main)

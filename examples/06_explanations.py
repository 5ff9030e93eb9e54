"""Which patches matter for a class, and which method finds them?

On emoji-vit, relevance does best over all tests: its most important patch is on the object in 0.957 of the scenes,
removing the most important patches first leaves the smallest area (0.175), and with two objects it is right for both in
every scene. Rollout comes close in the first two tests (0.979, 0.259), but has one map for all classes.

Takes up to one minute on two cores, half a minute with --quick.
"""

# A map that colours the patches of a picture by importance is quickly made, and always looks plausible. Is it right?
# Scenes with known objects allow three tests. Does the map lie on the object (localisation)? Does the answer change
# when the important patches are removed, and stay when the others are (faithfulness)? And with two objects in a
# picture: is the map for the first class on the first object, and the map for the second class on the second?
#
#     python examples/06_explanations.py                                  # the bundled model
#     python examples/06_explanations.py --model vit_base_patch32_224.augreg_in21k_ft_in1k --data 'imagenet-s:DIR?n=5'
#
# Feature importance, and the comparison with probes, are those of Vilas, Schaumlöffel and Roig, "Analyzing Vision
# Transformers for Image Classification in Class Embedding Space" (NeurIPS 2023), sections 6 and 7.

# %%
import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console

from analyses.data import EmojiScenes, ItemReader, LabelledImages, images_for, token_labels
from analyses.faithfulness import SWEPT_METHODS, Faithfulness, Localisation, two_object_scores, two_object_test
from analyses.feature_importance import CLASS_AGNOSTIC, ProbeOrder, explainer, feature_importance
from analyses.linear_probe import ProbeFeatures, compare_with_projection, fit_ridge_probe, probe_features
from analyses.plots.explanation_maps import head_maps_figure, method_maps_figure
from analyses.plots.explanation_quality import faithfulness_figure, localisation_figure
from analyses.plots.linear_probe import probe_figure
from analyses.sweep import sweep
from hooked_vit import HookedViT, keep_freed_memory

# pandas' annotations lose the type of a selection; the tests run every cell
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportIndexIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

# %% Options
# Run as cells in a notebook or an editor, there is no command line, and the defaults apply.

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="emoji-vit", help="any covered model")
parser.add_argument("--data", help="images as KIND:PATH, for a model with other classes than emoji-vit")
parser.add_argument("--out", type=Path, default=Path("out/06_explanations"), help="folder for figures and tables")
parser.add_argument("--scenes", type=int, default=48, help="number of Emoji Scenes")
parser.add_argument("--figures", type=int, default=3, help="number of scenes to draw maps of")
parser.add_argument("--quick", action="store_true", help="12 scenes, fewer removals and probes of one image per class")
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)

# %% The model, the images and the methods

keep_freed_memory()  # large activations reuse the memory of earlier ones
model = HookedViT.from_pretrained(options.model)
n_scenes, n_steps, shots = (12, 4, (1,)) if options.quick else (options.scenes, 12, (1, 5))
images = images_for(model, n_scenes, options.data)
is_emoji = isinstance(images, EmojiScenes)
methods = {name: explainer(name) for name in SWEPT_METHODS}
title = f"{options.model} on {options.data or 'Emoji Scenes'}"

# %% Probes: what fitting adds, and what it costs
# A linear probe learns from a few images per class what the projection shows without any. Probes are fitted for every
# block and token position at once, and once more to shuffled labels as a control. Where probes read the class best,
# patches may matter most: that order of patches is a method, too, and is tested with the others.


def features_of(dataset: LabelledImages, size: int = 100) -> ProbeFeatures:
    """Features of all images of a dataset, read in batches."""
    reader, n_images = ItemReader(dataset, model.cfg, model.data_config), len(dataset)
    batches = (reader.__getitems__(range(start, min(start + size, n_images))) for start in range(0, n_images, size))
    return probe_features(model, [(batch.images, batch.labels) for batch in batches if batch.images is not None])


if is_emoji:
    features = features_of(EmojiScenes(100 * max(shots), 23, image_size=model.cfg.image_size[0]))
    probes = compare_with_projection(model, features, features_of(images), shots)
    probes.to_csv(options.out / "probes.csv", index=False)
    probe_figure(probes, title=title).savefig(options.out / "probes.png", dpi=130)
    most = features.shots(max(shots))
    methods["probe"] = ProbeOrder(fit_ridge_probe(most.features, most.labels, model.cfg.n_classes))

    at_end = probes[(probes["layer"] == model.cfg.n_layers - 1) & (probes["metric"] == "accuracy")]
    print(f"{title}: class on top after the last block, %, with {max(shots)} images per class for each probe\n")
    at_end = at_end[at_end["shots"].isin([0, max(shots)])]
    costs = at_end.groupby("method")[["seconds", "megabytes"]].first()
    accuracies = at_end.pivot(index="method", columns="token_type", values="value")
    print(accuracies.join(costs).round(2).to_string(), "\n")

# %% Faithfulness and localisation, in one sweep
# To remove a patch we drop its token after the position embedding, so the model never sees pixels that were invented to
# fill the hole. Patches go from the least important on (accuracy should stay), and from the most important on (it
# should fall). The area under the curve sums this up, by the rule of the published code.

tables = sweep(model, images, [Faithfulness(methods, n_steps=n_steps), Localisation(methods)])
faithfulness, localisation = tables["faithfulness"], tables["localisation"]
for name, table in tables.items():
    table.to_csv(options.out / f"{name}.csv", index=False)
faithfulness_figure(faithfulness, title=title).savefig(options.out / "faithfulness.png", dpi=130)
if len(localisation):
    localisation_figure(localisation, title=title).savefig(options.out / "localisation.png", dpi=130)

# %% Two objects: is the map about the class?
# For each scene, one map for the class of the first object and one for that of the second. A map is right if its mean
# is greater on its own object than on the other. A map that does not depend on the class is right for exactly one of
# the two; a random map is right for both in a quarter of the scenes. We keep scenes in which both objects cover the
# centre of some patch.

scenes = EmojiScenes(n_scenes, 11, image_size=model.cfg.image_size[0], objects=2).batch(range(n_scenes))
on_objects = token_labels(scenes.masks, model.token_layout.grid, anchor="centre")
kept = on_objects.any(dim=-1).all(dim=-1)
if is_emoji:
    kept_images, labels = scenes.images[kept].to(model.cfg.device), scenes.labels[kept].to(model.cfg.device)
    tests = {}
    for name, method in methods.items():
        maps = torch.stack([method(model, kept_images, labels[:, which]) for which in (0, 1)], dim=1)
        tests[name] = two_object_test(maps.cpu(), on_objects[kept])
    tables["two_objects"] = two_object_scores(tests)
    tables["two_objects"].to_csv(options.out / "two_objects.csv", index=False)

# %% All three tests
# Areas: with the least important patches removed first, higher is better; with the most important first, lower is. The
# paper has importance 0.836 and 0.413, relevance 0.845 and 0.393, probes 0.739 and 0.683, and a random order 0.716
# (ViT-B/32 on ImageNet-S).

areas = faithfulness[faithfulness["metric"] == "auc_published"]
scores = areas.pivot(index="method", columns="direction", values="value")[["negative", "positive"]]
scores.columns = ["least first", "most first"]
if len(localisation):
    on_object = localisation.pivot(index="method", columns="metric", values="value")
    scores["pointing game"], scores["average precision"] = on_object["pointing_game"], on_object["average_precision"]
if is_emoji:
    pairs = tables["two_objects"].pivot(index="method", columns="metric", values="value")
    scores["one of two"], scores["both of two"] = pairs["right"], pairs["both_right"]
scores = scores.sort_values(by="least first", ascending=False)
print(
    f"{title}, {len(images)} images\nAreas under the curve; maps on the object; maps on their own one of two objects\n"
)
print(scores.round(3).to_string(), "\n")

# %% What the table says
# Methods that do not depend on the class can rank high in the first two tests: they show where objects are, not why
# the model names one of them. The third test separates the two.

console.print(
    f"• {scores.index[0]} has the largest area with the least important patches removed first, "
    f"{scores['most first'].idxmin()} the smallest with the most important first."
)
if is_emoji:
    best = scores["both of two"].idxmax()
    blind = [name for name in scores.index if name in CLASS_AGNOSTIC and name != "random"]
    console.print(
        f"• With two objects, {best} is right for both in {100 * scores['both of two'].max():.0f} % of "
        f"{int(kept.sum())} scenes. {' and '.join(blind)} have one map for all classes and are never right for both."
    )

# %% Maps of single scenes
# One row for each of the two classes, one column for each method. A map that is zero everywhere has no most important
# patch, and is drawn all dark, with a note under it. Grad-CAM gives such a map if its weighted sum of activations is
# negative at every patch, because it sets negative values to zero.

for index in range(min(options.figures, n_scenes) if is_emoji else 0):
    image, labels = scenes.images[[index, index]].to(model.cfg.device), scenes.labels[index].to(model.cfg.device)
    names = [model.class_names[int(label)] for label in labels]
    maps = {name: method(model, image, labels) for name, method in methods.items() if name != "random"}
    figure = method_maps_figure(
        model.picture_of(image[0]), maps, names, model.token_layout, model.cfg.patch_size,
        masks=list(scenes.masks[index]), agnostic=CLASS_AGNOSTIC,
    )  # fmt: skip
    figure.savefig(options.out / f"scene_{index}-maps.png", dpi=130)

# %% Feature importance, block by block and head by head
# The global map is a sum over all blocks and heads. For the first scene, this is what it is the sum of.

if is_emoji and options.figures:
    image, labels = scenes.images[[0, 0]].to(model.cfg.device), scenes.labels[0].to(model.cfg.device)
    for importance, mask, label in zip(
        feature_importance(model, image, labels), scenes.masks[0], labels.tolist(), strict=True
    ):
        name = model.class_names[label]
        head_maps_figure(
            importance, model.token_layout, model.cfg.patch_size, mask=mask, title=f"importance for {name}"
        ).savefig(options.out / f"scene_0-heads-{name}.png", dpi=130)
console.print(f"Figures and tables in {options.out}/")

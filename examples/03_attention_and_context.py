"""Where do patches get the class from: their own pixels, attention, or the context of the object?

On emoji-vit, mostly from attention to other patches: if each patch attends to itself only, those with the class on top
fall from 31.7 to 3.7 %; without attention to CLS they stay at 31.5 %. Context patches are even ahead of object patches
(by 0.051 in identifiability); with attention to self only, object patches are ahead (by 0.237).

Takes up to 20 seconds on two cores, 15 with --quick.
"""

# Example 02 showed that image tokens carry the class. Here we ask where they get it from. Masks show which patches lie
# on the object. Interventions then remove something: attention between patches, attention to CLS, the patches of the
# context, or those of the object. What remains did not depend on what was removed.
#
#     python examples/03_attention_and_context.py                                  # the bundled model
#     python examples/03_attention_and_context.py --model vit_base_patch32_224.augreg_in21k_ft_in1k \
#         --data 'imagenet-s:DIR?n=5'
#
# The questions and definitions are those of Vilas, Schaumlöffel and Roig, "Analyzing Vision Transformers for Image
# Classification in Class Embedding Space" (NeurIPS 2023), section 4.

# %%
import argparse
import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from scipy.stats import binomtest

from analyses.data import ItemReader, images_for
from analyses.identifiability import Identifiability, identifiability
from analyses.perturbation import Perturbation, perturb, self_only
from analyses.plots.curves import draw_curve, finish_figure, finish_panel, rows_of
from analyses.plots.map_rows import map_rows_figure
from analyses.plots.perturbation import PERTURBATION_NAMES, perturbation_figure
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
parser.add_argument("--out", type=Path, default=Path("out/03_attention_and_context"), help="for figures and tables")
parser.add_argument("--scenes", type=int, default=200, help="number of Emoji Scenes")
parser.add_argument("--quick", action="store_true", help="30 scenes only")
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)

# %% What is removed
# `self_only`: each patch attends to itself alone; CLS still reads all patches. `no_cls`: patches do not read CLS.
# `no_context`, `no_object`: these patches are dropped after the position embedding. As in the paper, the mask is
# resized to the patch grid by nearest neighbour, so one pixel decides the label of a patch, and a "context" patch may
# show a piece of the object. `no_touched` closes this gap: it drops every patch with even one pixel of the object.

keep_freed_memory()  # large activations reuse the memory of earlier ones
model = HookedViT.from_pretrained(options.model)
images = images_for(model, 30 if options.quick else options.scenes, options.data)
perturbation = Perturbation(removals=("context", "object", "touched"))
tables = sweep(model, images, [Identifiability(), perturbation])
table, perturbed = tables["identifiability"], tables["perturbation"]
table.to_csv(options.out / "identifiability.csv", index=False)
perturbed.to_csv(options.out / "perturbation.csv", index=False)
perturbed["perturbation"] = perturbed["perturbation"].map(PERTURBATION_NAMES)

# %% What remains after the last block
# Each line compares the same tokens before and after the removal: their identifiability (0.5 is chance, 1 has the class
# on top) and the percentage of them with the class on top. The paper's percentages for ViT-B/32 on ImageNet-S: 60.7 to
# 0.1 with attention to self only, and 60.7 to 60.7 without attention to CLS; object patches without context 71.9 to
# 44.7, context patches without object 56.2 to 38.7.

title = f"{options.model} on {options.data or 'Emoji Scenes'}"
last = rows_of(perturbed, token_type="patch")
last = last[last["layer"] == last["layer"].max()].set_index(["perturbation", "region"])
metrics = {"identifiability": ("identifiability", "{:.2f}"), "identifiability_rate": ("class on top, %", "{:.1f}")}
left = pd.DataFrame(
    {
        words: rows["before"].map(number.format) + " → " + rows["after"].map(number.format)
        for metric, (words, number) in metrics.items()
        for rows in [last[last["metric"] == metric]]
    }
)
order = [words for words in PERTURBATION_NAMES.values() if words in left.index]
print(f"{title}, {len(images)} images: patches after the last block, before → after\n")
print(left.reindex(order, level=0).to_string(), "\n")

# %% What remains of the answer
# Accuracy before and after, in percent, with the change and its 95 % interval. A model that recognises an object by its
# surroundings loses much without the context and little without the object.

accuracy = rows_of(perturbed, metric="accuracy").set_index("perturbation").rename(columns={"value": "change"})
print(accuracy[["before", "after", "change", "low", "high", "p_adjusted"]].round(3).to_string(), "\n")

if PERTURBATION_NAMES["no_touched"] in accuracy.index:
    row, chance = accuracy.loc[PERTURBATION_NAMES["no_touched"]], 100 / model.cfg.n_classes
    n_right, n_images = round(row["after"] * row["n_images"] / 100), int(row["n_images"])
    p_value = binomtest(n_right, n_images, chance / 100).pvalue
    console.print(
        f"• Without a pixel of the object the model is right on {n_right} of {n_images} images (chance {chance:.1f} %, "
        f"p = {p_value:.2g}).\n"
    )

# %% The same over all blocks

for metric, name in (("identifiability_rate", "perturbation_rate"), ("identifiability", "perturbation")):
    perturbation_figure(perturbed, metric, title=title).savefig(options.out / f"{name}.png", dpi=130)

# %% Object patches against context patches
# In the paper, patches on the object carry the class more often than the others: 71.9 against 56.2 %. Emoji Scenes
# differ from photographs in that their background is noise, unrelated to the class, so a context patch can only have
# the class from attention. To see how much attention contributes, a second sweep keeps `self_only` on throughout. If
# attention fills the context, the order of object and context turns round once no patch reads another.

alone = sweep(model, images, [Identifiability()], fwd_hooks=self_only(model))["identifiability"]
alone.to_csv(options.out / "self_only.csv", index=False)
runs = {"full attention": table, PERTURBATION_NAMES["self_only"]: alone}
regions = {"object": "object", "context": "context", "object_minus_context": "difference"}
has_masks = "object_minus_context" in set(table["region"])
if has_masks:
    scores = {
        (run, words): rows_of(rows, metric="identifiability", token_type="patch", region=region).set_index("layer")[
            "value"
        ]
        for run, rows in runs.items() for region, words in regions.items()
    }  # fmt: skip
    print(f"{title}: identifiability of object and context patches\n")
    print(pd.DataFrame(scores).rename_axis("block").round(3).to_string(), "\n")
    for run, rows in runs.items():
        end = rows_of(rows, metric="identifiability", region="object_minus_context").iloc[-1]
        console.print(
            f"• Object minus context after the last block, with {run}: {end['value']:+.3f} (95 % interval "
            f"{end['low']:+.3f} to {end['high']:+.3f}, Cohen's d {end['effect_size']:+.2f}, "
            f"p = {end['p_adjusted']:.2g})."
        )

# %% The difference over blocks
# Above zero, object patches are more identifiable than context patches.

if has_masks:
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    ax = figure.subplots()
    ax.axhline(0, color="#555555", linestyle=":", linewidth=1)
    for (run, rows), (color, marker) in zip(runs.items(), (("#0072B2", "s"), ("#D55E00", "o")), strict=True):
        difference = rows_of(rows, metric="identifiability", region="object_minus_context")
        draw_curve(ax, difference, significant=True, label=run, color=color, marker=marker)
    finish_panel(ax, "Identifiability, object minus context patches", "difference of means per image")
    finish_figure(figure, table, title, "Bands: 95 % bootstrap intervals; filled: p < 0.05, corrected.")
    figure.savefig(options.out / "object_and_context.png", dpi=130)

# %% Maps of single pictures
# The identifiability of each patch, halfway and at the end. Note that even a patch of plain background ranks some
# classes above others, whatever the picture shows. On a single map it may therefore look as if it carried the class, or
# its opposite; only over all classes does this average out to chance.

batch = ItemReader(images, model.cfg, model.data_config).__getitems__(range(min(4, len(images))))
if batch.images is not None and batch.object_mask is not None:
    run = perturb(model, batch.images, batch.labels, fwd_hooks=self_only(model))
    scores = {
        name: identifiability(rank, model.cfg.n_classes)[:, :, model.token_layout.patches]
        for name, rank in zip(runs, (run.rank_before, run.rank_after), strict=True)
    }
    halfway, end = model.cfg.n_layers // 2, model.cfg.n_layers - 1
    map_rows_figure(
        [model.picture_of(image) for image in batch.images], list(batch.object_mask),
        {f"block {block},\n{name}": score[block] for name, score in scores.items() for block in (halfway, end)},
        model.token_layout, model.cfg.patch_size, label="identifiability", title=title,
        caption="Outline: the object. 0.5 is chance; at 1 the class is on top.",
        names=[str(model.class_names[label]) for label in batch.labels.tolist()] if model.class_names else (),
    ).savefig(options.out / "maps.png", dpi=130)  # fmt: skip
console.print(f"Figures and tables in {options.out}/")

"""Do image tokens carry the class of the picture?

On emoji-vit, yes, though the head reads CLS alone: after the last block 32.0 % of the patches have the class on top
(untrained: 1.0 %), and 74.3 % of the images have such a patch (untrained: 15.3 %). Patches are above the untrained
control after blocks 5 to 7, CLS from block 1 on.

Takes up to 15 seconds on two cores, 10 with --quick.
"""

# The head of a Vision Transformer reads one token, CLS, or the mean of all tokens. Training never asks a patch's token
# to name the class of the picture. Does it come to do so, and in which block? Example 01 looked at two dozen pictures.
# Here we measure: hundreds of images, intervals over images, and the untrained model as a control.
#
#     python examples/02_identifiability.py                                        # the bundled model
#     python examples/02_identifiability.py --model vit_base_patch32_224.augreg_in21k_ft_in1k \
#         --data 'imagenet-s:DIR?n=5'
#
# The questions and definitions are those of Vilas, Schaumlöffel and Roig, "Analyzing Vision Transformers for Image
# Classification in Class Embedding Space" (NeurIPS 2023), section 4.

# %%
import argparse
import sys
from pathlib import Path

import pandas as pd
from in_words import blocks_in_words
from rich.console import Console

from analyses.analysis import compare_with_null
from analyses.data import images_for
from analyses.identifiability import Identifiability
from analyses.plots.curves import rows_of
from analyses.plots.identifiability import identifiability_figure
from analyses.sweep import sweep
from hooked_vit import HookedViT, keep_freed_memory
from hooked_vit.initialisation import freshly_initialised

# pandas' annotations lose the type of a selection; the tests run every cell
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportIndexIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

# %% Options
# Run as cells in a notebook or an editor, there is no command line, and the defaults apply.

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="emoji-vit", help="any covered model")
parser.add_argument("--data", help="images as KIND:PATH, for a model with other classes than emoji-vit")
parser.add_argument("--out", type=Path, default=Path("out/02_identifiability"), help="folder for figures and tables")
parser.add_argument("--scenes", type=int, default=300, help="number of Emoji Scenes")
parser.add_argument("--quick", action="store_true", help="60 scenes only")
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)

# %% One pass over a dataset: the sweep
# `sweep(model, dataset, analyses)` runs each batch through the model once, caches only the activations that the
# analyses name, and passes the batch to every analysis. It returns a tidy table for each analysis, one observation per
# row, and the model's accuracy. With `out="folder"` it writes the tables, and resumes after an interruption; under
# torchrun, processes share the images.
#
# `Identifiability` keeps a histogram of ranks. A token's rank is the number of classes with a greater logit than the
# picture's class. Its *identifiability* is 1 - rank / n_classes: 1 if the class is on top, (C + 1) / 2C by chance. The
# *rate* is the percentage of tokens with the class on top. The *change rate* of a block is the share of tokens whose
# class logit is greater after the block than before it.

keep_freed_memory()  # large activations reuse the memory of earlier ones
model = HookedViT.from_pretrained(options.model)
images = images_for(model, 60 if options.quick else options.scenes, options.data)
trained = Identifiability()
tables = sweep(model, images, [trained])
table, accuracy = tables["identifiability"], tables["accuracy"].iloc[0]
table.to_csv(options.out / "identifiability.csv", index=False)

# %% The control
# Chance is not the only baseline: by its architecture alone, an untrained network might pass on something of the class.
# So the same images go through the same architecture with freshly drawn weights.

untrained = Identifiability()
null = sweep(freshly_initialised(model, 0), images, [untrained])["identifiability"]
null.to_csv(options.out / "untrained.csv", index=False)

# %% Trained against untrained
# For each image, we compare the mean identifiability of its tokens with that in the untrained model: Wilcoxon's
# signed-rank test over images (not over tokens, because tokens of one image depend on each other), corrected for the
# number of blocks (Holm). A small p shows that there is a difference. The rank-biserial correlation gives its size: 1
# if every image is above its control, 0 if as many are below as above.

comparison = compare_with_null(trained, untrained)
comparison.to_csv(options.out / "comparison.csv", index=False)

# %% One row per block
# The three tables have a row for each block, kind of token and metric; here we pick those that answer the question.


def by_block(rows: pd.DataFrame, metric: str, column: str = "value", token_type: str = "patch") -> pd.Series:
    """One value per block, over all tokens of a kind."""
    return rows_of(rows, metric=metric, token_type=token_type, region="all").set_index("layer")[column]


blocks = pd.DataFrame()
kinds = {kind: words for kind, words in {"cls": "CLS", "patch": "patches"}.items() if kind in set(table["token_type"])}
for kind, words in kinds.items():
    scores, rates = (by_block(table, metric, token_type=kind) for metric in ("identifiability", "identifiability_rate"))
    effects, p_values = (
        by_block(comparison, "identifiability", name, kind) for name in ("rank_biserial", "p_adjusted")
    )
    blocks[words] = scores.map("{:.2f}".format) + rates.map("{:5.0f} %".format)
    blocks[f"{words} effect"] = effects.map("{:+.2f}".format) + (p_values < 0.05).map({True: "*", False: " "})
blocks["images with one"] = by_block(table, "images_with_identifiable").map("{:.0f} %".format)
blocks["rising"] = (100 * by_block(table, "change_rate")).map("{:.0f} %".format, na_action="ignore")

title = f"{options.model} on {options.data or 'Emoji Scenes'}"
print(f"{title}: {accuracy['n_images']:.0f} images, {accuracy['top1']:.1f} % of them classified correctly")
print("Identifiability, rate, and effect size against the untrained model (*: p < 0.05)\n")
print(blocks.fillna("").rename_axis("block").to_string(), "\n")

# %% What the table says
# The paper has 60.7 % of the patches and 95.6 % of the images for ViT-B/32 on ImageNet-S, 52.1 to 90.4 % and 95.5 to
# 98.8 % over its seven models, and 0.07 % and 1.3 % for an untrained B/32. Chance is the reference for single numbers:
# if all classes are shown equally often, tokens without information about the class are at chance on average. So
# tokens below chance do carry information: they point away from the class.

rates, with_one = (by_block(table, name).iloc[-1] for name in ("identifiability_rate", "images_with_identifiable"))
null_rate, null_with_one = (
    by_block(null, name).iloc[-1] for name in ("identifiability_rate", "images_with_identifiable")
)
console.print(
    f"• After the last block {rates:.1f} % of the patches have the class on top (untrained: {null_rate:.1f} %), and "
    f"{with_one:.1f} % of the images have such a patch (untrained: {null_with_one:.1f} %)."
)
above = by_block(comparison, "identifiability", "p_adjusted") < 0.05
below = by_block(table, "identifiability", "high") < (model.cfg.n_classes + 1) / (2 * model.cfg.n_classes)
console.print(
    f"• Patches are above the untrained control after {blocks_in_words(above)}, and below chance after "
    f"{blocks_in_words(below)}."
)

# %% The whole picture
# A star marks a block whose tokens are above the untrained control.

figure = identifiability_figure(table, null, comparison, n_classes=model.cfg.n_classes, title=title)
figure.savefig(options.out / "identifiability.png", dpi=130)
console.print(f"Figure and tables in {options.out}/")

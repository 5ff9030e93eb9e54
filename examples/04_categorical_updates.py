"""What moves tokens towards their class: attention or MLPs, in which blocks, and through which heads?

On emoji-vit, attention: it moves more than half of the patches towards their class in blocks 1 to 7, by up to 11.5
logits, MLPs only in blocks 5 to 7, by up to 1.7 logits. It works through most heads: 28 of 32 raise the class of
patches, most of all head 3 of block 5.

Takes up to 20 seconds on two cores, 15 with --quick.
"""

# A block adds two vectors to each token: what its attention gathers from other tokens, and what its MLP computes from
# the token itself. Both live in the residual stream, so we can project both onto the classes and compare them with the
# stream before the block: does the correct class rise? And whose top class does the stream take over?
#
#     python examples/04_categorical_updates.py                                    # the bundled model
#     python examples/04_categorical_updates.py --model vit_base_patch32_224.augreg_in21k_ft_in1k \
#         --data 'imagenet-s:DIR?n=5'
#
# The questions and definitions are those of Vilas, Schaumlöffel and Roig, "Analyzing Vision Transformers for Image
# Classification in Class Embedding Space" (NeurIPS 2023), section 5.1.

# %%
import argparse
import sys
from pathlib import Path

import pandas as pd
from in_words import blocks_in_words
from rich.console import Console

from analyses.categorical_updates import CategoricalUpdates
from analyses.data import EmojiScenes, images_for
from analyses.plots.categorical_updates import categorical_updates_figure, head_updates_figure
from analyses.plots.curves import rows_of
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
parser.add_argument("--out", type=Path, default=Path("out/04_categorical_updates"), help="for figures and tables")
parser.add_argument("--scenes", type=int, default=200, help="number of Emoji Scenes")
parser.add_argument("--quick", action="store_true", help="50 scenes only")
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)

# %% One sweep, heads included
# It keeps sums per image, not the projections themselves, so the number of images can be as large as wanted.

keep_freed_memory()  # large activations reuse the memory of earlier ones
model = HookedViT.from_pretrained(options.model)
images = images_for(model, 50 if options.quick else options.scenes, options.data)
table = sweep(model, images, [CategoricalUpdates(heads=True)])["categorical_updates"]
table.to_csv(options.out / "updates.csv", index=False)
title = f"{options.model} on {options.data or 'Emoji Scenes'}"
kinds = {kind: words for kind, words in {"cls": "CLS", "patch": "patches"}.items() if kind in set(table["token_type"])}
SUBLAYERS = {"attn_out": "attention", "mlp_out": "MLP"}

# %% How often, and how far, the class rises
# The *class-similarity change rate* of a sub-layer is the share of tokens whose correct class has a greater logit in
# the projection of its output than in that of the block's input. The *size* is the difference of the two logits, mean
# over tokens. Both projections go through the model's last norm, each with its own statistics: sizes compare directions
# and ignore the length of the vector that is added to the stream.


def by_block(rows: pd.DataFrame, metric: str, stream: str, kind: str, column: str = "value") -> pd.Series:
    """One value per block, of all images and all tokens of a kind."""
    chosen = rows_of(rows, metric=metric, stream=stream, token_type=kind, images="all", region="all", head=None)
    return chosen.set_index("layer")[column]


updates = pd.DataFrame(
    {
        (words, name): (100 * by_block(table, "similarity_change_rate", stream, kind)).map("{:3.0f} %".format)
        + by_block(table, "similarity_increase", stream, kind).map("{:+7.1f}".format)
        for kind, words in kinds.items()
        for stream, name in SUBLAYERS.items()
    }
)
print(f"{title}, {len(images)} images: tokens whose class rises, and by how many logits\n")
print(updates.rename_axis("block").to_string(), "\n")

# %% Who is earlier, and who moves tokens farther?
# The paper finds that attention updates image tokens earlier, and MLPs more strongly. We count the blocks in which
# the whole 95 % interval lies above one half.

for stream, name in SUBLAYERS.items():
    above = by_block(table, "similarity_change_rate", stream, "patch", "low") > 0.5
    sizes = by_block(table, "similarity_increase", stream, "patch")
    console.print(
        f"• {name} moves more than half of the patches towards their class in {blocks_in_words(above)}, at most by "
        f"{sizes.max():+.1f} logits (block {sizes.idxmax()})."
    )
categorical_updates_figure(table, title=title).savefig(options.out / "updates.png", dpi=130)

# %% What the stream takes over
# The *residual composition* is the percentage of tokens whose top class after the block is that of the block's input,
# of attention, of the MLP, or of none of them. Parts may agree, so the columns may add up to more than 100.

parts = {"previous": "input", "attn": "attention", "mlp": "MLP", "none": "none"}
composition = pd.DataFrame(
    {
        (words, name): by_block(table, f"composition_{part}", "resid_post", kind)
        for kind, words in kinds.items()
        for part, name in parts.items()
    }
)
print("\nPercentage of tokens whose top class after the block is that of …\n")
print(composition.round(0).astype(int).rename_axis("block").to_string(), "\n")

# %% Images the model gets right and wrong
# If these updates are how the model reaches its answer, they should be larger in images that it gets right. Nearly
# every scene is recognised, so we hide half of the object. The comparison is between images (permutation test, Cliff's
# delta), block by block. A token whose class is far on top is hard to move any farther: the last blocks may well write
# less of the class than the stream already has, and the more so the surer the model is.

harder = images.occlude(0.5) if isinstance(images, EmojiScenes) else images
hard_tables = sweep(model, harder, [CategoricalUpdates()])
hard_table, hard_title = hard_tables["categorical_updates"], title
if isinstance(images, EmojiScenes):
    hard_title = f"{title}, half of the object hidden"
    hard_table.to_csv(options.out / "updates_occluded.csv", index=False)
    categorical_updates_figure(hard_table, title=hard_title).savefig(options.out / "updates_occluded.png", dpi=130)

of_correctness = {"metric": "similarity_increase", "images": "correct_minus_wrong", "region": "all", "head": None}
differences = rows_of(hard_table, **of_correctness).query("stream in @SUBLAYERS and token_type in @kinds")
console.print(f"{hard_title}: {hard_tables['accuracy']['top1'].item():.1f} % correct.")
if len(differences):
    print("Logits by which updates are larger in images that it gets right (*: p < 0.05)\n")
    stars = (differences["p_adjusted"] < 0.05).map({True: "*", False: " "})
    cells = differences.assign(
        difference=differences["value"].map("{:+.1f}".format) + stars,
        stream=differences["stream"].map(SUBLAYERS), token_type=differences["token_type"].map(kinds),
    )  # fmt: skip
    print(cells.pivot(index="layer", columns=["token_type", "stream"], values="difference").to_string(), "\n")

# %% Which heads?
# A block's attention is the sum of its heads, and each head writes into the stream on its own. Each is projected with
# its own statistics, so heads that point the same way move tokens less far alone than together.

for kind, words in kinds.items():
    heads = rows_of(table, metric="similarity_increase", stream="result", token_type=kind, images="all", region="all")
    heads = heads.set_index(["layer", "head"])["value"]
    (block, head), n_up = heads.idxmax(), (heads > 0).sum()
    console.print(
        f"• {n_up} of {len(heads)} heads raise the class of {words} on average, most of all head {head} of block "
        f"{block} ({heads.max():+.1f} logits)."
    )
head_updates_figure(table, title=title).savefig(options.out / "heads_rate.png", dpi=130)
head_updates_figure(table, "similarity_increase", title=title).savefig(options.out / "heads_size.png", dpi=130)
console.print(f"Figures and tables in {options.out}/")

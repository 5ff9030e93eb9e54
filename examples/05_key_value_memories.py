"""Do single neurons name classes, and does the model use what they write?

On emoji-vit, hardly and yes. Images that activate the clearest neurons show one of their top classes in 10 % of the
cases (chance 5 %). But without the 20 memories most aligned with a class it loses up to 1.22 logits, and more than
without random memories or those of another class in blocks 4 to 7.

Takes up to 40 seconds on two cores, 15 with --quick.
"""

# An MLP is a memory. Each neuron has a key, which matches some tokens, and a value vector, which it writes into the
# residual stream, scaled by its coefficient. A dimension of an attention head is a memory, too: its coefficient is the
# head's mix of values, and its value vector a row of W_O. Value vectors live in the stream, so we can project them onto
# the classes as we project tokens.
#
#     python examples/05_key_value_memories.py                                     # the bundled model
#     python examples/05_key_value_memories.py --model vit_base_patch32_224.augreg_in21k_ft_in1k \
#         --data 'imagenet-s:DIR?n=5'
#
# Sections 1, 4 and 5 follow Vilas, Schaumlöffel and Roig, "Analyzing Vision Transformers for Image Classification in
# Class Embedding Space" (NeurIPS 2023), section 5.2. Sections 2, 3 and 6 ask what the paper leaves open: whether the
# classes of one value vector are related, and whether the memories that correlate with a class cause the prediction.

# %%
import argparse
import sys
from pathlib import Path

import pandas as pd
from in_words import blocks_in_words
from rich.console import Console

from analyses.data import EmojiScenes, images_for
from analyses.memory_pairs import CausalMemories, Compositionality, KeyValueAgreement, TopActivations, images_at
from analyses.plots.causal_memories import causal_memories_figure
from analyses.plots.class_value_agreement import value_vector_statistics_figure
from analyses.plots.curves import rows_of
from analyses.plots.memory_pairs import compositionality_figure, key_value_agreement_figure
from analyses.plots.value_vectors import value_vectors_figure
from analyses.statistics import Resampling
from analyses.sweep import sweep
from analyses.value_vectors import (
    compare_class_value_agreement,
    semantic_coherence,
    taxonomy_of,
    top_classes,
    value_logits,
)
from hooked_vit import HookedViT, keep_freed_memory

# pandas' annotations lose the type of a selection; the tests run every cell
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportIndexIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

# %% Options
# Run as cells in a notebook or an editor, there is no command line, and the defaults apply.

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="emoji-vit", help="any covered model")
parser.add_argument("--data", help="images as KIND:PATH, for a model with other classes than emoji-vit")
parser.add_argument("--out", type=Path, default=Path("out/05_key_value_memories"), help="for figures and tables")
parser.add_argument("--scenes", type=int, default=200, help="number of Emoji Scenes")
parser.add_argument("--causal-scenes", type=int, default=64, help="number of images of the causal test")
parser.add_argument("--quick", action="store_true", help="24 scenes, 8 of them and two blocks in the causal test")
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)

# %% The model and the images
# The scenes are hard, with small objects and distractors, so that the model gets some of them wrong.

keep_freed_memory()  # large activations reuse the memory of earlier ones
model = HookedViT.from_pretrained(options.model)
n_scenes = 24 if options.quick else options.scenes
images = images_for(model, n_scenes, options.data)
if options.data is None:
    images = EmojiScenes(n_scenes, seed=7, image_size=model.cfg.image_size[0], objects="mixed", scale=(0.25, 0.6))
title = f"{options.model} on {options.data or 'hard Emoji Scenes'}"
SUBLAYERS = {"attn_out": "attention", "mlp_out": "MLP"}

# %% 1. Value vectors that resemble classes
# *Class-value agreement*: for each class, the largest cosine between its embedding and any value vector of a block.
# Among hundreds of random vectors some are always close, so we do the same with a freshly initialised model and compare
# class by class.

statistics = [compare_class_value_agreement(model)]

# %% 2. Value vectors whose classes are related
# *Semantic coherence*: a value vector that promotes "banana" and "lemon" has a meaning; one that promotes "banana" and
# "truck" hardly does. A taxonomy (Unicode's for emoji, WordNet's for ImageNet) gives the similarity of two classes, and
# permuted labels give the similarity by chance.

taxonomy = taxonomy_of(model.class_names)
if taxonomy is not None:
    for sublayer in ("attn", "mlp"):
        coherence = semantic_coherence(model, taxonomy, sublayer, n_permutations=99 if options.quick else 999)
        statistics.append(coherence.table())

value_vectors = pd.concat(statistics)
value_vectors.to_csv(options.out / "value_vectors.csv", index=False)
value_vector_statistics_figure(*statistics, title=f"{options.model}: value vectors and classes").savefig(
    options.out / "value_vectors.png", dpi=130
)

cells = value_vectors.assign(
    cell=value_vectors["value"].map("{:.2f}".format)
    + value_vectors["null"].map(" ({:.2f})".format)
    + (value_vectors["p_adjusted"] < 0.05).map({True: "*", False: " "}),
    stream=value_vectors["stream"].map(SUBLAYERS),
    metric=value_vectors["metric"].str.replace("_", " "),
)
print(f"{options.model}: value vectors, in brackets the control (*: above it, p < 0.05)\n")
print(cells.pivot(index="layer", columns=["metric", "stream"], values="cell").rename_axis("block").to_string(), "\n")

# %% 3. Single neurons and their images
# From the block whose MLP has the highest agreement we take the clearest neurons: those with the largest distance
# between the logits of their first and second class, one neuron per class. Which images activate them most?

agreement_of_mlp = rows_of(statistics[0], stream="mlp_out").set_index("layer")["value"]
layer = int(agreement_of_mlp.idxmax())
top = value_logits(model, layer).topk(2)
clearest = pd.DataFrame({"class_index": top.indices[:, 0], "distance": top.values[:, 0] - top.values[:, 1]})
neurons = clearest.sort_values(by="distance", ascending=False).drop_duplicates("class_index").index
neurons = neurons[: 2 if options.quick else 6].tolist()

classes = top_classes(model, layer, neurons)
activations = sweep(model, images, [TopActivations(layer, neurons, k=8)], progress=False)["top_activations"]
indices = list(dict.fromkeys(activations["index"].tolist()))
pictures = {
    index: model.picture_of(image) for index, image in zip(indices, images_at(model, images, indices), strict=True)
}
value_vectors_figure(
    classes, activations, pictures, model.cfg.patch_size,
    title=f"{options.model}: top classes of neurons, and the images that activate them most",
).savefig(options.out / "neurons.png")  # fmt: skip

promoted = set(zip(classes["memory"], classes["class_index"], strict=True))
shown = [pair in promoted for pair in zip(activations["memory"], activations["label"], strict=True)]
n_top = len(classes) / len(neurons)
console.print(
    f"• {100 * sum(shown) / len(shown):.0f} % of the images that activate the clearest neurons of block {layer} most "
    f"show one of the neuron's {n_top:.0f} top classes (chance {100 * n_top / model.cfg.n_classes:.0f} %).\n"
)

# %% 4. Do tokens use the memories of their class?
# *Key-value agreement*: among a token's five largest coefficients, at least one belongs to the five value vectors that
# promote the picture's class most. The control takes a random class instead.

resampling = Resampling(99 if options.quick else 999)
tables = sweep(
    model, images, [KeyValueAgreement(resampling=resampling), Compositionality(resampling=resampling)], progress=False
)
agreement, accuracy = tables["key_value_agreement"], tables["accuracy"].iloc[0]
agreement.to_csv(options.out / "agreement.csv", index=False)
title = f"{title}, {accuracy['n_images']:.0f} images, {accuracy['top1']:.0f} % correct"
key_value_agreement_figure(agreement, title=title).savefig(options.out / "agreement.png", dpi=130)

token_type = "cls" if "cls" in set(agreement["token_type"]) else "all"
COEFFICIENTS = {"attn_out": "z", "mlp_out": "pre"}
rates = pd.DataFrame(
    {
        (name, words): rows_of(
            agreement, stream=stream, coefficients=COEFFICIENTS[stream], images="all", region="all",
            token_type=token_type, metric=metric,
        ).set_index("layer")["value"]
        for stream, name in SUBLAYERS.items()
        for metric, words in (("agreement_rate", "the class"), ("agreement_rate_random", "random class"))
    }
)  # fmt: skip
print(f"{title}\nKey-value agreement, percentage of {'CLS' if token_type == 'cls' else 'all'} tokens\n")
print(rates.round(0).astype(int).rename_axis("block").to_string(), "\n")

# %% 5. Does a single memory make the prediction?
# *Compositionality*: the top class of the sub-layer's whole output is the top class of none of the k memories with the
# largest coefficients.

compositionality = tables["compositionality"]
compositionality.to_csv(options.out / "compositionality.csv", index=False)
compositionality_figure(compositionality, title=title).savefig(options.out / "compositionality.png", dpi=130)
for stream, name in SUBLAYERS.items():
    rows = rows_of(compositionality, stream=stream, coefficients=COEFFICIENTS[stream], images="all", token_type="all",
                   metric="compositionality")  # fmt: skip
    by_k = rows.groupby("k")["value"].mean()
    console.print(
        f"• {name}: for {by_k.iloc[0]:.0f} % of the tokens, the top class of the output is not that of the "
        f"{by_k.index[0]} most active memories; for {by_k.iloc[-1]:.0f} %, of none of the {by_k.index[-1]} most active "
        "(means over blocks)."
    )

# %% 6. Cause or correlation?
# A memory that is active where its class is shown may have no effect. So we remove it. For each picture of class c, at
# every token of one block, we set some memories to zero and run the rest of the model: those most aligned with c, or
# those that wrote the most of c into this picture. Controls are the same for another class, and random memories with
# value vectors of the same length. Or we steer: the same coefficients times three.

some_images = [images[index] for index in range(min(len(images), 8 if options.quick else options.causal_scenes))]
layers, ks = ([0, model.cfg.n_layers - 1], (20,)) if options.quick else (None, (5, 20))
causal_tables = sweep(
    model, some_images,
    {
        "ablate": CausalMemories("mlp", layers, ks=ks),
        "steer": CausalMemories("mlp", layers, ks=(20,), interventions=(3.0,)),
    }, progress=False,
)  # fmt: skip
causal = pd.concat([causal_tables["ablate"], causal_tables["steer"]], ignore_index=True)
causal.to_csv(options.out / "causal.csv", index=False)
causal_memories_figure(
    causal, title=f"{options.model}: {len(some_images)} images, interventions on memories of the MLP"
).savefig(options.out / "causal.png", dpi=130)

# %% The effect of removing twenty memories
# Memories are a cause where the class loses more without them than without either control.

ablated = rows_of(causal, intervention="zero", k=20, metric="label_logit")
effects = rows_of(ablated, against=None).pivot(index="layer", columns="memories", values="value")
choices = {"aligned": "aligned", "contribution": "wrote most", "random": "random"}
print("\nChange of the class logit without 20 memories of the MLP\n")
print(effects[list(choices)].rename(columns=choices).rename_axis("block").round(2).to_string(), "\n")
for choice, words in {"aligned": "most aligned with the class", "contribution": "that wrote most of it"}.items():
    below = pd.DataFrame(
        {
            control: (rows["value"] < 0) & (rows["p_adjusted"] < 0.05)
            for control in ("random", f"{choice}_other")
            for rows in [rows_of(ablated, memories=choice, against=control).set_index("layer")]
        }
    ).all(axis=1)
    console.print(
        f"• Without the memories {words}, the class loses up to {-effects[choice].min():.2f} logits (block "
        f"{effects[choice].idxmin()}), and more than without either control in {blocks_in_words(below, below.index)}."
    )
console.print(f"Figures and tables in {options.out}/")

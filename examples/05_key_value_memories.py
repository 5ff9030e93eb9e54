"""Key-value memories: what single neurons write about the classes, and whether the model says it because of them."""

# An MLP is a memory: each neuron has a key, which asks something of a token, and a value vector, which it then writes
# into the residual stream, more or less of it by its coefficient. A dimension of an attention head is one, too: its
# coefficient is the head's mix of values, its value vector a row of W_O. Value vectors live in the stream, so we may
# ask them what we ask tokens: which class would the head of the model read here?
#
#     python examples/05_key_value_memories.py                                     # the model that comes along
#     python examples/05_key_value_memories.py --model vit_base_patch32_224.augreg_in21k_ft_in1k \
#         --data 'imagenet-s:DIR?n=5'
#
# Sections 1, 3 and 4 follow Vilas, Schaumlöffel and Roig, "Analyzing Vision Transformers for Image Classification in
# Class Embedding Space" (NeurIPS 2023), section 5.2. Sections 2 and 5 ask what the paper leaves open: whether the
# classes of a value vector have something to do with each other, and whether the memories that correlate with a
# class make the model say it.

# %%
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer
from in_words import blocks_in_words
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from analyses.data import EmojiScenes, LabelledImages, images_for
from analyses.memory_pairs import CausalMemories, Compositionality, KeyValueAgreement, TopActivations, images_at
from analyses.plots.causal_memories import causal_memories_figure
from analyses.plots.class_value_agreement import value_vector_statistics_figure
from analyses.plots.curves import rows_of
from analyses.plots.memory_pairs import compositionality_figure, key_value_agreement_figure
from analyses.plots.patch_maps import picture_of
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
from hooked_vit import HookedViT

NAMES = {"attn_out": "attention", "mlp_out": "the MLP"}

# %% 1. Value vectors that look like classes
# For each class, the largest cosine between its embedding and any value vector of a block. Among hundreds of random
# vectors some are always near, so the same is asked of the model freshly initialised, and compared class by class.
#
# 2. Classes that belong together
# If a value vector speaks for "banana" and "lemon", it stands for something; if for "banana" and "truck", hardly. A
# taxonomy (Unicode's for emoji, WordNet's for ImageNet) says how near classes are, and permuted labels what chance is.


def value_vector_tables(model: HookedViT, n_permutations: int = 999) -> list[pd.DataFrame]:
    """Class-value agreement, and the coherence of both sub-layers where there is a taxonomy."""
    tables, taxonomy = [compare_class_value_agreement(model)], taxonomy_of(model.class_names)
    if taxonomy is not None:
        for sublayer in ("attn", "mlp"):
            tables.append(semantic_coherence(model, taxonomy, sublayer, n_permutations=n_permutations).table())
    return tables


# %% What do single ones look like?
# Of the block with the highest agreement we take the neurons that speak for their first class most clearly, ahead of
# the second, and look for the pictures that call on them most.


def clearest_neurons(model: HookedViT, layer: int, n: int) -> list[int]:
    """Those with the largest distance between their first and second class's logit, for different classes."""
    top = value_logits(model, layer).topk(2)
    ahead = (top.values[:, 0] - top.values[:, 1]).argsort(descending=True).tolist()
    first: dict[int, int] = {}
    for neuron in ahead:
        first.setdefault(int(top.indices[neuron, 0]), neuron)
    return list(first.values())[:n]


def neurons_figure(model: HookedViT, layer: int, images: LabelledImages, n: int) -> tuple[Figure, float]:
    """The neurons' classes and pictures; and in percent, how many of the pictures show one of the neuron's classes."""
    neurons = clearest_neurons(model, layer, n)
    classes = top_classes(model, layer, neurons)
    activations = sweep(model, images, [TopActivations(layer, neurons, k=8)], progress=False)["top_activations"]
    places = list(dict.fromkeys(activations["index"].tolist()))
    seen = dict(zip(places, images_at(model, images, places), strict=True))
    pictures = {place: picture_of(image, model.data_config or {}) for place, image in seen.items()}
    spoken_for = {neuron: set(rows["class_index"]) for neuron, rows in classes.groupby("memory")}
    shown = [label in spoken_for[memory] for memory, label in activations[["memory", "label"]].to_numpy()]
    return value_vectors_figure(classes, activations, pictures, model.cfg.patch_size), 100 * float(np.mean(shown))


# %% 3. Do tokens call on the memories of their class? 4. Does one memory make the prediction?
# *Key-value agreement*: of a token's five largest coefficients, at least one belongs to the five value vectors that
# speak most for the picture's class. *Compositionality*: the class that the sub-layer's whole output speaks for is
# the first class of none of the k memories with the largest coefficients.


# %% 5. Cause or company?
# A memory that is active where its class is shown may be a passenger. So we take it away. For each picture of class
# c, at every token of one block, some memories are set to zero and the rest of the model runs again: those most
# aligned with c; those that wrote the most of c into this very picture; and as controls, the same of another class,
# and memories at random whose value vectors are as long. Or we steer: the same coefficients times three.


def causal_tables(model: HookedViT, images: LabelledImages, quick: bool) -> pd.DataFrame:
    """Ablation and steering of the MLPs' memories, block by block."""
    layers = [0, model.cfg.n_layers - 1] if quick else None
    analyses = {
        "ablate": CausalMemories("mlp", layers, ks=(20,) if quick else (5, 20)),
        "steer": CausalMemories("mlp", layers, ks=(20,), interventions=(3.0,)),
    }
    tables = sweep(model, images, analyses, progress=False)
    return pd.concat([tables["ablate"], tables["steer"]], ignore_index=True)


# %% What the numbers say
# Sentences, written from the tables: with another model they tell something else.


def findings(
    of_values: list[pd.DataFrame],
    agreement: pd.DataFrame,
    compositionality: pd.DataFrame,
    causal: pd.DataFrame,
    layer: int,
    shown: float,
    chance: float,
) -> list[str]:
    """What was found, in words."""
    return [
        *_about_values(of_values),
        f"Of the pictures that call most on the clearest neurons of block {layer}, {shown:.0f} % show one of the five "
        f"classes that the neuron speaks for ({chance:.0f} % by chance).",
        *_about_agreement(agreement),
        *_about_compositionality(compositionality),
        *_about_causes(causal),
    ]


def _about_values(tables: list[pd.DataFrame]) -> list[str]:
    said = []
    for stream, name in NAMES.items():
        of = rows_of(tables[0], stream=stream)
        best = of.loc[of["value"].idxmax()]
        above = blocks_in_words(of["p_adjusted"] < 0.05)
        said.append(
            f"Value vectors of {name} lie nearer to class embeddings than before training in {above}: at most in "
            f"block {best['layer']}, a cosine of {best['value']:.2f} against {best['null']:.2f}."
        )
    for table in tables[1:]:
        coherent = blocks_in_words(table["p_adjusted"] < 0.05)
        best = table.loc[table["value"].idxmax()]
        said.append(
            f"The top classes of value vectors of {NAMES[best['stream']]} are nearer in meaning than chance in "
            f"{coherent} (at most {best['value']:.2f} in block {best['layer']}, by chance {best['null']:.2f}); of "
            f"single vectors of that block, {best['percent_coherent']:.0f} % can be told from chance."
        )
    return said


def _about_agreement(table: pd.DataFrame) -> list[str]:
    said = []
    for stream, name in NAMES.items():
        kind = "z" if stream == "attn_out" else "pre"
        all_images = rows_of(table, stream=stream, coefficients=kind, images="all", region="all")
        parts = []
        for token, of_token in (("cls", "CLS"), ("patch", "patches")):
            rates = rows_of(all_images, token_type=token, metric="agreement_rate")
            if rates.empty:
                continue
            random = rows_of(all_images, token_type=token, metric="agreement_rate_random")
            above = rows_of(all_images, token_type=token, metric="agreement_rate_above_random")
            best = int(above["value"].to_numpy().argmax())
            parts.append(
                f"{rates['value'].iloc[best]:.0f} % of {of_token} in block {best} (a random class: "
                f"{random['value'].iloc[best]:.0f} %; above it in {blocks_in_words(above['low'] > 0)})"
            )
        said.append(f"Key-value agreement of {name}: {', and '.join(parts)}.")
        rows = rows_of(table, stream=stream, coefficients=kind, images="correct_minus_wrong", token_type="all",
                       metric="agreement_rate")  # fmt: skip
        if len(rows):
            clear = blocks_in_words(rows["p_adjusted"] < 0.05)
            said.append(f"It tells correctly from wrongly classified pictures in {clear} ({name}, all tokens).")
    return said


def _about_compositionality(table: pd.DataFrame) -> list[str]:
    said = []
    for stream, name in NAMES.items():
        kind = "z" if stream == "attn_out" else "pre"
        rows = rows_of(table, stream=stream, coefficients=kind, images="all", token_type="all",
                       metric="compositionality")  # fmt: skip
        ends = min(rows["k"]), max(rows["k"])
        low, high = (float(np.mean(rows_of(rows, k=k)["value"])) for k in ends)
        said.append(
            f"What {name} predicts is the first class of none of its {ends[0]} / {ends[1]} most active memories for "
            f"{low:.0f} / {high:.0f} % of tokens, on average over blocks."
        )
    return said


def _about_causes(table: pd.DataFrame) -> list[str]:
    k, said = max(table["k"]), []
    for memories, words in (("aligned", "most aligned with the class"), ("contribution", "that wrote the most of it")):
        rows = rows_of(table, intervention="zero", k=k, memories=memories, metric="label_logit")
        effect, accuracy = (
            rows_of(table, intervention="zero", k=k, memories=memories, metric=metric, against=None)
            for metric in ("label_logit", "accuracy")
        )
        less = [
            (one["value"] < 0) & (one["p_adjusted"] < 0.05)
            for one in (rows_of(rows, against=against) for against in _CONTROLS[memories])
        ]
        both = less[0].to_numpy() & less[1].to_numpy()
        worst = effect["value"].to_numpy().argmin()
        said.append(
            f"Without the {k} memories {words}, the class loses up to {-effect['value'].iloc[worst]:.2f} logits "
            f"[{-effect['high'].iloc[worst]:.2f}, {-effect['low'].iloc[worst]:.2f}] (block "
            f"{effect['layer'].iloc[worst]}) and accuracy changes by {accuracy['value'].iloc[worst]:+.0f} points; more "
            f"than without random memories of the same length and than without those of another class in "
            f"{_blocks(effect['layer'], both)}: they are a cause there."
            if both.any()
            else f"Without the {k} memories {words}, the class loses no more than without the controls: they are not "
            "shown to be a cause."
        )
    steered = rows_of(table, intervention="x3", k=k, memories="aligned", metric="label_logit", against="random")
    up = ((steered["value"] > 0) & (steered["p_adjusted"] < 0.05)).to_numpy()
    said.append(
        f"Three times their coefficients, the aligned memories raise the class above what random ones do in "
        f"{_blocks(steered['layer'], up)}" + (f", by up to {steered['value'].max():.2f} logits." if up.any() else ".")
    )
    return said


_CONTROLS: Mapping[str, tuple[str, str]] = {
    "aligned": ("random", "aligned_other"),
    "contribution": ("random", "contribution_other"),
}


def _blocks(layers: Any, holds: np.ndarray) -> str:
    """In words, also where only some blocks were tested."""
    if len(layers) == int(layers.max()) + 1:
        return blocks_in_words(holds)
    chosen = [str(layer) for layer in layers[holds]]
    return f"block {' and '.join(chosen)}" if chosen else "no block"


def printable(agreement: pd.DataFrame, causal: pd.DataFrame, title: str) -> Table:
    """Agreement above a random class at CLS or all tokens, and the effect of ablation, block by block."""
    k = max(causal["k"])
    caption = (
        f"agreement in percent{', at CLS' if 'cls' in set(agreement['token_type']) else ''}; then the change of the "
        f"class's logit without {k} memories of the MLP: aligned with it, those that wrote the most of it, or random"
    )
    printed = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    ablations = {"aligned": "without\naligned", "contribution": "without\ngreatest", "random": "without\nrandom"}
    for name in ("block", "attention\nagrees", "random\nclass", "MLP\nagrees", "random\nclass", *ablations.values()):
        printed.add_column(name, justify="right")
    token = "cls" if "cls" in set(agreement["token_type"]) else "all"
    of = rows_of(agreement, images="all", token_type=token)
    rates = [
        rows_of(of, stream=stream, coefficients=kind, metric=metric)["value"].tolist()
        for stream, kind in (("attn_out", "z"), ("mlp_out", "pre"))
        for metric in ("agreement_rate", "agreement_rate_random")
    ]
    ablated = rows_of(causal, intervention="zero", k=k, metric="label_logit", against=None)
    for block, of_block in enumerate(zip(*rates, strict=True)):
        effects = [rows_of(ablated, memories=choice, layer=block)["value"] for choice in ablations]
        cells = [f"{one.iloc[0]:+.2f}" if len(one) else "" for one in effects]
        printed.add_row(f"{block}", *(f"{value:.0f}" for value in of_block), *cells)
    return printed


# %% All of it
# The scenes are hard ones, with small objects and distractors, so that some are classified wrongly.


def images_of(model: HookedViT, n: int, data: str | None) -> LabelledImages:
    """Hard scenes, or what DATA says."""
    images = images_for(model, n, data)
    if data is not None:
        return images
    return EmojiScenes(n, seed=7, image_size=model.cfg.image_size[0], objects="mixed", scale=(0.25, 0.6))


def main(
    model: str = "emoji-vit",
    out: Path = Path("out/05_key_value_memories"),
    data: str | None = None,
    scenes: int = 200,
    causal_scenes: int = 64,
    quick: bool = False,
) -> None:
    """Run the whole story on any model; DATA (KIND:PATH) says which images, if its classes are not those of emoji-vit.

    Writes figures and tables to OUT; the causal test takes CAUSAL_SCENES of the images, QUICK a few only.
    """
    console, vit = Console(), HookedViT.from_pretrained(model)
    images = images_of(vit, 24 if quick else scenes, data)
    few = [images[index] for index in range(min(len(images), 8 if quick else causal_scenes))]
    of_values = value_vector_tables(vit, 99 if quick else 999)
    of_mlp = rows_of(of_values[0], stream="mlp_out")
    layer = int(of_mlp["layer"].iloc[int(of_mlp["value"].to_numpy().argmax())])
    neurons, shown = neurons_figure(vit, layer, images, n=2 if quick else 6)
    n_resamples = 99 if quick else 999
    analyses = [
        KeyValueAgreement(resampling=Resampling(n_resamples)),
        Compositionality(resampling=Resampling(n_resamples)),
    ]
    tables = sweep(vit, images, analyses, progress=False)
    agreement, compositionality = tables["key_value_agreement"], tables["compositionality"]
    causal = causal_tables(vit, few, quick)

    accuracy = tables["accuracy"].iloc[0]
    title = (
        f"{model} on {data or 'hard Emoji Scenes'}: {accuracy['n_images']:.0f} images, {accuracy['top1']:.0f} % correct"
    )
    console.print(printable(agreement, causal, title))
    for sentence in findings(of_values, agreement, compositionality, causal, layer, shown, 500 / vit.cfg.n_classes):
        console.print(f"• {sentence}", highlight=False)

    out.mkdir(parents=True, exist_ok=True)
    named = {"agreement": agreement, "compositionality": compositionality, "causal": causal}
    for name, table in {**named, "value_vectors": pd.concat(of_values)}.items():
        table.to_csv(out / f"{name}.csv", index=False)
    neurons.savefig(out / "neurons.png")
    value_vector_statistics_figure(*of_values).savefig(out / "value_vectors.png", dpi=130)
    key_value_agreement_figure(agreement).savefig(out / "agreement.png", dpi=130)
    compositionality_figure(compositionality).savefig(out / "compositionality.png", dpi=130)
    causal_memories_figure(causal).savefig(out / "causal.png", dpi=130)
    console.print(f"Figures and tables in {out}/", highlight=False)


if __name__ == "__main__":
    typer.run(main)

"""Is context needed? Patches on and off the object, and what becomes of them as attention or tokens are taken away."""

# Example 02 asked whether image tokens carry the class. Here we ask where they have it from. Masks tell which patches
# show the object; interventions take something away: the attention of patches to each other, their attention to CLS,
# the patches of the context, those of the object. What is still there afterwards did not depend on it.
#
#     python examples/03_attention_and_context.py                                  # the model that comes along
#     python examples/03_attention_and_context.py --model vit_base_patch32_224.augreg_in21k_ft_in1k \
#         --data 'imagenet-s:DIR?n=5'
#
# The questions and definitions are those of Vilas, Schaumlöffel and Roig, "Analyzing Vision Transformers for Image
# Classification in Class Embedding Space" (NeurIPS 2023), section 4.

# %%
from pathlib import Path
from typing import Any

import pandas as pd
import typer
from in_words import blocks_in_words
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from analyses.data import ItemReader, LabelledImages, images_for
from analyses.identifiability import Identifiability, identifiability
from analyses.perturbation import Perturbation, perturb, self_only
from analyses.plots.curves import draw_curve, finish_figure, finish_panel, rows_of
from analyses.plots.map_rows import map_rows_figure
from analyses.plots.patch_maps import picture_of
from analyses.plots.perturbation import perturbation_figure
from analyses.sweep import sweep
from hooked_vit import HookedViT

# %% What is taken away
# `self_only`: each patch attends to itself alone; CLS still reads all of them. `no_cls`: patches do not read CLS.
# `no_context`, `no_object`: those patches are dropped after the position embedding, as if the picture had no such
# places. Which patch is which is decided as in the paper: the mask is resized to the patch grid by nearest neighbour,
# so that one pixel decides, and a "context" patch may well show a piece of the object. `no_touched` closes that gap:
# it drops every patch with a single pixel of the object.
#
# One sweep feeds both analyses. A second one, with `self_only` on throughout, compares object and context patches
# that cannot read each other.


def measure(model: HookedViT, images: LabelledImages) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """The sweep's tables, and that of identifiability where each patch sees itself alone."""
    perturbation = Perturbation(removals=("context", "object", "touched"))
    tables = sweep(model, images, [Identifiability(), perturbation])
    alone = sweep(model, images, [Identifiability()], fwd_hooks=self_only(model))
    return tables, alone["identifiability"]


# %% Numbers of one kind


def at_the_end(perturbed: pd.DataFrame, name: str, metric: str, region: str = "all") -> dict[str, Any] | None:
    """The row of a perturbation after the last block, of patches, or of accuracy; `None` where it was not measured."""
    of: dict[str, str] = {"perturbation": name, "metric": metric}
    if metric != "accuracy":
        of |= {"token_type": "patch", "region": region}
    rows = rows_of(perturbed, **of)
    return None if rows.empty else rows.iloc[-1].to_dict()


def printable(perturbed: pd.DataFrame, title: str) -> Table:
    """What is left after the last block, for people."""
    caption = "patches after the last block: identifiability and rate, before → after; accuracy with its 95 % interval"
    printed = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    for heading in ("", "patches left", "identifiability", "rate", "accuracy"):
        printed.add_column(heading, justify="right" if heading else "left")
    for name in dict.fromkeys(perturbed["perturbation"]):
        for region in ("object", "context"):
            score, rate = (at_the_end(perturbed, name, f"identifiability{more}", region) for more in ("", "_rate"))
            right = at_the_end(perturbed, name, "accuracy")
            if score is None or rate is None or right is None:
                continue
            low, high = _after(right)
            printed.add_row(
                str(name), region, f"{score['before']:.2f} → {score['after']:.2f}",
                f"{rate['before']:4.1f} → {rate['after']:4.1f} %", f"{right['after']:.0f} % ({low:.0f}–{high:.0f})",
            )  # fmt: skip
    return printed


# %% What the numbers say
# Sentences, written from the tables: with another model, or after another training run, they tell something else.
# First the question of the title: are patches identifiable by themselves, or by what they read from each other?


def findings_on_attention(perturbed: pd.DataFrame) -> list[str]:
    """What patches owe to each other and to CLS."""
    said = []
    published = {"self_only": "60.7 to 0.1 %", "no_cls": "60.7 to 60.7 %"}
    for name, says in (("self_only", "see themselves alone"), ("no_cls", "do not read CLS")):
        rate, right = at_the_end(perturbed, name, "identifiability_rate"), at_the_end(perturbed, name, "accuracy")
        if rate is None or right is None:
            continue
        said.append(
            f"If patches {says}, those with the class on top go from {rate['before']:.1f} to {rate['after']:.1f} % "
            f"({_change(rate)}), and accuracy from {right['before']:.1f} to {right['after']:.1f} % ({_change(right)}). "
            f"The paper's rate goes from {published[name]} (ViT-B/32 on ImageNet-S)."
        )
    return said


def _after(row: dict[str, Any]) -> tuple[float, float]:
    """Interval of what is left: that of the change, put to what was there before."""
    low, high = (min(100.0, max(0.0, float(row["before"] + row[end]))) for end in ("low", "high"))
    return low, high


def _change(row: dict[str, Any]) -> str:
    told = f"{row['value']:+.1f}, interval {row['low']:+.1f} to {row['high']:+.1f}"
    return told if row["p_adjusted"] < 0.05 else f"{told}: no difference can be told"


# Then the context. A model that recognises an object by what is around it would lose much without the context, and
# keep much without the object.


def findings_on_context(perturbed: pd.DataFrame, n_classes: int) -> list[str]:
    """What is left of object patches without context, of context patches without object, and of the answer."""
    said = []
    published = {"object": "71.9 % before and 44.7 % after", "context": "56.2 % before and 38.7 % after"}
    for removed, kept in (("context", "object"), ("object", "context")):
        rate = at_the_end(perturbed, f"no_{removed}", "identifiability_rate", kept)
        right = at_the_end(perturbed, f"no_{removed}", "accuracy")
        if rate is None or right is None:
            continue
        said.append(
            f"Without the {removed} patches, {rate['after']:.1f} % of the {kept} patches have the class on top, "
            f"before {rate['before']:.1f} % ({_change(rate)}); the paper has {published[kept]}. Accuracy goes from "
            f"{right['before']:.1f} to {right['after']:.1f} % ({_change(right)})."
        )
    score, right = (at_the_end(perturbed, "no_touched", metric) for metric in ("identifiability", "accuracy"))
    if score is not None and right is not None:
        (low, high), chance = _after(right), 100 / n_classes
        # a share of few images or none right has no bootstrap interval to rely on
        n, above = int(right["n_images"]), right["after"] > chance
        p_value = binomtest(round(right["after"] * n / 100), n, chance / 100).pvalue
        verdict = f"{'more' if above else 'less'} than chance" if p_value < 0.05 else "not to be told from chance"
        said.append(
            f"With every patch gone that shows a pixel of the object, accuracy is {right['after']:.1f} % (interval "
            f"{low:.1f} to {high:.1f} %, chance {chance:.1f} %): {verdict}; the patches left have an identifiability "
            f"of {score['after']:.2f}, before {score['before']:.2f}. What a context patch knows of the class beyond "
            "that, it has read from others, or it shows a piece of the object."
        )
    return said


# %% What is unlike the paper, and why that may be
# In the paper, patches of the object are the ones to carry the class: 71.9 % of them have it on top, against 56.2 %
# of the context's. Are they here? Emoji Scenes differ from photographs in two ways that matter. Their background is
# noise: it says nothing of the class (`no_touched` puts that to the test), while a photograph's context is on topic.
# And emoji-vit is small and trained for CLS alone, which reads all patches equally well wherever they are.
#
# Where context patches are ahead, there are three things to look at.
#
# 1. The labels. Some context patches show a piece of the object. But if patches without a single pixel of it are
#    ahead too, that is not the reason.
# 2. Attention. A patch of noise has nothing of its own to hold on to, so that what it reads from others may fill it;
#    a patch of the object holds features of its own (edges, colours), which are not the class. If so, the order must
#    turn round once no patch reads another: then the object's patches are the only ones to know anything.
# 3. The beginning. If object patches start out below chance, pointing away from their class, they have farther to go.


def findings_on_regions(table: pd.DataFrame, alone: pd.DataFrame, perturbed: pd.DataFrame, n_classes: int) -> list[str]:
    """Which patches carry the class, with attention and without."""
    of = {"metric": "identifiability", "region": "object_minus_context"}
    difference, of_alone = (rows_of(one, **of).reset_index(drop=True) for one in (table, alone))
    if difference.empty:
        return ["These images have no object masks, so patches cannot be told apart by what they show."]
    certain = difference["p_adjusted"] < 0.05
    end, end_alone = (one.iloc[-1].to_dict() for one in (difference, of_alone))
    rates = [rows_of(table, metric="identifiability_rate", token_type="patch", region=region)["value"].iloc[-1]
             for region in ("object", "context")]  # fmt: skip
    said = [
        f"Object patches are more identifiable than context patches after "
        f"{blocks_in_words(certain & (difference['value'] > 0))}, and less after "
        f"{blocks_in_words(certain & (difference['value'] < 0))} (permutation test over {end['n_images']:.0f} images). "
        f"After the last block the difference is {_difference(end)}; {rates[0]:.1f} % of the object's patches have the "
        f"class on top and {rates[1]:.1f} % of the context's. "
        + ("The paper has 71.9 and 56.2 %; here no difference can be told." if not end["p_adjusted"] < 0.05 else
           "That is as in the paper: 71.9 and 56.2 %." if end["value"] > 0 else
           "In the paper it is the other way round: 71.9 and 56.2 %.")
    ]  # fmt: skip
    if not (end["value"] < 0 and end["p_adjusted"] < 0.05):
        return said
    untouched = at_the_end(perturbed, "no_touched", "identifiability")
    means = {region: rows_of(table, metric="identifiability", token_type="patch", region=region)
             for region in ("object", "context")}  # fmt: skip
    if untouched is not None:
        on_object = means["object"]["value"].iloc[-1]
        ahead = untouched["before"] > on_object
        said.append(
            f"Why? Not because context patches show pieces of the object: those without a pixel of it have "
            f"{untouched['before']:.2f}, the object's {on_object:.2f}." if ahead else
            f"Why? Perhaps because context patches show pieces of the object: those without a pixel of it have only "
            f"{untouched['before']:.2f}, the object's {on_object:.2f}."
        )  # fmt: skip
    turns = end_alone["value"] > 0 and end_alone["p_adjusted"] < 0.05
    without = rows_of(alone, metric="identifiability", token_type="patch", region="context").iloc[-1]
    better = rows_of(alone, metric="identifiability", token_type="patch", region="object")["value"].to_numpy() > (
        means["object"]["value"].to_numpy()
    )
    said.append(
        f"Where each patch sees itself alone, the difference is {_difference(end_alone)}: "
        + ("the order turns round, so it is attention that puts the context ahead. " if turns else
           "the order does not turn round, so attention is not the reason. ")
        + f"Alone, context patches end at {without['value']:.2f}, with attention at "
        f"{means['context']['value'].iloc[-1]:.2f}; object patches are better off alone after "
        f"{blocks_in_words(better)}."
    )  # fmt: skip
    chance = (n_classes + 1) / (2 * n_classes)
    below = {region: blocks_in_words(rows["high"] < chance) for region, rows in means.items()}
    said.append(
        f"Object patches lie below chance ({chance:.2f}) after {below['object']}, context patches after "
        f"{below['context']}; after the first block they are at {means['object']['value'].iloc[0]:.2f} and "
        f"{means['context']['value'].iloc[0]:.2f}."
    )
    return said


def _difference(row: dict[str, Any]) -> str:
    return (f"{row['value']:+.3f} (95 % interval {row['low']:+.3f} to {row['high']:+.3f}, Cohen's d "
            f"{row['effect_size']:+.2f}, p = {row['p_adjusted']:.2g})")  # fmt: skip


# %% Pictures of it
# Object minus context with attention and without; and, for a few scenes, the identifiability of each patch. Mind that a
# patch of plain background puts some classes on top of others whatever the picture shows: on a single map it may look
# as if it knew the class (or its opposite). Only over all classes does this even out to chance.


def regions_figure(table: pd.DataFrame, alone: pd.DataFrame, title: str) -> Figure:
    """The difference between object and context patches over the blocks, with attention and without."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    ax = figure.subplots()
    ax.axhline(0, color="#555555", linestyle=":", linewidth=1)
    of = {"metric": "identifiability", "region": "object_minus_context"}
    styles = {"as it is": ("#0072B2", "s"), "each patch sees itself alone": ("#D55E00", "o")}
    for one, (label, (color, marker)) in zip((table, alone), styles.items(), strict=True):
        draw_curve(ax, rows_of(one, **of), significant=True, label=label, color=color, marker=marker)
    finish_panel(ax, "Identifiability, object minus context patches", "difference of an image's means")
    finish_figure(figure, rows_of(table, **of), title, "Bands: 95 % bootstrap intervals; filled: p < 0.05, corrected.")
    return figure


def maps_figure(model: HookedViT, images: LabelledImages, n: int, title: str) -> Figure | None:
    """The identifiability of each patch of the first images, halfway and at the end, with attention and without."""
    read = ItemReader(images, model.cfg, model.data_config).__getitems__(range(min(n, len(images))))
    if read.images is None or read.object_mask is None or model.data_config is None:
        return None
    run = perturb(model, read.images, read.labels, fwd_hooks=self_only(model))
    halfway, end = model.cfg.n_layers // 2, model.cfg.n_layers - 1
    scores = {
        name: identifiability(rank, model.cfg.n_classes)[:, :, model.token_layout.patches]
        for name, rank in (("as it is", run.rank_before), ("itself alone", run.rank_after))
    }
    return map_rows_figure(
        [picture_of(image, model.data_config) for image in read.images], list(read.object_mask),
        {f"block {block}\n{name}": of[block] for name, of in scores.items() for block in (halfway, end)},
        model.token_layout, model.cfg.patch_size, label="identifiability", title=title,
        caption="Outline: the object. “Itself alone”: no patch reads another. 0.5 is chance, 1 has the class on top.",
        names=[str(model.class_names[label]) for label in read.labels.tolist()] if model.class_names else (),
    )  # fmt: skip


# %% All of it


def main(
    model: str = "emoji-vit",
    out: Path = Path("out/03_attention_and_context"),
    data: str | None = None,
    scenes: int = 200,
    quick: bool = False,
) -> None:
    """Run the whole story on any model; DATA (KIND:PATH) says which images, if its classes are not those of emoji-vit.

    Writes figures and tables to OUT; QUICK takes a few scenes only.
    """
    console, vit = Console(), HookedViT.from_pretrained(model)
    images = images_for(vit, 30 if quick else scenes, data)
    tables, alone = measure(vit, images)
    table, perturbed = tables["identifiability"], tables["perturbation"]
    title = f"{model} on {data or 'Emoji Scenes'}"
    console.print(printable(perturbed, f"{title}: what is left in {tables['accuracy']['n_images'].item()} images"))
    said = [
        *findings_on_attention(perturbed),
        *findings_on_context(perturbed, vit.cfg.n_classes),
        *findings_on_regions(table, alone, perturbed, vit.cfg.n_classes),
    ]
    for sentence in said:
        console.print(f"• {sentence}", highlight=False)

    out.mkdir(parents=True, exist_ok=True)
    for name, one in (("identifiability", table), ("perturbation", perturbed), ("self_only", alone)):
        one.to_csv(out / f"{name}.csv", index=False)
    figures = {
        "perturbation_rate": perturbation_figure(perturbed, title=title),
        "perturbation": perturbation_figure(perturbed, "identifiability", title=title),
        "maps": maps_figure(vit, images, 4, f"{title}: identifiability of each patch"),
    }
    if "object_minus_context" in set(table["region"]):
        figures["object_and_context"] = regions_figure(table, alone, title)
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(out / f"{name}.png", dpi=130)
    console.print(f"Figures and tables in {out}/", highlight=False)


if __name__ == "__main__":
    typer.run(main)

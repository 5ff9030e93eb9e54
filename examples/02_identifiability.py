"""Do image tokens carry the class? Every token of every block ranked, over hundreds of images, in one sweep."""

# The head of a Vision Transformer reads one token, CLS (or the mean of all). Nothing in training asks of a patch's
# token that it names the class of the picture. Does it come to do so, and where? Example 01 looked at two dozen
# pictures; here we measure: hundreds of images, intervals over images, and the same model untrained as a control.
#
#     python examples/02_identifiability.py                                        # the model that comes along
#     python examples/02_identifiability.py --model vit_base_patch32_224.augreg_in21k_ft_in1k \
#         --data 'imagenet-s:DIR?n=5'
#
# The questions and definitions are those of Vilas, Schaumlöffel and Roig, "Analyzing Vision Transformers for Image
# Classification in Class Embedding Space" (NeurIPS 2023), section 4.

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import typer
from in_words import blocks_in_words
from rich.console import Console
from rich.table import Table

from analyses.analysis import compare_with_null
from analyses.data import LabelledImages, images_for
from analyses.identifiability import Identifiability
from analyses.plots.curves import rows_of
from analyses.plots.identifiability import identifiability_figure
from analyses.sweep import sweep
from hooked_vit import HookedViT
from hooked_vit.initialisation import freshly_initialised

# %% One pass over a dataset: the sweep
# `sweep(model, dataset, analyses)` runs each batch through the model once, with only those activations in its cache
# that the analyses name, and gives every analysis the batch; what they keep does not grow with the number of tokens.
# It returns a tidy table for each analysis, one observation a row, and the model's accuracy. With `out="folder"` it
# writes them down, and goes on where it stopped after an interruption; under torchrun, processes share the images.
#
# `Identifiability` keeps a histogram of ranks. A token's rank is the number of classes whose logit is greater than
# that of the picture's class; its *identifiability* is 1 - rank / n_classes: 1 with the class on top, (C + 1) / 2C by
# chance. The *rate* is the percentage of tokens with the class on top. The *change rate* of a block is the share of
# tokens whose class logit is greater after the block than before it.


def measure(
    model: HookedViT, images: LabelledImages, seed: int = 0
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, pd.DataFrame]:
    """The sweep's tables, the untrained model's table, and the comparison of the two."""
    trained, untrained = Identifiability(), Identifiability()
    tables = sweep(model, images, [trained])
    # the control: the same architecture, its weights drawn as before training, on the same images
    null = sweep(freshly_initialised(model, seed), images, [untrained])["identifiability"]
    return tables, null, compare_with_null(trained, untrained)


# %% Against what?
# Chance is not the only thing to be above: an untrained network might, by its architecture alone, pass on something.
# So each image's mean identifiability is compared with what it is in the untrained model: Wilcoxon's signed-rank
# test over images (not over tokens: those of one image depend on each other), corrected for the number of blocks
# (Holm). A small p says that there is a difference, the rank-biserial correlation how large it is: 1 where every
# image is above its control, 0 where as many are below.


def by_block(table: pd.DataFrame, null: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """One row a block: what we look at, of CLS and of patches."""
    of_patches = {"token_type": "patch", "region": "all"}
    columns = {}
    for kind in [one for one in ("cls", "patch") if one in set(table["token_type"])]:
        of = {"token_type": kind, "region": "all"}
        rows = rows_of(table, metric="identifiability", **of).set_index("layer")
        columns |= {kind: rows["value"], f"{kind} high": rows["high"]}
        for metric in ("identifiability_rate", "change_rate"):
            columns[f"{kind} {metric}"] = rows_of(table, metric=metric, **of).set_index("layer")["value"]
        columns[f"{kind} change_rate low"] = rows_of(table, metric="change_rate", **of).set_index("layer")["low"]
        columns[f"{kind} untrained"] = rows_of(null, metric="identifiability", **of).set_index("layer")["value"]
        columns[f"{kind} untrained rate"] = rows_of(null, metric="identifiability_rate", **of).set_index("layer")[
            "value"
        ]
        of_test = rows_of(comparison, **of).set_index("layer")
        columns |= {f"{kind} {name}": of_test[name] for name in ("p_adjusted", "rank_biserial")}
    for name, one in (("images", table), ("images untrained", null)):
        columns[name] = rows_of(one, metric="images_with_identifiable", **of_patches).set_index("layer")["value"]
    return pd.DataFrame(columns).rename_axis("block")


def printable(blocks: pd.DataFrame, title: str) -> Table:
    """The same for people."""
    caption = "mean identifiability, rate; rank-biserial correlation against the untrained model (* p < 0.05)"
    printed = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    kinds = [kind for kind in ("cls", "patch") if kind in blocks]
    names = {"cls": "CLS", "patch": "patches"}
    headings = ["block", *(f"{names[kind]}{more}" for kind in kinds for more in ("", "\n(effect)"))]
    for heading in [*headings, "images\nwith one", "patches\nrising"]:
        printed.add_column(heading, justify="right")
    for block, row in zip(blocks.index, blocks.to_dict("records"), strict=True):
        cells = [f"{block}"]
        for kind in kinds:
            cells.append(f"{row[kind]:.2f}  {row[f'{kind} identifiability_rate']:3.0f}%")
            star = "*" if row[f"{kind} p_adjusted"] < 0.05 else " "
            cells.append(f"{row[f'{kind} rank_biserial']:+.2f}{star}")
        rising = row["patch change_rate"]
        printed.add_row(*cells, f"{row['images']:.0f}%", "" if np.isnan(rising) else f"{100 * rising:.0f}%")
    return printed


# %% What the numbers say
# Sentences, written from the table: with another model, or after another training run, they tell something else.


def findings(blocks: pd.DataFrame, n_classes: int, n_images: int, top1: float, cls_is_read: bool) -> list[str]:
    """What the table shows, in words, and how it compares with the paper."""
    first, last = blocks.iloc[0].to_dict(), blocks.iloc[-1].to_dict()
    said = []
    chance = (n_classes + 1) / (2 * n_classes)
    said.append(f"The model is right on {top1:.1f} % of {n_images} images.")
    if "cls" in blocks:
        said.append(
            f"CLS has the class on top in {first['cls identifiability_rate']:.0f} % of the images after the first "
            f"block and in {last['cls identifiability_rate']:.0f} % after the last; it is above the untrained control "
            f"after {blocks_in_words(blocks['cls p_adjusted'] < 0.05)}."
        )
    above = blocks["patch p_adjusted"].to_numpy() < 0.05
    effects = blocks["patch rank_biserial"][above]
    size = f", with a rank-biserial correlation of {effects.min():.2f} to {effects.max():.2f}" if above.any() else ""
    said.append(f"Patches are above the untrained control after {blocks_in_words(above)}{size}.")
    below = blocks["patch high"].to_numpy() < chance
    if below.any():
        said.append(
            f"After {blocks_in_words(below)} they lie below chance ({blocks['patch'][below].min():.2f} at the lowest, "
            f"chance {chance:.2f}). Where all classes are shown equally often, tokens that know nothing of the class "
            "are at chance; these point away from it, and so do know."
        )
    times = last["patch identifiability_rate"] * n_classes / 100
    said.append(
        f"After the last block {last['patch identifiability_rate']:.1f} % of the patches have the class on top, "
        f"{times:.1f} times what chance gives, and {last['images']:.1f} % of the images have at least one such patch; "
        f"untrained, {last['patch untrained rate']:.1f} % and {last['images untrained']:.1f} %. The paper finds "
        "60.7 % and 95.6 % for ViT-B/32 on ImageNet-S, 52.1 to 90.4 % and 95.5 to 98.8 % over its seven models, and "
        "0.07 % and 1.3 % for an untrained B/32."
    )
    rising = blocks["patch change_rate low"].iloc[1:]
    gains = blocks["patch"].diff()
    said.append(
        f"More than half of the patches move towards the class in "
        f"{blocks_in_words(rising > 0.5, first=1)} (of those after the first; the whole interval is above one half); "
        f"the largest step of their identifiability, {gains.max():+.2f}, is in block {gains.idxmax()}"
        + _cls_is_ahead(blocks) + "."
    )  # fmt: skip
    return [*said, _verdict(blocks, cls_is_read)]


def _cls_is_ahead(blocks: pd.DataFrame) -> str:
    if "cls" not in blocks:
        return ""
    gains = blocks["cls"].diff()
    of_cls, of_patches = (int(np.nanargmax(one)) for one in (gains, blocks["patch"].diff()))
    when = {-1: "before the patches", 0: "at the same time", 1: "after the patches"}[int(np.sign(of_cls - of_patches))]
    return f"; that of CLS, {gains.max():+.2f}, is in block {of_cls}, {when}"


def _verdict(blocks: pd.DataFrame, cls_is_read: bool) -> str:
    last = blocks.iloc[-1].to_dict()
    if not last["patch p_adjusted"] < 0.05:
        return "So image tokens do not carry the class here, unlike in the paper: at the end they are as if untrained."
    share = "most" if last["patch identifiability_rate"] > 50 else "a minority"
    holds = "as in the paper's models" if share == "most" else "unlike in all of the paper's models"
    asked = "though the head reads none of them" if cls_is_read else "as they must, since the head reads them"
    return (
        f"So image tokens do come to carry the class, {asked}, as in the paper: they end above the untrained control. "
        f"Those with the class on top of all others are {share}, {holds}."
    )


# %% All of it


def main(
    model: str = "emoji-vit",
    out: Path = Path("out/02_identifiability"),
    data: str | None = None,
    scenes: int = 300,
    quick: bool = False,
) -> None:
    """Run the whole story on any model; DATA (KIND:PATH) says which images, if its classes are not those of emoji-vit.

    Writes a figure and tables to OUT; QUICK takes a few scenes only.
    """
    console, vit = Console(), HookedViT.from_pretrained(model)
    images = images_for(vit, 60 if quick else scenes, data)
    tables, null, comparison = measure(vit, images)
    table, accuracy = tables["identifiability"], tables["accuracy"].iloc[0]
    n_images = int(accuracy["n_images"])
    blocks = by_block(table, null, comparison)
    title = f"{model} on {data or 'Emoji Scenes'}"
    console.print(printable(blocks, f"{title}: identifiability in {n_images} images"))
    cls_is_read = vit.cfg.pool in ("cls", "cls_and_dist")
    for sentence in findings(blocks, vit.cfg.n_classes, n_images, accuracy["top1"], cls_is_read):
        console.print(f"• {sentence}", highlight=False)

    out.mkdir(parents=True, exist_ok=True)
    for name, one in (("identifiability", table), ("untrained", null), ("comparison", comparison)):
        one.to_csv(out / f"{name}.csv", index=False)
    figure = identifiability_figure(table, null, comparison, n_classes=vit.cfg.n_classes, title=title)
    figure.savefig(out / "identifiability.png", dpi=130)
    console.print(f"Figure and tables in {out}/", highlight=False)


if __name__ == "__main__":
    typer.run(main)

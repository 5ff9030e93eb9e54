"""Who moves tokens towards their class: attention or MLPs, in which blocks, by how much, and through which heads?"""

# A block adds two things to each token: what its attention has gathered from other tokens, and what its MLP makes of
# the token itself. Both live in the residual stream, so both can be projected onto the classes, and held against what
# was there before: does the correct class rise? And whose top class does the stream then take on?
#
#     python examples/04_categorical_updates.py                                    # the model that comes along
#     python examples/04_categorical_updates.py --model vit_base_patch32_224.augreg_in21k_ft_in1k \
#         --data 'imagenet-s:DIR?n=5'
#
# The questions and definitions are those of Vilas, Schaumlöffel and Roig, "Analyzing Vision Transformers for Image
# Classification in Class Embedding Space" (NeurIPS 2023), section 5.1.

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import typer
from in_words import blocks_in_words
from rich.console import Console
from rich.table import Table

from analyses.categorical_updates import CategoricalUpdates
from analyses.data import EmojiScenes, LabelledImages, images_for
from analyses.plots.categorical_updates import categorical_updates_figure, head_updates_figure
from analyses.plots.curves import rows_of
from analyses.sweep import sweep
from hooked_vit import HookedViT

KINDS = {"cls": "CLS", "patch": "patches"}
SUBLAYERS = {"attn_out": "attention", "mlp_out": "the MLP"}

# %% Two numbers for each sub-layer
# The *class-similarity change rate* of a sub-layer is the share of tokens whose correct class has a greater logit in
# the projection of its output than in that of the block's input. The *size* is by how many logits, on average. Both
# projections go through the model's last norm, each with its own statistics: sizes compare directions, and do not see
# how long the vector is that is added to the stream. Only the *residual composition* does: the percentage of tokens
# whose top class after the block is that of its input, of attention, of the MLP, or of none of them.


def measure(model: HookedViT, images: LabelledImages) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """The tables of the images, heads included, and of images that are hard enough to be got wrong at times."""
    tables = sweep(model, images, [CategoricalUpdates(heads=True)])
    if not isinstance(images, EmojiScenes):
        return tables, tables
    # nearly every scene is recognised; with half of the object hidden, some are and some are not
    return tables, sweep(model, images.occlude(0.5), [CategoricalUpdates()])


def updates(table: pd.DataFrame, metric: str = "similarity_change_rate", column: str = "value") -> pd.DataFrame:
    """One row a block, a column for each sub-layer and kind of token: `value`, or its interval's `low` or `high`."""
    of = {"metric": metric, "images": "all", "region": "all", "head": None}
    kinds = [kind for kind in KINDS if kind in set(table["token_type"])]
    columns = {
        (stream, kind): rows_of(table, stream=stream, token_type=kind, **of).set_index("layer")[column]
        for kind in kinds
        for stream in SUBLAYERS
    }
    return pd.DataFrame(columns).rename_axis("block")


def composition(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Percent of tokens, one row a block: of the block's input, attention, MLP and none."""
    of = {"images": "all", "region": "all", "token_type": kind}
    columns = {part: rows_of(table, metric=f"composition_{part}", **of).set_index("layer")["value"]
               for part in ("previous", "attn", "mlp", "none")}  # fmt: skip
    return pd.DataFrame(columns).rename_axis("block")


def printable(table: pd.DataFrame, title: str) -> Table:
    """Rate and size for people."""
    caption = "tokens whose class is greater in what is added than in the block's input, and by how many logits"
    printed = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    printed.add_column("block", justify="right")
    rates, sizes = updates(table), updates(table, "similarity_increase")
    for stream, kind in rates:
        printed.add_column(f"{SUBLAYERS[stream]},\n{KINDS[kind]}", justify="right")
    for block in rates.index:
        cells = [f"{100 * rates.loc[block, of]:3.0f}% {sizes.loc[block, of]:+5.1f}" for of in rates]
        printed.add_row(f"{block}", *cells)
    return printed


# %% What the numbers say
# Sentences, written from the tables: with another model, or after another training run, they tell something else.
# First: who, where and how much?


def findings_on_sublayers(table: pd.DataFrame) -> list[str]:
    """Where attention and MLPs move tokens towards their class, who is first, and who moves them farther."""
    lows, sizes, said = updates(table, column="low"), updates(table, "similarity_increase"), []
    for kind in [kind for kind in KINDS if ("attn_out", kind) in lows]:
        told = [
            f"{name} in {blocks_in_words(lows[stream, kind] > 0.5)} (at most by {sizes[stream, kind].max():+.1f} "
            f"logits on average, in block {sizes[stream, kind].idxmax()})"
            for stream, name in SUBLAYERS.items()
        ]
        said.append(
            f"More than half of the {_tokens(kind)} (its whole 95 % interval) are moved towards their class by "
            + " and by ".join(told) + "."
        )  # fmt: skip
    said.append(_verdict(table))
    return said


def _tokens(kind: str) -> str:
    return {"cls": "CLS tokens", "patch": "patches"}[kind]


def _verdict(table: pd.DataFrame) -> str:
    """The paper's claim, for the patches: attention updates earlier, MLPs more strongly."""
    lows = updates(table, column="low")
    first = {stream: _first(lows[stream, "patch"].to_numpy() > 0.5) for stream in SUBLAYERS}
    low, high = (
        updates(table, "similarity_increase", column).xs("patch", axis=1, level=1).max().to_dict()
        for column in ("low", "high")
    )
    farther = {one: np.count_nonzero(
        updates(table, "similarity_increase", "low")[one, "patch"]
        > updates(table, "similarity_increase", "high")[other, "patch"]
    ) for one, other in (("attn_out", "mlp_out"), ("mlp_out", "attn_out"))}  # fmt: skip
    earlier = first["attn_out"] < first["mlp_out"]
    stronger = (
        "are stronger" if low["mlp_out"] > high["attn_out"] else
        "are weaker" if low["attn_out"] > high["mlp_out"] else "are about as strong"
    )  # fmt: skip
    return (
        "The paper finds that attention updates image tokens earlier, and MLPs more strongly. "
        f"Here attention {'is' if earlier else 'is not'} earlier (its first such block is {_named(first['attn_out'])}, "
        f"the MLP's {_named(first['mlp_out'])}), and MLPs {stronger} where each is at its best (attention certainly "
        f"moves patches farther in {farther['attn_out']} of {len(lows)} blocks, the MLP in {farther['mlp_out']})."
    )


def _first(holds: np.ndarray) -> float:
    return float(holds.argmax()) if holds.any() else np.inf


def _named(block: float) -> str:
    return "none" if np.isinf(block) else f"{block:.0f}"


# Then: what does the stream take on?


def findings_on_composition(table: pd.DataFrame) -> list[str]:
    """Where the top class after a block comes from."""
    said, names = [], {"previous": "the block's input", "attn": "attention", "mlp": "the MLP", "none": "none of these"}
    for kind in [kind for kind in KINDS if kind in set(table["token_type"])]:
        parts = composition(table, kind)
        leads = parts.idxmax(axis=1)
        told = [f"{names[part]} after {blocks_in_words(leads == part)}" for part in names if (leads == part).any()]
        last = ", ".join(f"{parts[part].iloc[-1]:.0f} % {names[part]}" for part in names)
        said.append(
            f"The top class of {_tokens(kind)} is most often that of {'; '.join(told)}. After the last block: {last} "
            "(they may agree, so this is more than 100 % in all). "
            f"A class that is in none of the parts is most frequent after block {parts['none'].idxmax()}: "
            f"{parts['none'].max():.0f} %."
        )
    return said


# Does it matter? If these updates are how the model gets to its answer, they should be larger in images that it gets
# right. The comparison is between images (permutation test, Cliff's delta), block by block. A token that has its class
# far on top already is hard to move any farther: what is added in the last blocks may well hold less of the class than
# the stream does, and the more so the surer the model is.


def findings_on_correctness(table: pd.DataFrame, top1: float, shown: str) -> list[str]:
    """Whether updates tell images that the model gets right from those that it gets wrong."""
    of = {"metric": "similarity_increase", "images": "correct_minus_wrong", "region": "all", "head": None}
    rows = rows_of(table, **of)
    if rows.empty:
        return [f"Of {shown} the model gets {top1:.1f} % right: too few right or wrong ones to compare."]
    said = [f"Of {shown} the model gets {top1:.1f} % right."]
    for kind in [kind for kind in KINDS if kind in set(rows["token_type"])]:
        told = []
        for stream, name in SUBLAYERS.items():
            one = rows_of(rows, stream=stream, token_type=kind).set_index("layer")
            certain = one["p_adjusted"] < 0.05
            more, less = (certain & (sign * one["value"] > 0) for sign in (1, -1))
            largest = one.loc[one["effect_size"].abs().idxmax()]
            told.append(
                f"{name} farther in {blocks_in_words(more)} and less far in {blocks_in_words(less)} (the largest "
                f"difference, in block {largest.name}: {largest['value']:+.1f} logits, {largest['low']:+.1f} to "
                f"{largest['high']:+.1f}, Cliff's delta {largest['effect_size']:+.2f})"
            )
        said.append(f"In those it gets right, {_tokens(kind)} are moved by " + ", by ".join(told) + ".")
    return said


# And which heads? A block's attention is the sum of its heads, each of which writes into the stream on its own. Since
# each is projected with its own statistics, heads that point the same way move tokens less far alone than together.


def findings_on_heads(table: pd.DataFrame) -> list[str]:
    """How many heads move tokens towards the class, and which do so most."""
    said = []
    of = {"stream": "result", "images": "all", "region": "all"}
    for kind in [kind for kind in KINDS if kind in set(table["token_type"])]:
        rates, sizes = (
            rows_of(table, metric=f"similarity_{metric}", token_type=kind, **of).reset_index(drop=True)
            for metric in ("change_rate", "increase")
        )
        most, least = sizes.loc[sizes["value"].idxmax()], sizes.loc[sizes["value"].idxmin()]
        spread = sizes.groupby("layer")["value"].agg(lambda one: one.max() - one.min())
        said.append(
            f"{np.count_nonzero(rates['value'] > 0.5)} of {len(rates)} heads move more than half of the "
            f"{_tokens(kind)} towards their class. Most does head {most['head']} of block {most['layer']} "
            f"({most['value']:+.1f} logits), least head {least['head']} of block {least['layer']} "
            f"({least['value']:+.1f}). Heads of one block differ most in block {spread.idxmax()}, by "
            f"{spread.max():.1f} logits."
        )
    return said


# %% All of it


def main(
    model: str = "emoji-vit",
    out: Path = Path("out/04_categorical_updates"),
    data: str | None = None,
    scenes: int = 200,
    quick: bool = False,
) -> None:
    """Run the whole story on any model; DATA (KIND:PATH) says which images, if its classes are not those of emoji-vit.

    Writes figures and tables to OUT; QUICK takes a few scenes only.
    """
    console, vit = Console(), HookedViT.from_pretrained(model)
    images = images_for(vit, 50 if quick else scenes, data)
    tables, harder = measure(vit, images)
    table, hard_table = tables["categorical_updates"], harder["categorical_updates"]
    n_images, top1 = tables["accuracy"]["n_images"].item(), harder["accuracy"]["top1"].item()
    shown = f"{n_images} images" if harder is tables else f"{n_images} scenes with half of the object hidden"
    title = f"{model} on {data or 'Emoji Scenes'}"
    console.print(printable(table, f"{title}: updates in {n_images} images"))
    said = [
        *findings_on_sublayers(table),
        *findings_on_composition(table),
        *findings_on_correctness(hard_table, top1, shown),
        *findings_on_heads(table),
    ]
    for sentence in said:
        console.print(f"• {sentence}", highlight=False)

    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "updates.csv", index=False)
    figures = {
        "updates": categorical_updates_figure(table, title=title),
        "heads_rate": head_updates_figure(table, title=title),
        "heads_size": head_updates_figure(table, "similarity_increase", title=title),
    }
    if harder is not tables:
        hard_table.to_csv(out / "updates_occluded.csv", index=False)
        figures["updates_occluded"] = categorical_updates_figure(
            hard_table, title=f"{title}, half of the object hidden"
        )
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=130)
    console.print(f"Figures and tables in {out}/", highlight=False)


if __name__ == "__main__":
    typer.run(main)

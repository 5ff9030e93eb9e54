"""How class representations build up: every token of every block, projected onto the classes."""

# A Vision Transformer reads its answer off the last block: of one token, CLS, or of the patches' mean. All tokens of
# all blocks live in one space, the residual stream, and the head's class embeddings are directions in it. So we may
# ask any token of any block: if the head read you now, what would it see? This script asks all of them.
#
#     python examples/01_class_representations.py                                 # the model that comes along
#     python examples/01_class_representations.py --model vit_base_patch32_224.augreg_in21k_ft_in1k
#
# The method is that of Vilas, Schaumlöffel and Roig, "Analyzing Vision Transformers for Image Classification in Class
# Embedding Space" (NeurIPS 2023).

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import typer
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from analyses.data import SampleScene, mask_like, sample_scenes, token_labels
from analyses.identifiability import identifiability
from analyses.plots.curves import draw_block_lines
from analyses.plots.lens import lens_figure
from analyses.plots.patch_maps import picture_of
from analyses.projection import project
from hooked_vit import HookedViT, TokenLayout

# %% Pictures whose answer we know
# The sample scenes show one or two emoji on a background of noise, and come with masks: we know which pixels are the
# object. Here we take those with one object. The mask goes through the same resizing and cropping as the picture.


def one_object_scenes() -> list[SampleScene]:
    """The sample scenes with a single object."""
    return [scene for scene in sample_scenes() if len(scene.labels) == 1]


def masks_as_seen(model: HookedViT, scenes: list[SampleScene]) -> Bool[Tensor, "batch height width"]:
    """True on the object's pixels, in the model's own view of the picture."""
    return torch.stack([mask_like(scene.masks[0], model.data_config or {}) for scene in scenes])


# %% Whose rank we follow
# emoji-vit knows the classes of these scenes. A model with other classes has no correct answer here; then we follow
# the class that the model itself predicts in the end.


def reference_classes(
    model: HookedViT, scenes: list[SampleScene], logits: Float[Tensor, "batch n_classes"]
) -> tuple[Int[Tensor, "batch"], str]:
    """The class to follow in each picture, and whether it is the `correct` or the `predicted` one."""
    names = [scene.class_names[0] for scene in scenes]
    if set(names) <= set(model.class_names):
        return torch.tensor([model.class_index(name) for name in names]), "correct"
    return logits.argmax(-1), "predicted"


# %% From ranks to numbers
# A token's *rank* is the number of classes whose logit is greater than the reference's. Its *identifiability* is
# 1 - rank / n_classes: 1 where the class is on top, about one half for a token that knows nothing. The *rate* is the
# percentage of tokens with the class on top. We look at CLS, at all patches, and at patches on and off the object.


def build_up(
    ranks: Int[Tensor, "layer batch token"], is_object: Bool[Tensor, "batch patch"], layout: TokenLayout, n_classes: int
) -> pd.DataFrame:
    """One row a block: for each kind of token the mean identifiability and the rate, and images with one such patch."""
    of_patches = ranks[:, :, layout.patches]
    kinds = {"patches": of_patches, "object": of_patches[:, is_object], "background": of_patches[:, ~is_object]}
    if layout.cls is not None:
        kinds = {"CLS": ranks[:, :, layout.cls], **kinds}
    table = pd.DataFrame(index=pd.RangeIndex(len(ranks), name="block"))
    for kind, of_kind in kinds.items():
        table[f"{kind} identifiability"] = identifiability(of_kind, n_classes).flatten(1).mean(-1).numpy()
        table[f"{kind} rate"] = 100 * (of_kind == 0).flatten(1).float().mean(-1).numpy()
    table["images with one"] = 100 * (of_patches == 0).any(-1).float().mean(-1).numpy()
    return table


def printable(table: pd.DataFrame, title: str) -> Table:
    """The same table for people: identifiability from 0 to 1, then the rate in percent."""
    caption = "mean identifiability, and the percentage of tokens that have the class on top"
    printed = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    printed.add_column("block", justify="right")
    kinds = [column.removesuffix(" rate") for column in table if column.endswith(" rate")]
    for kind in kinds:
        printed.add_column(kind, justify="right")
    printed.add_column("images with\nsuch a patch", justify="right")
    for block, row in table.iterrows():
        cells = [f"{row[f'{kind} identifiability']:.3f}  {row[f'{kind} rate']:3.0f}%" for kind in kinds]
        printed.add_row(f"{block}", *cells, f"{row['images with one']:.0f}%")
    return printed


# %% What the numbers say
# Sentences, written from the table: with another model, or after another training run, they tell something else.


def findings(
    table: pd.DataFrame, n_images: int, cls_is_read: bool, n_classes: int, reference_is: str = "correct"
) -> list[str]:
    """What the table shows, in words."""
    last, said = table.iloc[-1], []
    if "CLS rate" in table:
        half = np.flatnonzero(table["CLS rate"] >= 50)
        first = f"first in half of the pictures after block {half[0]}" if len(half) else "never in half of the pictures"
        said.append(f"CLS has the {reference_is} class on top {first}, and in {last['CLS rate']:.0f} % at the end.")
    said.append(
        f"After the last block {last['patches rate']:.0f} % of the patches have it on top "
        f"({last['patches rate'] * n_classes / 100:.0f} times chance), and {last['images with one']:.0f} % of the "
        "pictures have at least one such patch"
        + (", though the head reads none of them." if cls_is_read else "; the head reads them all.")
        + " The paper finds 61 % and 96 % for ViT-B/32 on ImageNet-S."
    )
    n_ahead = np.count_nonzero(table["object identifiability"] > table["background identifiability"])
    said.append(
        f"Patches that show the object are more identifiable than the background's after {n_ahead} of {len(table)} "
        f"blocks; after the last one {last['object rate']:.0f} % of them have the class on top, against "
        f"{last['background rate']:.0f} % of the background's."
    )
    return [*said, f"These are {n_images} pictures: enough to see it, too few to measure it."]


# %% Pictures of it
# For a few scenes, a map of each patch's top class and of the reference class's rank after five blocks; and for all
# scenes, identifiability block after block.


def build_up_figure(table: pd.DataFrame, n_classes: int) -> Figure:
    """Identifiability and rate over blocks."""
    figure = Figure(figsize=(8, 3.2), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    kinds = [column.removesuffix(" rate") for column in table if column.endswith(" rate")]
    of_kinds = {kind: table[f"{kind} identifiability"].tolist() for kind in kinds}
    draw_block_lines(left, of_kinds, "identifiability, mean", chance=(n_classes + 1) / (2 * n_classes), legend=False)
    draw_block_lines(right, {kind: table[f"{kind} rate"].tolist() for kind in kinds}, "tokens with the class on top, %",
                     chance=100 / n_classes)  # fmt: skip
    return figure


# %% All of it


@torch.no_grad()
def main(model: str = "emoji-vit", out: Path = Path("out/01_class_representations"), figures: int = 4) -> None:
    """Run the whole story on any model, and write FIGURES lens figures and one of all scenes to OUT."""
    console, vit, scenes = Console(), HookedViT.from_pretrained(model), one_object_scenes()
    images, masks = vit.preprocess([scene.picture for scene in scenes]), masks_as_seen(vit, scenes)
    logits, cache = vit.run_with_cache(images, names_filter="resid_post")
    labels, reference_is = reference_classes(vit, scenes, logits)
    projection = project(vit, cache, "resid_post", labels, k=1)
    is_object = token_labels(masks, vit.token_layout.grid)
    assert projection.rank is not None
    table = build_up(projection.rank, is_object, vit.token_layout, vit.cfg.n_classes)
    console.print(printable(table, f"{model} on {len(scenes)} scenes: identifiability of the {reference_is} class"))
    cls_is_read = vit.cfg.pool in ("cls", "cls_and_dist")
    for sentence in findings(table, len(scenes), cls_is_read, vit.cfg.n_classes, reference_is):
        console.print(f"• {sentence}", highlight=False)

    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "build_up.csv")
    build_up_figure(table, vit.cfg.n_classes).savefig(out / "build_up.png")
    for index, scene in enumerate(scenes[:figures]):
        lens_figure(
            picture_of(images[index], vit.data_config or {}), projection, vit.cfg, vit.class_names, int(labels[index]),
            index=index, reference_is=reference_is, predicted=int(logits[index].argmax()), mask=masks[index],
        ).savefig(out / f"{scene.path.stem}-lens.png")  # fmt: skip
    console.print(f"Figures in {out}/", highlight=False)


if __name__ == "__main__":
    typer.run(main)

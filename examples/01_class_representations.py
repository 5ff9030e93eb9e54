"""How do class representations build up, block by block?

On emoji-vit, CLS comes first: the class is on top in 71 % of the pictures after block 4 and in all of them after block
7, the last. Patches follow later: at the end 43 % of them have the class on top, on the object fewer (29 %) than on the
background (47 %).

Takes up to 15 seconds on two cores.
"""

# A Vision Transformer reads its answer from the last block: from one token, CLS, or from the mean of the patches. But
# all tokens of all blocks live in one space, the residual stream, and the head's class embeddings are directions in
# it. So we can project any token of any block onto the classes: what would the head read here?
#
#     python examples/01_class_representations.py                                 # the bundled model
#     python examples/01_class_representations.py --model vit_base_patch32_224.augreg_in21k_ft_in1k
#
# The method is that of Vilas, Schaumlöffel and Roig, "Analyzing Vision Transformers for Image Classification in Class
# Embedding Space" (NeurIPS 2023).

# %%
import argparse
import sys
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console

from analyses.data import mask_like, sample_scenes, token_labels
from analyses.identifiability import identifiability
from analyses.plots.class_colours import ClassColours
from analyses.plots.curves import draw_block_lines
from analyses.plots.lens import lens_figure
from analyses.projection import project
from hooked_vit import HookedViT, keep_freed_memory

# pandas' annotations lose the type of a selection; the tests run every cell
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportIndexIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

# %% Options
# Run as cells in a notebook or an editor, there is no command line, and the defaults apply.

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="emoji-vit", help="any covered model")
parser.add_argument("--out", type=Path, default=Path("out/01_class_representations"), help="folder for the figures")
parser.add_argument("--figures", type=int, default=4, help="number of scenes to draw maps of")
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)

# %% Pictures whose content is known
# The sample scenes show one or two emoji on a background of noise, with a mask for each object. We take the scenes
# with one object. The mask is resized and cropped like the picture, and then labels each patch as object or background.

keep_freed_memory()  # large activations reuse the memory of earlier ones
model = HookedViT.from_pretrained(options.model)
scenes = [scene for scene in sample_scenes() if len(scene.labels) == 1]
images = model.preprocess([scene.picture for scene in scenes])
masks = torch.stack([mask_like(scene.masks[0], model.data_config or {}) for scene in scenes])
is_object = token_labels(masks, model.token_layout.grid)

# %% One run, every block
# One forward pass keeps the residual stream after each block. emoji-vit knows the classes of these scenes. A model
# with other classes has no correct answer here, so for such a model we follow the class that it predicts in the end.

with torch.no_grad():
    logits, cache = model.run_with_cache(images, names_filter="resid_post")
names = [scene.class_names[0] for scene in scenes]
followed = "correct" if set(names) <= set(model.class_names) else "predicted"
labels = torch.tensor([model.class_index(name) for name in names]) if followed == "correct" else logits.argmax(-1)
projection = project(model, cache, "resid_post", labels, k=1)

# %% From ranks to numbers
# A token's *rank* is the number of classes with a greater logit than the followed one. Its *identifiability* is
# 1 - rank / n_classes: 1 if the class is on top, about one half for a token that carries no information. The *rate* is
# the percentage of tokens with the class on top. We compare CLS, all patches, and patches on and off the object.

layout, n_classes = model.token_layout, model.cfg.n_classes
assert projection.rank is not None
patch_ranks = projection.rank[:, :, layout.patches]
ranks = {"patches": patch_ranks, "object": patch_ranks[:, is_object], "background": patch_ranks[:, ~is_object]}
if layout.cls is not None:
    ranks = {"CLS": projection.rank[:, :, layout.cls], **ranks}
mean = pd.DataFrame(
    {kind: identifiability(rank, n_classes).flatten(1).mean(-1).numpy() for kind, rank in ranks.items()}
)
rate = pd.DataFrame({kind: 100 * (rank == 0).flatten(1).float().mean(-1).numpy() for kind, rank in ranks.items()})
with_one = (100 * (patch_ranks == 0).any(-1).float().mean(-1)).numpy()

table = (mean.map("{:.3f}".format) + rate.map("{:5.0f} %".format)).rename_axis("block")
table["images with one"] = [f"{percent:.0f} %" for percent in with_one]
print(f"{options.model} on {len(scenes)} scenes. Identifiability of the {followed} class, and rate:\n")
print(table.to_string(), "\n")

# %% What the table says
# The head may read CLS alone, and then nothing in training asks the patches to carry the class. The paper finds the
# class on top in 61 % of the patches, and in at least one patch of 96 % of the images (ViT-B/32 on ImageNet-S). With
# so few pictures we see the trend but do not measure it; example 02 does.

last = rate.iloc[-1]
ahead = (mean["object"] > mean["background"]).sum()
console.print(
    f"• After the last block {last['patches']:.0f} % of the patches have the class on top "
    f"(chance {100 / n_classes:.1f} %), and {with_one[-1]:.0f} % of the pictures have such a patch."
)
console.print(
    f"• Object patches are more identifiable than the background after {ahead} of {len(mean)} blocks; at the end "
    f"{last['object']:.0f} % of them have the class on top, and {last['background']:.0f} % of the background's."
)

# %% Curves over blocks
# The same numbers as curves. The dotted line is chance.

figure = Figure(figsize=(8, 3.2), layout="constrained", dpi=150)
left, right = figure.subplots(1, 2)
chance = (n_classes + 1) / (2 * n_classes)
draw_block_lines(left, {kind: mean[kind].tolist() for kind in ranks}, "identifiability, mean", chance=chance)
draw_block_lines(right, {kind: rate[kind].tolist() for kind in ranks}, "tokens with the class on top, %",
                 chance=100 / n_classes, legend=False)  # fmt: skip
figure.suptitle(f"{options.model}, {len(scenes)} scenes: the {followed} class", fontsize="medium")
figure.savefig(options.out / "build_up.png")
columns = {f"{kind} identifiability": mean[kind] for kind in ranks} | {f"{kind} rate": rate[kind] for kind in ranks}
pd.DataFrame({**columns, "images with one": with_one}).rename_axis("block").to_csv(options.out / "build_up.csv")

# %% Maps of single pictures
# For a few scenes: the top class of each patch, and the rank of the followed class, after five of the blocks. A class
# keeps its colour from one figure to the next.

colours = ClassColours()
for index, scene in enumerate(scenes[: options.figures]):
    lens_figure(
        model.picture_of(images[index]), projection, model.cfg, model.class_names, int(labels[index]), index=index,
        reference_is=followed, predicted=int(logits[index].argmax()), mask=masks[index], colours=colours,
    ).savefig(options.out / f"{scene.path.stem}-lens.png")  # fmt: skip
console.print(f"Figures in {options.out}/")

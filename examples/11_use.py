"""What is class space good for: does it help to read or stop earlier, to keep fewer patches, or to foresee errors?

A tuned lens finds classes in the middle blocks that direct projection does not show there: after block 3 of emoji-vit
CLS has the class on top in 48 % of scenes directly, in 69 % through the lens. Early exit by the margin in class space
passes 6.4 of 8 blocks for a point of accuracy, through the lens 4.8. Patches chosen by class space are worse than
random ones: with 16 of 64 from block 4 on, 79 % against 95 %, and 99 % with those that CLS attends to. (500 scenes.)
No patch is an outlier, so registers have nothing to take. Noise, hidden and shuffled patches break CLS from block 0 to
2 on, patches of the models with CLS from block 5 to 7 on. Errors are told best by the confidence: with half of the
patches hidden, its AUROC is 0.94, 0.84 and 0.89, that of the margin before the last block 0.75, 0.58 and 0.82.

Takes up to 60 seconds on two cores, a few seconds with --quick.
"""

# Each part measures one use on scenes that nothing was fitted to, with 95 % intervals over images:
#
#     python examples/11_use.py
#
# On a hundred scenes intervals are wide, and a threshold chosen on a hundred may cost more on others than it should.
# The pages on the tuned lens, early exit and token pruning have the numbers of 500, that on robustness those of 200.

# %%
import argparse
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from analyses.analysis.tables import rows_where
from analyses.data import EmojiScenes
from analyses.early_exit import EarlyExit
from analyses.outliers import Outliers
from analyses.plots.early_exit import early_exit_figure
from analyses.plots.robustness import failure_figure, robustness_figure
from analyses.plots.token_pruning import token_pruning_figure
from analyses.plots.tuned_lens import lens_comparison_figure
from analyses.robustness import FailurePrediction, Robustness, breaking_blocks, named_perturbations
from analyses.statistics import Resampling
from analyses.sweep import sweep
from analyses.token_pruning import TokenPruning
from analyses.tuned_lens import compare_lenses, fit_tuned_lens
from hooked_vit import HookedViT

# pandas' annotations lose the type of a selection; the tests run every cell
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

# %% Options
# Run as cells in a notebook or an editor, there is no command line, and the defaults apply.

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out/11_use"), help="folder for figures and tables")
parser.add_argument("--fit", type=int, default=200, help="number of scenes that lenses are fitted to")
parser.add_argument("--test", type=int, default=100, help="number of scenes to measure on, twice for early exit")
parser.add_argument("--quick", action="store_true", help="32 scenes each, and one model")
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)
n_fit, n_test = (32, 32) if options.quick else (options.fit, options.test)
resampling = Resampling(499)


def shown(row: pd.Series, digits: int = 1) -> str:
    """A number and its interval."""
    return f"{row['value']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


# %% The models and the scenes
# All three name the emoji in a scene. The first reads CLS, the second the mean of the patches; the third was trained on
# backgrounds that tell the group of the class.

names = ("emoji-vit",) if options.quick else ("emoji-vit", "emoji-vit-gap", "emoji-vit-context")
models = {name: HookedViT.from_pretrained(name) for name in names}
fitted_to, measured_on = EmojiScenes(n_fit, seed=1), EmojiScenes(n_test, seed=2)

# %% Is a late class absent before, or in another basis?
# A tuned lens maps the stream at each block to the last one. It is fitted to pictures without labels, so what it finds
# was there. The table has the percentage of tokens with the right class on top after the middle block.

lens_rows = []
for name, model in models.items():
    lens = fit_tuned_lens(model, fitted_to)
    compared = compare_lenses(model, measured_on, lens, resampling=resampling)
    lens_comparison_figure(compared, n_classes=model.cfg.n_classes, title=name).savefig(
        options.out / f"{name}-lens.png"
    )
    middle, last = model.cfg.n_layers // 2 - 1, model.cfg.n_layers - 1
    rates = compared[(compared["metric"] == "identifiability_rate") & (compared["region"] == "all")]
    for token_type in ("cls", "patch"):
        rows = rates[rates["token_type"] == token_type].set_index(["layer", "lens"])
        if len(rows):
            final, direct = rows.loc[(last, "direct"), "value"], rows.loc[(middle, "direct"), "value"]
            gained = rows.loc[(middle, "tuned_minus_direct")]
            lens_rows.append(
                {
                    "model": name,
                    "tokens": token_type,
                    "direct": f"{direct:.1f}",
                    "gained by the lens": shown(gained),
                    "still to come": f"{final - direct:.1f}",
                    "change of basis": gained["value"] / (final - direct),
                }
            )
lens_table = pd.DataFrame(lens_rows)
console.print("Tokens with the class on top after the middle block, percent:")
console.print(lens_table.round(2).to_string(index=False))
lens_table.to_csv(options.out / "lens.csv", index=False)

# %% After which block is an image done?
# Thresholds of the margin are chosen on one half of the scenes for a loss of a point, and measured on the other half.
# A point is one of a hundred scenes; with fewer, the loss of one scene must be allowed. The lens is fitted to the
# tokens that the head reads: one per scene for a head that reads CLS, so that it takes more scenes.

tolerance = max(1.0, 100 / n_test)
exit_rows = []
for name, model in models.items():
    lens = fit_tuned_lens(model, EmojiScenes(max(n_fit, 640), seed=1), tokens="read")
    scenes = EmojiScenes(2 * n_test, seed=2)
    early_exit = EarlyExit(lens, tolerance=tolerance, resampling=resampling)
    exits = sweep(model, scenes, [early_exit], progress=False)["early_exit"]
    early_exit_figure(exits, title=name).savefig(options.out / f"{name}-exit.png")
    chosen = exits[(exits["point"] == "calibrated") & (exits["measure"] == "margin")]
    for readout, rows in chosen.groupby("readout"):
        rows = rows.set_index("metric")
        exit_rows.append(
            {
                "model": name,
                "readout": readout,
                "blocks": model.cfg.n_layers,
                "depth": shown(rows.loc["depth"], 2),
                "change of accuracy": shown(rows.loc["accuracy_change"]),
            }
        )
exit_table = pd.DataFrame(exit_rows)
console.print("Mean depth and change of accuracy at the calibrated margin:")
console.print(exit_table.to_string(index=False))
exit_table.to_csv(options.out / "exit.csv", index=False)

# %% Which patches does the model need?
# A quarter of the patches goes on from the middle block, chosen by one score or another. "On the object" is where those
# that stay are.

kept_rows = []
for name, model in models.items():
    pruning = TokenPruning(shares=[0.5, 0.25, 0.1], resampling=resampling)
    kept = sweep(model, measured_on, [pruning], progress=False)["token_pruning"]
    token_pruning_figure(kept, title=name).savefig(options.out / f"{name}-patches.png")
    for score, rows in kept[kept["share"] == 0.25].groupby("score", sort=False):
        rows = rows.set_index("metric")
        against = shown(rows.loc["accuracy_minus_random"]) if "accuracy_minus_random" in rows.index else "–"
        kept_rows.append(
            {
                "model": name,
                "score": score,
                "accuracy": rows.loc["accuracy", "value"],
                "minus random": against,
                "on the object": rows.loc["on_object", "value"],
            }
        )
kept_table = pd.DataFrame(kept_rows)
console.print("Accuracy with a quarter of the patches from the middle block on, percent:")
console.print(kept_table.round(1).to_string(index=False))
kept_table.to_csv(options.out / "patches.csv", index=False)
by_score = kept_table[kept_table["model"] == "emoji-vit"].set_index("score")["accuracy"]
console.print(
    f"Of emoji-vit's patches, those that class space names keep {by_score['class_space']:.0f} % accuracy, random ones "
    f"{by_score['random']:.0f} %, those that CLS attends to {by_score['cls_attention']:.0f} %."
)

# %% Do these models need registers?
# Test-time registers take over what a few outlier neurons write to a few patches (Darcet et al. 2024, Jiang et al.
# 2025). A patch is an outlier if its norm is more than three times the median of its image. Perturbed images are for
# the next two cells, and share this pass.

specs = ("noise:0.15", "occlusion:0.5", "patch_shuffle", "background")
perturbations = named_perturbations(specs, measured_on)
perturbed: dict[str, list[pd.DataFrame]] = {"outliers": [], "robustness": [], "failure_prediction": []}
for name, model in models.items():
    analyses = [
        Outliers(resampling=resampling),
        Robustness(perturbations, resampling),
        FailurePrediction(perturbations, resampling),
    ]
    found = sweep(model, measured_on, analyses, progress=False)
    for analysis, tables in perturbed.items():
        tables.append(found[analysis].assign(model=name))
outliers, robustness, failure = (pd.concat(tables, ignore_index=True) for tables in perturbed.values())
norms = rows_where(outliers, {"metric": "largest_norm_ratio", "token_type": "patch", "region": "all"})
rates = rows_where(outliers, {"metric": "images_with_outlier", "token_type": "patch", "region": "all"})
for name in names:
    of_model = rows_where(norms, {"model": name})
    largest, rate = of_model.loc[of_model["value"].idxmax()], rows_where(rates, {"model": name})["value"].max()
    console.print(
        f"{name}: the largest norm of a patch is {shown(largest, 2)} times the median; {rate:.0f} % of images have an "
        "outlier"
    )

# %% Where do perturbed images lose their class?
# Identifiability on perturbed images minus that on the same images, clean: the first block whose loss is beyond chance,
# and the block with the largest loss.

breaks = pd.concat(
    [breaking_blocks(rows_where(robustness, {"model": name})).assign(model=name) for name in names], ignore_index=True
)
console.print(breaks[["model", "perturbation", "token_type", "block", "largest_block"]].to_string(index=False))
accuracy = rows_where(robustness, {"metric": "accuracy"})
console.print("Accuracy in percent, and the interval of its change:")
console.print(accuracy[["model", "perturbation", "before", "after", "low", "high"]].round(1).to_string(index=False))
breaks.to_csv(options.out / "breaks.csv", index=False)
robustness.to_csv(options.out / "robustness.csv", index=False)
for name in names:
    robustness_figure(rows_where(robustness, {"model": name}), title=name).savefig(
        options.out / f"{name}-robustness.png"
    )

# %% Do earlier blocks know that the answer is wrong?
# If they did, the margin there, or the agreement of the patches, would tell errors from right answers better than the
# confidence of the output: its AUROC minus that of the confidence would have an interval above zero.

last = int(failure["layer"].max())
early = failure[(failure["layer"] < last) & (failure["n_wrong"] > 1)]
before_the_last = early[(early["layer"] == last - 1) & (early["condition"] == "occlusion_0.5")]
confidence = rows_where(failure, {"quantity": "confidence", "condition": "occlusion_0.5"})
columns = ["model", "quantity", "auroc", "value_low", "value_high", "n_wrong"]
console.print(f"With half of the patches hidden: the confidence, and quantities of block {last - 1}")
console.print(pd.concat([confidence, before_the_last])[columns].round(2).to_string(index=False))
console.print(
    f"{(early['value_low'] > 0).sum()} of {len(early)} quantities of earlier blocks predict errors better than the "
    "confidence, with an interval above zero"
)
failure.to_csv(options.out / "failure.csv", index=False)
for name in names:
    failure_figure(rows_where(failure, {"model": name}), title=name).savefig(options.out / f"{name}-failure.png")

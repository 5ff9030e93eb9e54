"""Which parts of the model carry the class from the object to the answer?

On emoji-vit, the object's patches, then CLS: patched before block 0, the object's patches restore 90 % of the clean
answer, before block 7 only 8 %; CLS restores 0 % and 88 %. Projections predict the direct effects of heads (Spearman
0.92), but the class can be decoded from the object's patches best when the model no longer uses them (-0.79).

Takes up to 40 seconds on two cores, 20 with --quick.
"""

# Projecting tokens onto the classes shows what could be read from them. It does not show what the model reads: a patch
# may point at its class while no later block uses it. Patching answers that question. Take two pictures that differ in
# one object, run the model on one of them, replace a part of that run by the same part of the other run, and measure
# how far the answer moves.
#
#     python examples/07_causal.py                                 # the bundled model
#     python examples/07_causal.py --model vit_base_patch32_224.augreg_in21k_ft_in1k
#
# Activation patching is Meng et al.'s (2022), path patching Wang et al.'s (2022) and Goldowsky-Dill et al.'s (2023),
# attribution patching Nanda's (2023). We compare their effects with the projections of Vilas, Schaumlöffel and Roig
# (2023).

# %%
import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console
from scipy import stats

from analyses.data import EmojiScenes, mask_like, token_labels
from analyses.identifiability import identifiability
from analyses.patching import (
    AblationStudy,
    PatchResult,
    activation_patching,
    agreement,
    all_receivers,
    all_senders,
    attribution_patching,
    logit_difference,
    path_patching,
)
from analyses.plots.curves import draw_block_lines
from analyses.plots.patching import ablation_figure, agreement_figure, head_patching_figure, token_patching_figure
from analyses.projection import project, stream_names
from analyses.statistics import Resampling
from analyses.sweep import sweep
from analyses.value_vectors import value_logits
from hooked_vit import HookedViT, keep_freed_memory

# pandas' annotations lose the type of a selection; the tests run every cell
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportIndexIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

# %% Options
# Run as cells in a notebook or an editor, there is no command line, and the defaults apply.

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="emoji-vit", help="any covered model")
parser.add_argument("--out", type=Path, default=Path("out/07_causal"), help="folder for figures and tables")
parser.add_argument("--pairs", type=int, default=12, help="number of pairs of pictures")
parser.add_argument("--figures", type=int, default=2, help="number of pairs to draw maps of")
parser.add_argument("--quick", action="store_true", help="3 pairs, and fewer neurons and scenes")
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)

# %% Pairs of pictures
# Emoji Scenes draws each scene twice: the same background, noise, position, size and artist, with another emoji. So
# the two pictures differ in the object's pixels and nowhere else. We keep pairs that the model gets right on both
# sides. A model with other classes has no right answer here, so for such a model we take its two predictions, where
# they differ.

keep_freed_memory()  # large activations reuse the memory of earlier ones
model = HookedViT.from_pretrained(options.model)
layout, n_classes = model.token_layout, model.cfg.n_classes
knows_emoji = list(model.class_names) == list(EmojiScenes.class_names)
n_pairs = 3 if options.quick else options.pairs

originals = EmojiScenes(2 * n_pairs, seed=11, scale=(0.5, 0.8))
batches = [scenes.batch(range(2 * n_pairs)) for scenes in (originals, originals.swap_object(relation="any"))]
both_images = [model.preprocess([batch[i].picture for i in range(len(batch))]) for batch in batches]
with torch.no_grad():
    predictions = [model(images).argmax(-1) for images in both_images]
both_classes = [batch.labels[:, 0].to(predictions[0]) for batch in batches] if knows_emoji else predictions
is_right = (predictions[0] == both_classes[0]) & (predictions[1] == both_classes[1])
kept = (is_right & (both_classes[0] != both_classes[1])).nonzero()[:, 0][:n_pairs].cpu()
if len(kept) < 2:
    raise ValueError(f"the model distinguishes {len(kept)} of {2 * n_pairs} pairs: take another model")
clean, corrupt = (images[kept] for images in both_images)
clean_class, corrupt_class = (classes[kept] for classes in both_classes)
names = [
    tuple(model.class_names[int(label)].split(",")[0] for label in labels)
    for labels in zip(clean_class, corrupt_class, strict=True)
]
console.print(f"{options.model}: {len(kept)} pairs that it distinguishes")

# %% The answer, and groups of tokens
# The answer is the logit of the clean class minus that of the corrupt class. We patch parts of the clean run into the
# corrupt one (denoising): which part suffices to restore the clean answer? 0 is the corrupt run, 1 the clean one. The
# first parts are groups of tokens: those where either of the two objects is, the other patches, and CLS.

answer = logit_difference(clean_class, against=corrupt_class)
answer_per_pair = logit_difference(clean_class, against=corrupt_class, per_image=True)

either_object = [batches[0].masks[i, 0] | batches[1].masks[i, 0] for i in kept.tolist()]
masks = torch.stack([mask_like(mask, model.data_config or {}) for mask in either_object])
object_tokens = torch.zeros(len(kept), layout.n_tokens, dtype=torch.bool)
object_tokens[:, layout.patches] = token_labels(masks, layout.grid, anchor="centre")
context_tokens = ~object_tokens
context_tokens[:, layout.prefix] = False
groups: dict[str, torch.Tensor | str] = {"object": object_tokens, "context": context_tokens}
if layout.n_prefix:
    groups["CLS" if layout.n_prefix == layout.n_cls else "prefix"] = "prefix"

# %% Where does the class live?
# We patch the residual stream before each block, one group of tokens at a time. As a control, a step of the same length
# in a random direction: it can move the answer by damage to the corrupt class alone.


def mean_over_pairs(per_pair: PatchResult) -> PatchResult:
    """The mean over pairs of a sweep that kept one number per pair."""
    labels = {axis: values for axis, values in per_pair.labels.items() if axis != "image"}
    return replace(per_pair, axes=per_pair.axes[:-1], labels=labels, values=per_pair.values.mean(-1),
                   base=per_pair.base.mean(), source=per_pair.source.mean())  # fmt: skip


groups_per_pair = activation_patching(model, clean, corrupt, answer_per_pair, groups=groups, per_image=True)
by_group = mean_over_pairs(groups_per_pair)
control = activation_patching(model, clean, corrupt, answer, groups=groups, control="random")
by_group.table().to_csv(options.out / "groups.csv", index=False)

restored = pd.DataFrame(by_group.recovered.cpu().numpy(), columns=list(groups))
restored["object, random"] = control.recovered[:, list(groups).index("object")].cpu().numpy()
print("\nShare of the clean answer restored, by the tokens patched before each block, %\n")
print((100 * restored).round(0).astype(int).rename_axis("block").to_string(), "\n")

# %% What class space predicts
# For each component, class space gives a number without any patching. For the stream: how identifiable the clean class
# is at the object's patches. For a head: how far what it writes, projected onto the classes, moves from the corrupt
# class to the clean one. For a neuron: how much more it fires, times the difference of the two classes' logits in its
# value vector. We keep all numbers per pair, so that correlations get an interval over pairs.

points = [*stream_names(model.cfg, "resid_pre"), *stream_names(model.cfg, "result"), *model.hook_names("post")]
with torch.no_grad():
    caches = [model.run_with_cache(images, names_filter=points)[1] for images in (clean, corrupt)]
    ranks = project(model, caches[0], "resid_pre", clean_class, k=0).rank
    assert ranks is not None
    on_object = object_tokens.to(ranks.device)
    known = ((identifiability(ranks, n_classes) * on_object).sum(-1) / on_object.sum(-1)).cpu().numpy()

    read = slice(0, 1) if model.cfg.pool in ("cls", "cls_and_dist") else layout.patches
    towards_clean = []
    for cache in caches:
        of_clean, of_corrupt = (
            project(model, cache, "result", labels, k=0).label_logit for labels in (clean_class, corrupt_class)
        )
        assert of_clean is not None
        assert of_corrupt is not None
        towards_clean.append((of_clean - of_corrupt)[:, :, read].mean(dim=2))
    head_updates = (towards_clean[0] - towards_clean[1]).movedim(1, -1).cpu().numpy()  # [layer head pair]

    neuron_updates = []  # [neuron pair] for each block
    for layer in range(model.cfg.n_layers):
        logits = value_logits(model, layer, "mlp")  # [neuron n_classes]
        firing = (caches[0]["post", layer] - caches[1]["post", layer])[:, read].mean(1)
        neuron_updates.append((firing.T * (logits[:, clean_class] - logits[:, corrupt_class])).cpu().numpy())

# %% Decodable is not the same as used
# Left, what each group of tokens restores; right, how identifiable the clean class is at the object's patches. Where
# the right curve rises while the left one falls, the class can be decoded from tokens that the model no longer needs.

figure = Figure(figsize=(8.6, 3.6), layout="constrained", dpi=150)
left, right = figure.subplots(1, 2)
draw_block_lines(left, {name: restored[name].tolist() for name in restored}, "share of the clean answer restored")
left.set_xlabel("patched before block")
left.axhline(0, color="#777777", linestyle=":", linewidth=1)
draw_block_lines(right, {"object's patches": known.mean(-1).tolist()}, "identifiability of the clean class",
                 chance=(n_classes + 1) / (2 * n_classes))  # fmt: skip
right.set_xlabel("before block")
figure.suptitle(f"{options.model}, {len(kept)} pairs: what the model uses, and what can be decoded", fontsize="medium")
figure.savefig(options.out / "groups.png")
used, decodable = 100 * restored["object"], known.mean(-1)
console.print(
    f"• Identifiability at the object's patches goes from {decodable[0]:.2f} to {decodable[-1]:.2f}, while what they "
    f"restore goes from {used.iloc[0]:.0f} % to {used.iloc[-1]:.0f} %."
)

# %% Single patches of single pairs
# Each patch of the stream before a block, patched alone.

for index in range(min(options.figures, len(kept))):
    pair, (clean_name, corrupt_name) = slice(index, index + 1), names[index]
    by_token = activation_patching(
        model, clean[pair], corrupt[pair], logit_difference(clean_class[pair], against=corrupt_class[pair])
    )
    pictures = [model.picture_of(images[index]) for images in (clean, corrupt)]
    token_patching_figure(
        by_token, *pictures, model.cfg.patch_size, names=(f"clean: {clean_name}", f"corrupt: {corrupt_name}"),
        mask=masks[index],
        title=f"{clean_name} instead of {corrupt_name}: each patch of the stream before a block, patched alone",
    ).savefig(options.out / f"tokens_{index}.png", dpi=120)  # fmt: skip

# %% Which heads?
# The total effect of a head (denoising), the part that goes directly to the logits (path patching), and the effect of
# taking the head out of the clean run (noising). A head acts by where it looks and by what it moves, so we also patch
# its pattern and its values alone.

heads_per_pair = activation_patching(model, clean, corrupt, answer_per_pair, "z", per_image=True)
total = mean_over_pairs(heads_per_pair)
noising = activation_patching(model, clean, corrupt, answer, "z", direction="noising")
heads = [sender for sender in all_senders(model.cfg) if sender[0] == "head"]
to_logits = path_patching(model, clean, corrupt, answer_per_pair, [("logits",)], heads, per_image=True)
direct_per_pair = to_logits.effect.cpu().numpy().reshape(heads_per_pair.values.shape)
direct = direct_per_pair.mean(-1) / float(total.source - total.base)
by_head = total.table().assign(direct=direct.ravel())
by_head.to_csv(options.out / "heads.csv", index=False)

shown = pd.DataFrame(
    {"block": by_head["layer"], "head": by_head["head"], "denoising": total.recovered.flatten().cpu().numpy(),
     "directly": direct.ravel(), "noising": noising.recovered.flatten().cpu().numpy()}
)  # fmt: skip
largest = shown["denoising"].abs().nlargest(8).index
print("The heads with the largest effects, as shares of the difference between the two runs\n")
print(shown.loc[largest].round(3).to_string(index=False), "\n")

patterns = activation_patching(model, clean, corrupt, answer, "pattern")
values = activation_patching(model, clean, corrupt, answer, "v")
by_part = {"output (z)": total, "values (v)": values, "pattern": patterns}
head_patching_figure(by_part, title="What each head restores, by what is patched").savefig(
    options.out / "heads.png", dpi=120
)

# %% Estimates from one backward pass
# Attribution patching estimates all these effects at once, to first order. How good is the estimate? We compare it with
# exact patching, for heads and for neurons of the last blocks.

layers = list(range(model.cfg.n_layers))[-2 if options.quick else -3 :]
neurons = range(0, model.cfg.d_mlp, 32 if options.quick else 4)
neurons_per_pair = activation_patching(
    model, clean, corrupt, answer_per_pair, "post", layers=layers, neurons=neurons, per_image=True
)
of_neurons = mean_over_pairs(neurons_per_pair)
estimates = {
    "heads": (total, attribution_patching(model, clean, corrupt, answer, "z")),
    "heads, 8 steps": (total, attribution_patching(model, clean, corrupt, answer, "z", steps=8)),
    f"neurons, blocks {layers[0]} to {layers[-1]}": (
        of_neurons, attribution_patching(model, clean, corrupt, answer, "post", layers=layers, neurons=neurons)
    ),
}  # fmt: skip
compared = {name: (exact, estimate, agreement(exact, estimate)) for name, (exact, estimate) in estimates.items()}
agreement_figure(compared, title="Attribution patching against exact patching").savefig(
    options.out / "agreement.png", dpi=120
)
for name, (_, _, agree) in compared.items():
    console.print(f"• {name}: estimates correlate with exact effects by {agree.pearson:.2f}.")

# %% Does class space predict the effects?
# Spearman's correlation between the number from class space and the effect of patching, both means over pairs, with
# its 95 % bootstrap interval over pairs.


def spearman(predicted: np.ndarray, effect: np.ndarray, n_resamples: int = 499) -> dict[str, float]:
    """The correlation over components of two arrays [..., pair], with its interval over pairs."""
    predicted, effect = (numbers.reshape(-1, numbers.shape[-1]) for numbers in (predicted, effect))
    pairs = np.arange(predicted.shape[-1])
    draws = [pairs, *np.random.default_rng(0).integers(0, len(pairs), (n_resamples, len(pairs)))]
    value, *resampled = [
        float(stats.spearmanr(predicted[:, drawn].mean(-1), effect[:, drawn].mean(-1)).statistic) for drawn in draws
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"Spearman": value, "low": float(low), "high": float(high), "components": len(predicted)}


effect_of_object = groups_per_pair.effect[:, list(groups).index("object")].cpu().numpy()
correlations = {
    "object's patches, by block": spearman(known, effect_of_object),
    "heads, direct effect": spearman(head_updates, direct_per_pair),
    "heads, total effect": spearman(head_updates, heads_per_pair.effect.cpu().numpy()),
}
for row, layer in enumerate(layers):
    predicted, effect = neuron_updates[layer][list(neurons)], neurons_per_pair.effect[row].cpu().numpy()
    correlations[f"neurons of block {layer}"] = spearman(predicted, effect)
print("\nClass space against patching\n")
print(pd.DataFrame(correlations).T.astype({"components": int}).round(2).to_string(), "\n")

# %% A check
# Through all receivers together, paths must have the total effects.

some_heads = slice(None, None, max(1, len(heads) // 4))
every_path = path_patching(model, clean, corrupt, answer, all_receivers(model.cfg), heads[some_heads])
difference = (every_path.effect - total.effect.flatten()[some_heads]).abs().max()
console.print(f"• Effects through all paths differ from total effects by at most {difference:.0e} logits.")

# %% What the model needs, over a dataset
# Patching is about pairs. Ablation asks for each head and MLP what a dataset loses without it, with its output replaced
# by its mean.

if knows_emoji:
    scenes = EmojiScenes(32 if options.quick else 128, seed=12, image_size=model.cfg.image_size[0])
    study = AblationStudy(resampling=Resampling(99))
    ablated = sweep(model, scenes, [study], batch_size=32, progress=False)["ablation_study"]
    ablated.to_csv(options.out / "ablation.csv", index=False)
    ablation_figure(ablated, title=f"{options.model}: heads and MLPs replaced by their mean").savefig(
        options.out / "ablation.png", dpi=120
    )
    rows = ablated[ablated["class_index"].isna() & (ablated["metric"] == "accuracy")]
    worst = rows.loc[rows.groupby("component")["value"].idxmin()]
    print("\nThe head and the MLP that cost most accuracy, %\n")
    worst = worst.rename(columns={"value": "change"})
    print(
        worst[["component", "layer", "head", "before", "after", "change", "low", "high"]]
        .round(1)
        .to_string(index=False),
        "\n",
    )
console.print(f"Figures and tables in {options.out}/")

"""What are the latents of a sparse dictionary, when the true factors are known?

Of 134 factor values of Emoji Scenes (classes, groups, artists, positions, sizes, backgrounds), 85 have a latent of
their own in the bundled dictionary (AUROC of at least 0.9 on held-out scenes): 82 classes and 3 subgroups. The model's
own value vectors have 77, its neurons 74, PCA 50, random directions 46, the untrained model's neurons 2; with factors
that are permuted among the scenes, none has. No group, artist, position, size or background has a latent of its own.
The best latent of a group finds it with an F1 of 0.47 (0.38 by chance), so there is little that could be split or
absorbed. Three of the four groups have a latent above chance besides those of their classes: it stays silent in 30 % of
scenes, and in 8 % a class's latent takes over. 68 % of the best latents of classes promote their class among the top
five, and directions are hardly more coherent in the taxonomy (0.27) than random ones (0.25).

Takes about 80 seconds on two cores, less with --quick.
"""

# A sparse dictionary writes an activation as a sum of a few directions out of many. The hope is that each direction is
# one factor of the picture. For photographs nobody knows the factors; Emoji Scenes are drawn from theirs, so the hope
# can be tested: against a random dictionary, against the neurons and value vectors that the model has anyway, and
# against principal components.
#
#     python examples/10_dictionaries.py    # probes need scikit-learn: pip install 'hooked-vit[probes]'
#
# The dictionary is bundled; examples/train_emoji_dictionary.py trains it. Splitting and absorption are Chanin et al.'s
# (2024), attribution over latents is Marks et al.'s (2024).

# %%
import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console

from analyses.data import EmojiScenes
from analyses.dictionaries import (
    DictionaryFidelity,
    absorption,
    compare_coherence,
    compare_features,
    decoder_logits,
    decoder_stability,
    dose_response,
    factor_scores,
    latent_attribution,
    latent_classes,
    latent_features,
    latent_patching,
    load_dictionary,
    neuron_features,
    pca_features,
    pool_features,
    random_dictionary,
    scene_factors,
    splitting,
    value_vector_features,
)
from analyses.patching import logit_difference
from analyses.plots.dictionaries import dictionary_fidelity_figure, dose_response_figure, factor_figure
from analyses.sweep import sweep
from analyses.value_vectors import emoji_taxonomy
from hooked_vit import HookedViT
from hooked_vit.initialisation import freshly_initialised

# pandas' annotations lose the type of a selection; the tests run every cell
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

# %% Options
# Run as cells in a notebook or an editor, there is no command line, and the defaults apply.

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out/10_dictionaries"), help="folder for figures and tables")
parser.add_argument("--dictionary", default="emoji-vit/resid_post-5", help="a file, or the name of an embedded one")
parser.add_argument("--scenes", type=int, default=2000, help="number of scenes that factors are measured on")
parser.add_argument(
    "--quick", action="store_true", help="300 scenes, fewer comparisons; one scene of a class is enough"
)
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)
n_scenes = 300 if options.quick else options.scenes
min_images = 1 if options.quick else 5  # with and without a factor value, in each half of the scenes

model = HookedViT.from_pretrained("emoji-vit")
dictionary = load_dictionary(options.dictionary)
random = random_dictionary(dictionary, k=dictionary.config.k or 16)
point, tokens = dictionary.config.reads, dictionary.tokens
layer = int(point.split(".")[1])
scenes = EmojiScenes(n_scenes, seed=11)

# %% Does it reconstruct?
# Explained variance says how near the reconstructions are. What the model keeps when they replace the activation is
# another question: the later blocks may read little of it.

fidelity = sweep(model, EmojiScenes(64 if options.quick else 300, seed=12), [DictionaryFidelity(dictionary)])
table = fidelity["dictionary_fidelity"]
table.to_csv(options.out / "fidelity.csv", index=False)
dictionary_fidelity_figure(table, title=point).savefig(options.out / "fidelity.png", dpi=120)
rows = table.set_index(["dictionary", "metric"])["value"]
console.print(
    f"{dictionary.config.d_dict} latents of {point}: {rows['given', 'l0']:.0f} active per token explain "
    f"{100 * rows['given', 'explained_variance']:.0f} % of the variance (random directions "
    f"{100 * rows['random', 'explained_variance']:.0f} %). The accuracy is {rows['plain', 'accuracy']:.1f} %, with the "
    f"reconstruction {rows['given', 'accuracy']:.1f} %, with the random one {rows['random', 'accuracy']:.1f} %."
)

# %% Which factors have a latent?
# For each factor value, such as the class "pizza" or the artist "noto", the feature with the largest AUROC on one half
# of the scenes, measured on the other half. A feature's value in a scene is its largest at any token. The null permutes
# the factors among the scenes of each half.

kinds = [
    latent_features(dictionary),
    latent_features(random, "random latents"),
    neuron_features(model, layer, tokens),
]
if not options.quick:
    kinds += [
        value_vector_features(model, layer, point, tokens),
        pca_features(model, EmojiScenes(200, seed=13), point, tokens),
    ]
pooled = pool_features(model, scenes, kinds, progress=False)
untrained = freshly_initialised(model, seed=0)
[null] = pool_features(untrained, scenes, [neuron_features(untrained, layer, tokens)], progress=False).values()
pooled["untrained neurons"] = null
factors = scene_factors(scenes, range(n_scenes))
comparison = compare_features(pooled, factors, min_images=min_images)
comparison.to_csv(options.out / "factors.csv", index=False)
factor_figure(comparison, title=f"{point}, {n_scenes} scenes").savefig(options.out / "factors.png", dpi=120)
by_kind = comparison.groupby("features", sort=False)[["n_found", "n_values", "null_found"]].sum()
console.print("Factor values that have their feature (AUROC of at least 0.9 on held-out scenes):")
for name, counts in by_kind.iterrows():
    console.print(
        f"    {name}: {counts['n_found']:.0f} of {counts['n_values']:.0f}; {counts['null_found']:.1f} if permuted"
    )
means = comparison.pivot(index="factor", columns="features", values="auroc")[list(pooled)]
console.print(means.loc[list(factors.kinds)].round(2).to_string())
scores = factor_scores(pooled["latents"], factors, min_images=min_images)
scores.to_csv(options.out / "scores.csv", index=False)

# %% Split, or absorbed?
# A group of classes may be spread over several latents (splitting). Or it has one that is silent exactly where a latent
# of one of its classes fires (absorption): it looks like the group's latent and is not.

taxonomy = factors.of_kinds("group", "subgroup", "class")
nodes = taxonomy.of_kinds("group", "subgroup")
split = splitting(pooled["latents"], nodes)
absorbed = absorption(pooled["latents"], taxonomy, dictionary.directions)
split.drop(columns="latents").to_csv(options.out / "splitting.csv", index=False)
absorbed.to_csv(options.out / "absorption.csv", index=False)
for factor in ("group", "subgroup"):
    own, of_absorbed = split[split["factor"] == factor], absorbed[absorbed["factor"] == factor]
    latent = of_absorbed[of_absorbed["f1"] > of_absorbed["chance_f1"]]
    console.print(
        f"{factor}: {own['n_latents'].mean():.1f} latents per value, F1 {own['f1'].mean():.2f} with the best one and "
        f"{own['split_f1'].mean():.2f} with all of them (chance: {own['chance_f1'].mean():.2f}). {len(latent)} of "
        f"{len(own)} have a latent above chance that is not a class's own (F1 {latent['f1'].mean():.2f}): in "
        f"{latent['percent_missed'].mean():.0f} % of scenes it stays silent, in "
        f"{latent['percent_absorbed'].mean():.0f} % a class's own latent takes over."
    )

# %% What do they write?
# The decoder's directions through the unembedding, as value vectors are read. Coherence is how similar in the taxonomy
# the five classes are that a direction promotes most.

coherence = compare_coherence(model, dictionary, emoji_taxonomy(), layer, n_permutations=99)
coherence.to_csv(options.out / "coherence.csv", index=False)
console.print(coherence.round(3).to_string(index=False))
classes = scores[scores["factor"] == "class"]
logits = decoder_logits(model, dictionary)
labels = torch.tensor([model.class_index(name) for name in classes["factor_value"]])
best = torch.tensor(classes["feature"].to_numpy())
ranks = (logits[best] > logits[best, labels][:, None]).sum(dim=1)
console.print(
    f"Of the best latents of {len(classes)} classes, {100 * float((ranks < 5).float().mean()):.0f} % promote their "
    f"class among the five that they promote most (5 % by chance)."
)

# %% Does one of them carry the difference?
# The same scene with another object. Attribution patching estimates how far each latent, and the error that the
# dictionary leaves, moves the logit difference; exact patching checks the largest.

sure = classes[classes["auroc"] >= 0.9].sort_values("auroc", ascending=False)
target = model.class_index(sure["factor_value"].iloc[0] if len(sure) else classes["factor_value"].iloc[0])
clean = EmojiScenes(800, seed=5, scale=(0.6, 0.8))
corrupt = clean.swap_object(relation="other_group", seed=1)
shows = (clean.layout(range(800)).labels[:, 0] == target).nonzero()[0]  # one of every hundred
images, others = clean.batch(shows).images, corrupt.batch(shows)
metric = logit_difference(target, against=others.labels[:, 0])
effects = latent_attribution(model, images, others.images, metric, dictionary, steps=2 if options.quick else 8)
top = effects.top(3 if options.quick else 8)
exact = latent_patching(model, images, others.images, metric, dictionary, top)
whole = float(effects.corrupt - effects.clean)
name = model.class_names[target]
console.print(
    f"From {name} to another object, the difference of logits moves by {whole:.1f}: all latents are estimated at "
    f"{float(effects.latents.sum()):.1f}, the error at {float(effects.error.sum()):.1f}. The {len(top)} largest "
    f"latents, one at a time: {', '.join(f'{value:.2f}' for value in exact[:-1].tolist())}; "
    f"the error: {float(exact[-1]):.2f}."
)
promoted = latent_classes(model, dictionary, top[:3], k=3)
console.print(promoted.groupby("latent", sort=False)["class_name"].apply(", ".join).to_string())

# %% Steering
# The class's own latent added at growing doses to other scenes, beside a latent of the random dictionary: what happens
# to the class's logit, and to all others?

latent = int(classes.set_index("factor_value").loc[name, "feature"])
shown = EmojiScenes(24 if options.quick else 60, seed=21).batch(range(24 if options.quick else 60)).images
strength = float(pooled["latents"].values[:, latent].float().max())
doses = [strength * factor for factor in (0, 0.5, 1, 2, 4)]
responses = [dose_response(model, shown, one, latent, doses, target, mode="add") for one in (dictionary, random)]
figure = dose_response_figure(responses, [f"latent {latent}", "random dictionary"], title=f"towards {name}")
figure.savefig(options.out / "steering.png", dpi=120)
steered = responses[0].table()
steered.to_csv(options.out / "steering.csv", index=False)
largest = steered.iloc[2]
console.print(
    f"Latent {latent} at its largest activation ({strength:.1f}) moves the logit of {name} by "
    f"{largest['target_change']:+.2f}, others by {largest['others_spread']:.2f} on average; "
    f"{largest['target_top']:.0f} % of scenes become {name}, {largest['kept_top']:.0f} % keep their class."
)

# %% A space of this size
# Two random dictionaries in 128 dimensions resemble each other, too: cosines between dictionaries of different seeds
# have to be compared with these.

alike = decoder_stability(random.directions[:512], random_dictionary(random, seed=1).directions[:512])
console.print(f"Mean largest cosine of two random dictionaries of 512 latents: {alike.mean_max_cosine:.2f}")

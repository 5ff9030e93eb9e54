"""Where the class lives, causally: swap the object in a picture, and see which parts of the run carry the swap."""

# Projecting tokens onto the classes tells what could be read off them. It does not tell what the model does read: a
# patch may point at its class and no later block may care. Patching asks that question. Take two pictures that differ
# in one object, run the model on one of them, put a part of the other run in, and see how far the answer moves.
#
#     python examples/07_causal.py                                 # the model that comes along
#     python examples/07_causal.py --model vit_base_patch32_224.augreg_in21k_ft_in1k
#
# Activation patching is Meng et al.'s (2022), path patching Wang et al.'s (2022) and Goldowsky-Dill et al.'s (2023),
# attribution patching Nanda's (2023). The picture it is held against is that of Vilas, Schaumlöffel and Roig (2023).

# %%
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import typer
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy import stats
from torch import Tensor

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
from analyses.plots.patch_maps import picture_of
from analyses.plots.patching import ablation_figure, agreement_figure, head_patching_figure, token_patching_figure
from analyses.projection import project, stream_names
from analyses.statistics import Resampling
from analyses.sweep import sweep
from analyses.value_vectors import value_logits
from hooked_vit import HookedViT

# %% Pairs of pictures
# Emoji Scenes makes them: the same background, noise, place, size and artist, and another emoji. So a pair differs in
# the object's pixels and nowhere else. We keep pairs of which the model gets both right; a model with other classes
# has no right answer here, so for it we take what it predicts, where that differs between the two.


@dataclass(frozen=True)
class Pairs:
    """Clean and corrupt images, the class of each, and which tokens show the object."""

    clean: Float[Tensor, "batch channel height width"]
    corrupt: Float[Tensor, "batch channel height width"]
    clean_class: Int[Tensor, "batch"]
    corrupt_class: Int[Tensor, "batch"]
    masks: Bool[Tensor, "batch mask_height mask_width"]
    object_tokens: Bool[Tensor, "batch token"]
    of_n: int

    def __len__(self) -> int:
        return len(self.clean)


@torch.no_grad()
def make_pairs(model: HookedViT, n: int) -> Pairs:
    """Up to `n` pairs that the model tells apart."""
    scenes, layout = EmojiScenes(2 * n, seed=11, scale=(0.5, 0.8)), model.token_layout
    both = scenes.batch(range(2 * n)), scenes.swap_object(relation="any").batch(range(2 * n))
    images = [model.preprocess([scene.picture for scene in (batch[i] for i in range(len(batch)))]) for batch in both]
    predicted = [model(one).argmax(-1) for one in images]
    if list(model.class_names) == list(EmojiScenes.class_names):
        classes = [batch.labels[:, 0].to(predicted[0]) for batch in both]
    else:
        classes = predicted
    known = (predicted[0] == classes[0]) & (predicted[1] == classes[1]) & (classes[0] != classes[1])
    kept = known.nonzero()[:, 0][:n].cpu()
    if len(kept) < 2:
        raise ValueError(f"the model tells {len(kept)} of {2 * n} pairs apart: take another model")
    # wherever either of the two objects is
    either = [both[0].masks[i, 0] | both[1].masks[i, 0] for i in kept.tolist()]
    masks = torch.stack([mask_like(mask, model.data_config or {}) for mask in either])
    on_object = torch.zeros(len(kept), layout.n_tokens, dtype=torch.bool)
    on_object[:, layout.patches] = token_labels(masks, layout.grid, anchor="centre")
    return Pairs(images[0][kept], images[1][kept], classes[0][kept], classes[1][kept], masks, on_object, 2 * n)


# %% The measure
# The logit of the clean class minus that of the corrupt class. Patching parts of the clean run into the corrupt one
# (denoising) asks what suffices to bring the clean answer back: 0 is the corrupt run, 1 the clean one.


def groups_of(model: HookedViT, pairs: Pairs) -> dict[str, Tensor | str]:
    """Tokens that are patched together: those on the object, the other patches, and the tokens that are no patches."""
    layout = model.token_layout
    context = ~pairs.object_tokens
    context[:, layout.prefix] = False
    groups: dict[str, Tensor | str] = {"object": pairs.object_tokens, "context": context}
    if layout.n_prefix:
        groups["CLS" if layout.n_prefix == layout.n_cls else "prefix"] = "prefix"
    return groups


# %% What the paper's picture predicts
# For each component there is a number that needs no patching at all. Of a stream: how identifiable the class is at the
# object's patches. Of a head: how far what it writes, projected onto the classes, moves from the corrupt class to the
# clean one. Of a neuron: how much more it fires, times what its value vector says about the two classes. All of it
# pair by pair, so that pairs can be drawn again: how a correlation over heads varies with the pictures is its interval.


@torch.no_grad()
def predicted_by_class_space(model: HookedViT, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each pair (last axis): the clean class's identifiability at object patches; updates of heads; of neurons."""
    names = [*stream_names(model.cfg, "resid_pre"), *stream_names(model.cfg, "result"), *model.hook_names("post")]
    caches = [model.run_with_cache(one, names_filter=names)[1] for one in (pairs.clean, pairs.corrupt)]
    ranks = project(model, caches[0], "resid_pre", pairs.clean_class, k=0).rank
    assert ranks is not None
    on_object = pairs.object_tokens.to(ranks.device)
    known = (identifiability(ranks, model.cfg.n_classes) * on_object).sum(-1) / on_object.sum(-1)
    read = slice(0, 1) if model.cfg.pool in ("cls", "cls_and_dist") else model.token_layout.patches
    heads = []
    for cache in caches:
        logits = [
            project(model, cache, "result", one, k=0).label_logit for one in (pairs.clean_class, pairs.corrupt_class)
        ]
        heads.append((logits[0] - logits[1])[:, :, read].mean(dim=2))  # type: ignore[operator]
    neurons = []
    for layer in range(model.cfg.n_layers):
        says = value_logits(model, layer, "mlp")  # [neuron n_classes]
        towards = says[:, pairs.clean_class] - says[:, pairs.corrupt_class]
        fires = (caches[0]["post", layer] - caches[1]["post", layer])[:, read].mean(1)
        neurons.append(fires.T * towards)
    by_head = (heads[0] - heads[1]).movedim(1, -1)  # [layer head pair]
    return known.cpu().numpy(), by_head.cpu().numpy(), torch.stack(neurons).cpu().numpy()


def over_pairs(each: PatchResult) -> PatchResult:
    """A sweep that kept a number a pair, as the mean over pairs."""
    labels = {axis: labels for axis, labels in each.labels.items() if axis != "image"}
    return replace(each, axes=each.axes[:-1], labels=labels, values=each.values.mean(-1), base=each.base.mean(),
                   source=each.source.mean())  # fmt: skip


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation of two means over pairs, over `n` places; its 95 % bootstrap interval over pairs."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f}, 95 % interval over pairs {self.low:.2f} to {self.high:.2f}"


def spearman(a: np.ndarray, b: np.ndarray, n_resamples: int = 499) -> RankCorrelation:
    """Correlate what class space says with what patching finds, both [place… pair]; pairs are drawn again."""
    a, b = (one.reshape(-1, one.shape[-1]) for one in (a, b))
    n_pairs = a.shape[-1]
    draws = np.random.default_rng(0).integers(0, n_pairs, (n_resamples, n_pairs))
    found = [
        float(stats.spearmanr(a[:, some].mean(-1), b[:, some].mean(-1))[0])  # type: ignore[index]
        for some in (np.arange(n_pairs), *draws)
    ]
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return RankCorrelation(found[0], float(low), float(high), len(a))


# %% What the numbers say
# Sentences, written from the numbers of this run: with another model they tell something else.


def where_it_lives(by_group: PatchResult) -> list[str]:
    """From which block on the class no longer lives in the object's patches."""
    groups = list(by_group.labels["group"])
    numbers = by_group.recovered.cpu().numpy()
    on_object, elsewhere = numbers[:, groups.index("object")], numbers[:, groups.index("context")]
    said = [
        f"Put in front of the first block, the object's patches bring back {on_object[0]:.0%} of the clean answer, and "
        f"in front of the last one {on_object[-1]:.0%}; the other patches {elsewhere[0]:.0%} and {elsewhere[-1]:.0%}, "
        f"at most {elsewhere.max():.0%} (block {elsewhere.argmax()})."
    ]
    prefix = [name for name in groups if name not in ("object", "context")]
    if prefix:
        at_prefix = numbers[:, groups.index(prefix[0])]
        ahead = np.flatnonzero(at_prefix > on_object)
        said.append(
            f"{prefix[0]} brings back {at_prefix[0]:.0%} of it in front of the first block and {at_prefix[-1]:.0%} in "
            "front of the last; "
            + (
                f"it overtakes the object's patches in front of block {ahead[0]}."
                if len(ahead)
                else "it never overtakes them."
            )
        )
    return said


def which_heads(total: PatchResult, direct: np.ndarray, most: int = 3) -> str:
    """The heads with the largest total effects, and how much of them is direct."""
    numbers = total.recovered.cpu().numpy()
    order = np.abs(numbers).ravel().argsort()[::-1][:most]
    named = [
        f"head {place % numbers.shape[1]} of block {place // numbers.shape[1]} "
        f"({numbers.ravel()[place]:.0%}, directly {direct.ravel()[place]:.0%})"
        for place in order
    ]
    share = np.abs(numbers).ravel()[order].sum() / np.abs(numbers).sum()
    return (
        f"The heads that bring back most are {', '.join(named)}: {share:.0%} of all heads' effects, taken without "
        f"sign, for {most / numbers.size:.0%} of the heads."
    )


def how_it_predicts(name: str, found: RankCorrelation) -> str:
    """How well a class-space number predicts a causal one."""
    size = "strongly" if abs(found.value) > 0.7 else "moderately" if abs(found.value) > 0.4 else "weakly"
    if found.low <= 0 <= found.high:
        verdict = "so these pairs leave open whether class space predicts the effect"
    elif found.value < 0:
        verdict = f"so class space predicts the effect {size}, and the wrong way round"
    else:
        verdict = f"so class space predicts the effect {size}"
    return f"{name}: Spearman {found} ({found.n} of them), {verdict}."


# %% Pictures of it


def groups_figure(by_group: PatchResult, control: PatchResult, known: np.ndarray, n_classes: int) -> Figure:
    """What each group of tokens brings back, block after block, beside what class space knows at the object."""
    figure = Figure(figsize=(8.6, 3.6), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    lines = {f"{name}": by_group.recovered[:, place].tolist() for place, name in enumerate(by_group.labels["group"])}
    objects = list(control.labels["group"]).index("object")
    lines["object, random direction"] = control.recovered[:, objects].tolist()
    draw_block_lines(left, lines, "share of the answer brought back")
    left.set_xlabel("patched in front of block")
    left.axhline(0, color="#777777", linestyle=":", linewidth=1)
    draw_block_lines(right, {"object's patches": known.tolist()}, "identifiability of the clean class",
                     chance=(n_classes + 1) / (2 * n_classes))  # fmt: skip
    right.set_xlabel("in front of block")
    return figure


def heads_table(total: PatchResult, noising: PatchResult, direct: np.ndarray, most: int = 8) -> Table:
    """The heads with the largest effects, for people."""
    table = Table(title="The heads that carry most, in shares of the difference between the runs", title_justify="left",
                  title_style="bold")  # fmt: skip
    for column in ("block", "head", "put in (denoising)", "directly to the logits", "taken out (noising)"):
        table.add_column(column, justify="right")
    numbers, taken = total.recovered.cpu().numpy(), noising.recovered.cpu().numpy()
    for place in np.abs(numbers).ravel().argsort()[::-1][:most]:
        block, head = divmod(int(place), numbers.shape[1])
        table.add_row(f"{block}", f"{head}", *(f"{one[block, head]:.1%}" for one in (numbers, direct, taken)))
    return table


# %% All of it


def main(
    model: str = "emoji-vit", out: Path = Path("out/07_causal"), pairs: int = 12, figures: int = 2, quick: bool = False
) -> None:
    """Run the whole story on any model, and write its figures and tables to OUT."""
    console, vit = Console(), HookedViT.from_pretrained(model)
    two = make_pairs(vit, 3 if quick else pairs)
    metric = logit_difference(two.clean_class, against=two.corrupt_class)
    of_each = logit_difference(two.clean_class, against=two.corrupt_class, per_image=True)
    images = two.clean, two.corrupt
    console.print(f"{model}: {len(two)} pairs that it tells apart.\n", highlight=False)
    out.mkdir(parents=True, exist_ok=True)

    # where
    groups = groups_of(vit, two)
    each_by_group = activation_patching(vit, *images, of_each, groups=groups, per_image=True)
    by_group = over_pairs(each_by_group)
    control = activation_patching(vit, *images, metric, groups=groups, control="random")
    known, head_updates, neuron_updates = predicted_by_class_space(vit, two)
    groups_figure(by_group, control, known.mean(-1), vit.cfg.n_classes).savefig(out / "groups.png")
    by_group.table().to_csv(out / "groups.csv", index=False)
    for index in range(min(figures, len(two))):
        one = slice(index, index + 1)
        of_one = logit_difference(two.clean_class[one], against=two.corrupt_class[one])
        by_token = activation_patching(vit, two.clean[one], two.corrupt[one], of_one)
        names = [vit.class_names[int(label[index])].split(",")[0] for label in (two.clean_class, two.corrupt_class)]
        token_patching_figure(
            by_token, picture_of(two.clean[index], vit.data_config or {}),
            picture_of(two.corrupt[index], vit.data_config or {}), vit.cfg.patch_size,
            names=(f"clean: {names[0]}", f"corrupt: {names[1]}"), mask=two.masks[index],
            title=f"{names[0]} instead of {names[1]}: each patch of the stream in front of a block, put in alone",
        ).savefig(out / f"tokens_{index}.png", dpi=120)  # fmt: skip

    # which heads, and by which paths
    each_total = activation_patching(vit, *images, of_each, "z", per_image=True)
    total = over_pairs(each_total)
    noising = activation_patching(vit, *images, metric, "z", direction="noising")
    patterns = activation_patching(vit, *images, metric, "pattern")
    values = activation_patching(vit, *images, metric, "v")
    heads = [sender for sender in all_senders(vit.cfg) if sender[0] == "head"]
    to_logits = path_patching(vit, *images, of_each, [("logits",)], heads, per_image=True)
    each_direct = to_logits.effect.cpu().numpy().reshape(each_total.values.shape)
    direct = each_direct.mean(-1) / float(total.source - total.base)
    console.print(heads_table(total, noising, direct))
    by_part = {"output (z)": total, "values (v)": values, "pattern": patterns}
    title = "What each head brings back, by what of it is put in"
    head_patching_figure(by_part, title=title).savefig(out / "heads.png", dpi=120)
    total.table().assign(direct=direct.ravel()).to_csv(out / "heads.csv", index=False)

    # everything at once, to first order
    layers = list(range(vit.cfg.n_layers))[-2:] if quick else list(range(vit.cfg.n_layers))[-3:]
    some = range(0, vit.cfg.d_mlp, 32 if quick else 4)
    each_exact = activation_patching(vit, *images, of_each, "post", layers=layers, neurons=some, per_image=True)
    exact = over_pairs(each_exact)
    quick_heads = attribution_patching(vit, *images, metric, "z")
    of_neurons = attribution_patching(vit, *images, metric, "post", layers=layers, neurons=some)
    in_steps = attribution_patching(vit, *images, metric, "z", steps=8)
    agreements = {
        "heads": (total, quick_heads, agreement(total, quick_heads)),
        "heads, 8 steps": (total, in_steps, agreement(total, in_steps)),
        f"neurons, blocks {layers[0]} to {layers[-1]}": (exact, of_neurons, agreement(exact, of_neurons)),
    }
    agreement_figure(agreements).savefig(out / "agreement.png", dpi=120)

    # what each component is needed for, over a dataset
    if list(vit.class_names) == list(EmojiScenes.class_names):
        scenes = EmojiScenes(32 if quick else 128, seed=12, image_size=vit.cfg.image_size[0])
        ablated = sweep(vit, scenes, [AblationStudy(resampling=Resampling(99))], batch_size=32, progress=False)[
            "ablation_study"
        ]
        ablation_figure(ablated, title=f"{model}: heads and MLPs replaced by their mean").savefig(
            out / "ablation.png", dpi=120
        )
        ablated.to_csv(out / "ablation.csv", index=False)
        ablation_says = what_ablation_says(ablated)
    else:
        ablation_says = []

    said = where_it_lives(by_group)
    objects = list(control.labels["group"]).index("object")
    said.append(
        "A step of the same length in a random direction at the object's patches moves the answer by "
        f"{control.recovered[0, objects]:.0%} of the difference in front of the first block and by "
        f"{control.recovered[-1, objects]:.0%} in front of the last: so much a step of this length does without "
        "pointing at the clean class, be it only by damage to the corrupt one."
    )
    said.append(which_heads(total, direct))
    said.append(
        f"One backward pass estimates the heads' effects with a correlation of {agreements['heads'][2].pearson:.2f} "
        f"({agreements['heads, 8 steps'][2].pearson:.2f} with eight steps), the neurons' with "
        f"{agreement(exact, of_neurons).pearson:.2f}."
    )
    on_object = by_group.recovered[:, list(groups).index("object")].cpu().numpy()
    each_on_object = each_by_group.effect[:, list(groups).index("object")].cpu().numpy()
    first, last = known.mean(-1)[[0, -1]]
    over_blocks = spearman(known, each_on_object)
    verdict = "go together here" if over_blocks.high > 0.7 else "are two things"
    said.append(
        f"Identifiability at the object's patches goes from {first:.2f} to {last:.2f} while what these patches bring "
        f"back goes from {on_object[0]:.0%} to {on_object[-1]:.0%} (over the blocks, Spearman "
        f"{over_blocks}): what can be read off a token and what is still to be read by the model {verdict}."
    )
    said.append(how_it_predicts("Heads, direct effect", spearman(head_updates, each_direct)))
    said.append(how_it_predicts("Heads, total effect", spearman(head_updates, each_total.effect.cpu().numpy())))
    chosen = neuron_updates[layers][:, list(exact.labels["neuron"])]
    for place, layer in enumerate(layers):
        effects = each_exact.effect[place].cpu().numpy()
        said.append(how_it_predicts(f"Memories of the MLP of block {layer}", spearman(chosen[place], effects)))
    every_path = path_patching(vit, *images, metric, all_receivers(vit.cfg), heads[:: max(1, len(heads) // 4)])
    apart = (every_path.effect - total.effect.flatten()[:: max(1, len(heads) // 4)]).abs().max()
    said.append(
        f"Check: through all receivers together, paths have the total effects (largest difference {apart:.0e} logits)."
    )
    for sentence in [*said, *ablation_says]:
        console.print(f"• {sentence}", highlight=False)
    console.print(f"Figures and tables in {out}/", highlight=False)


def what_ablation_says(table: pd.DataFrame) -> list[str]:
    """What the model loses without its most needed head and MLP."""
    rows = pd.DataFrame(table[table["class_index"].isna() & (table["metric"] == "accuracy")])
    said = []
    for component in ("head", "mlp"):
        worst = pd.DataFrame(rows[rows["component"] == component]).sort_values(by="value").iloc[0]
        name = (
            f"head {worst['head']} of block {worst['layer']}"
            if component == "head"
            else f"the MLP of block {worst['layer']}"
        )
        said.append(
            f"Without {name} (its mean in its place) accuracy goes from {worst['before']:.0f} % to "
            f"{worst['after']:.0f} % ({worst['value']:+.1f}, 95 % interval {worst['low']:+.1f} to "
            f"{worst['high']:+.1f}, {worst['n_images']:.0f} images); no other one costs more."
        )
    return said


if __name__ == "__main__":
    typer.run(main)

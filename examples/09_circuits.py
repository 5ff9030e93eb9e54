"""Which edges carry one object and not the other, and can a shortcut be cut out of a model?

In a scene of two emoji, heads at CLS take 64 % of the difference from the values of the object's patches, 5 % from
context. 5 % of the edges keep half of the difference, 20 % nearly all of it. Cutting edges through which CLS of
emoji-vit-context reads context removes its reliance on the background (own minus shifted backgrounds: 7 points before,
0 after 300 edges), but does not make the model better: 67 % and 60 % before, 47 % and 47 % after, on 60 scenes.

Takes minutes on two cores, half a minute with --quick.
"""

# Patching finds the parts that matter. A circuit also names the edges between them: which head's output a later head
# reads as its values, at which patches, for which token. Its proof is a run in which only these edges carry the
# picture, and all others carry another picture.
#
#     python examples/09_circuits.py
#
# Edge attribution is Nanda's (2023), Syed et al.'s (2023) and Hanna et al.'s (2024); faithfulness and its areas are
# those of the MIB benchmark (Mueller et al. 2025).

# %%
import argparse
import sys
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console

from analyses.circuits import (
    Circuit,
    circuit_curve,
    edge_attribution,
    greedy_circuit,
    mean_recording,
    object_groups,
)
from analyses.data import EmojiScenes
from analyses.patching import logit_difference
from analyses.plots.circuit_graph import circuit_figure
from hooked_vit import HookedViT

# pandas' annotations lose the type of a selection; the tests run every cell
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

# %% Options
# Run as cells in a notebook or an editor, there is no command line, and the defaults apply.

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out/09_circuits"), help="folder for figures and tables")
parser.add_argument("--pairs", type=int, default=16, help="number of pairs that edges are scored on")
parser.add_argument("--test", type=int, default=60, help="number of scenes that accuracy is measured on")
parser.add_argument("--quick", action="store_true", help="4 pairs and 8 scenes")
on_command_line = __name__ == "__main__" and not hasattr(sys, "ps1")
options = parser.parse_args(None if on_command_line else [])
options.out.mkdir(parents=True, exist_ok=True)
console = Console(highlight=False)
n_pairs, n_test = (4, 8) if options.quick else (options.pairs, options.test)

# %% One object of two
# A scene shows two emoji. Its counterpart has another emoji in the place of the first, and the same second one. The
# metric is the logit of the first object minus that of its replacement: what differs is that object alone. Token
# groups split every part of the model, so an edge also says where it reads and for whom.

model = HookedViT.from_pretrained("emoji-vit")
scenes = EmojiScenes(100, seed=5, objects=2)
clean, corrupt = scenes.batch([0]), scenes.swap_object(which=0, seed=1).batch([0])
label, replacement = int(clean.labels[0, 0]), int(corrupt.labels[0, 0])
metric = logit_difference(label, against=replacement)
groups = object_groups(model.token_layout, clean.masks[:, 0])
split = edge_attribution(model, clean.images, corrupt.images, metric, "eap-ig", rule="midpoint", groups=groups)
names = [model.class_names[index] for index in (label, replacement)]
console.print(
    f"{names[0]} or {names[1]}: {float(split.clean):.1f} logits in the scene, {float(split.corrupt):.1f} in its "
    "counterpart"
)

table = split.table()
to_cls = table[(table["reader"] == "v") & (table["written_group"] == "cls")]
shares = to_cls.assign(share=to_cls["score"] / float(split.corrupt - split.clean))
by_group = shares.groupby("read_group")["share"].sum()
console.print("Share of the difference that the values of heads at CLS read from each group of tokens:")
console.print(by_group.round(2).to_string())
split.table(200).to_csv(options.out / "edges.csv", index=False)

# %% The circuit
# Circuits of growing size, without groups. Only a run says how much a circuit keeps.

scores = edge_attribution(model, clean.images, corrupt.images, metric, "eap-ig", rule="midpoint")
shares = (0.01, 0.05, 0.2) if options.quick else (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
curve = circuit_curve(model, clean.images, corrupt.images, metric, scores, shares=shares, search="greedy", n_random=1)
curves = curve.table()
console.print(curves.round(2).to_string(index=False))
curves.to_csv(options.out / "curve.csv", index=False)
circuit = greedy_circuit(scores, 60)
figure = circuit_figure(circuit, scores, title=f"{names[0]}, not {names[1]}: {circuit.n_edges} edges")
figure.savefig(options.out / "circuit.png", dpi=120)

# %% A shortcut
# emoji-vit-context was trained on backgrounds whose colour tells the group of the class. With three fifths of the
# object hidden, it relies on them: on backgrounds of any colour it is right less often.

context_model = HookedViT.from_pretrained("emoji-vit-context")
own = EmojiScenes(400, seed=3, background_strength=1.0, scale=(0.4, 0.6)).occlude(0.6)
shifted = own.swap_background(seed=1)
pairs = own.batch(range(n_pairs)), shifted.batch(range(n_pairs))
labels = pairs[0].labels[:, 0]
with torch.no_grad():
    others = context_model(pairs[1].images).scatter(1, labels[:, None], -torch.inf).argmax(dim=1)
shortcut = edge_attribution(
    context_model, pairs[0].images, pairs[1].images, logit_difference(labels, against=others, per_image=True),
    groups=object_groups(context_model.token_layout, pairs[0].masks[:, 0]), per_image=True,
)  # fmt: skip

# %% Cutting it
# The edges through which heads at CLS read values at patches of context, those first that raise the right class most
# where its group's background is shown. Cut means that they carry their mean over scenes with backgrounds of any
# colour. The control: as many random ones of these edges.

test = {name: data.batch(range(200, 200 + n_test)) for name, data in (("own", own), ("shifted", shifted))}
mean = mean_recording(context_model, shifted.batch(range(100, 100 + n_test)).images.split(32))
graph = shortcut.graph
to_cls = [reader[0] == "v" and reader[-2:] == ("context", "cls") for reader in graph.readers]
reads_context = graph.valid & torch.tensor(to_cls)
helpful = -shortcut.mean.masked_fill(~reads_context, torch.inf)
generator = torch.Generator().manual_seed(0)
candidates = reads_context.nonzero()


def accuracy(cut: torch.Tensor, backgrounds: str) -> float:
    """Percent of scenes that are named rightly with some edges cut."""
    batch = test[backgrounds]
    members = object_groups(context_model.token_layout, batch.masks[:, 0])
    logits = Circuit(graph, graph.valid & ~cut).run(context_model, batch.images, mean, members)
    return 100 * float((logits.argmax(dim=1) == batch.labels[:, 0]).float().mean())


rows = []
for n_cut in (0, 60) if options.quick else (0, 20, 100, 300, int(reads_context.sum())):
    largest = torch.zeros_like(graph.valid)
    largest.view(-1)[helpful.flatten().topk(n_cut).indices] = True
    random = torch.zeros_like(graph.valid)
    random[tuple(candidates[torch.randperm(len(candidates), generator=generator)[:n_cut]].T)] = True
    for which, cut in (("shortcut", largest), ("random", random)):
        if n_cut or which == "shortcut":
            rows.append({"cut": n_cut, "edges": which if n_cut else "none", **{
                backgrounds: accuracy(cut, backgrounds) for backgrounds in test
            }})  # fmt: skip
accuracies = pd.DataFrame(rows)
console.print(accuracies.round(1).to_string(index=False))
accuracies.to_csv(options.out / "cut.csv", index=False)

# %% What this says
# A cut removes the shortcut if accuracy on own and on shifted backgrounds become alike, and helps if accuracy on
# shifted backgrounds rises. Random edges hurt both, or shifted backgrounds more.

last = accuracies.iloc[-2 if options.quick else -4]
console.print(
    f"Own minus shifted backgrounds: {accuracies['own'][0] - accuracies['shifted'][0]:.0f} points before, "
    f"{last['own'] - last['shifted']:.0f} points with {last['cut']} {last['edges']} edges cut; shifted backgrounds "
    f"alone: {accuracies['shifted'][0]:.0f} % before, {last['shifted']:.0f} % after."
)

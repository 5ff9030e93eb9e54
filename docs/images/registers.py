"""Draw docs/images/registers.png: patch norms of a scene, with planted outliers, and with their neurons moved.

python docs/images/registers.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from analyses.data import EmojiScenes
from analyses.outliers import norm_ratios
from hooked_vit import HookedViT
from hooked_vit.interventions import move_neurons

TARGET, LAYER, NEURONS = Path(__file__).with_suffix(".png"), 3, [0, 1]


@torch.no_grad()
def main() -> None:
    """Draw the picture and three maps on one scale."""
    scenes = EmojiScenes(64, seed=1).batch(range(64))
    model = HookedViT.from_pretrained("emoji-vit")
    planted = model.with_weights({name: weight.clone() for name, weight in model.named_parameters()})
    planted.blocks[LAYER].mlp.W_out[NEURONS] *= 600
    repaired = planted.with_registers(1)
    cases = {
        "emoji-vit": (model, []),
        "two outlier neurons": (planted, []),
        "moved to a register": (repaired, move_neurons(repaired, {LAYER: NEURONS})),
    }
    maps = {}
    for title, (shown, hooks) in cases.items():
        with shown.hooks(fwd_hooks=hooks):
            _, cache = shown.run_with_cache(scenes.images, names_filter=("resid_post", LAYER))
        ratios = norm_ratios(cache["resid_post", LAYER], shown.token_layout)
        maps[title] = shown.token_layout.to_grid(ratios[:, shown.token_layout.patches])
    index = int(maps["two outlier neurons"].flatten(1).amax(dim=1).argmax())
    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    axes = figure.subplots(1, 4)
    axes[0].imshow(scenes[index].picture)
    axes[0].set_title("picture", fontsize="medium")
    for ax, (title, found) in zip(axes[1:], maps.items(), strict=True):
        ax.imshow(found[index], vmin=0, vmax=6, cmap="viridis")
        ax.set_title(title, fontsize="medium")
    figure.colorbar(axes[1].images[0], ax=axes[1:], label="norm, in medians", extend="max", shrink=0.85)
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    figure.savefig(TARGET, dpi=110)


if __name__ == "__main__":
    main()

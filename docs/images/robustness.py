"""Draw docs/images/robustness.png: six perturbations of 200 Emoji Scenes in emoji-vit.

python docs/images/robustness.py
"""

from pathlib import Path

from analyses.data import EmojiScenes
from analyses.plots.robustness import robustness_figure
from analyses.robustness import Robustness, named_perturbations
from analyses.sweep import sweep
from hooked_vit import HookedViT

SPECS = ("gaussian_noise:1", "fog:1", "occlusion:0.5", "patch_shuffle", "fgsm:4", "background")


def main() -> None:
    """Sweep and draw."""
    scenes = EmojiScenes(200, seed=9)
    analysis = Robustness(named_perturbations(SPECS, scenes))
    table = sweep(HookedViT.from_pretrained("emoji-vit"), scenes, [analysis])["robustness"]
    robustness_figure(table, title="emoji-vit").savefig(Path(__file__).with_suffix(".png"), dpi=90)


if __name__ == "__main__":
    main()

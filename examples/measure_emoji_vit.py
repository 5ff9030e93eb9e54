"""How good an emoji-vit is: accuracy, two objects, calibration, and what the background does to its answers."""

# Used by train_emoji_vit.py at the end of a run; or by itself, on any bundled model:
#
#     python examples/measure_emoji_vit.py emoji-vit-gap

# %%
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
import typer
from jaxtyping import Bool, Float, Int64
from rich.console import Console
from torch import Tensor, nn

from analyses.data import ARTISTS, EmojiScenes, emoji_groups, group_of_class
from hooked_vit import HookedViT, keep_freed_memory

# %% How good it is
# Measured on scenes that no run has seen, with the weights as they are kept, in half precision. Two objects are named
# if they are the two likeliest classes. Confidence is the probability of the likeliest class; it is calibrated if of
# all answers given with a confidence of 0.9 nine in ten are right; the expected calibration error (ECE) is how far off
# that is, over fifteen bins of confidence.

TESTING = 2_000_000
"""The seed of the scenes to test on, which no run was trained on."""

_MEASURED_TOGETHER = 250


@torch.no_grad()
def answers(
    model: nn.Module, scenes: EmojiScenes
) -> tuple[Float[Tensor, "scene n_classes"], Int64[Tensor, "scene object"], Int64[Tensor, "scene object"]]:
    """Logits, labels and artists of all scenes of a dataset."""
    parts = []
    for start in range(0, len(scenes), _MEASURED_TOGETHER):
        batch = scenes.batch(range(start, min(start + _MEASURED_TOGETHER, len(scenes))))
        parts.append((model(batch.images), batch.labels, batch.artists))
    logits, labels, artists = (torch.cat(part) for part in zip(*parts, strict=True))
    return logits, labels, artists


def both_named(
    logits: Float[Tensor, "scene n_classes"], labels: Int64[Tensor, "scene object=2"]
) -> Bool[Tensor, "scene"]:
    """Whether the two likeliest classes are those of the two objects.

    >>> both_named(torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), torch.tensor([[2, 0], [0, 1]]))
    tensor([ True, False])
    """
    return (logits.topk(2).indices.sort(-1).values == labels.sort(-1).values).all(-1)


def calibration_error(
    logits: Float[Tensor, "scene n_classes"], labels: Int64[Tensor, "scene"], n_bins: int = 15
) -> float:
    """Sum over bins of confidence of (share of scenes) · |accuracy - mean confidence|.

    >>> calibration_error(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0]))  # says 0.5, right always
    0.5
    """
    confidence, answer = logits.softmax(-1).max(-1)
    surplus = (answer == labels).float() - confidence
    bins = (confidence * n_bins).long().clamp(max=n_bins - 1)
    return float(torch.zeros(n_bins).index_add(0, bins, surplus).abs().sum() / len(labels))


def best_temperature(logits: Float[Tensor, "scene n_classes"], labels: Int64[Tensor, "scene"]) -> float:
    """The number by which to divide the logits for the smallest cross entropy, from 0.33 to 3.3."""
    inverses = torch.linspace(0.3, 3, 271)
    return float(
        1 / inverses[torch.stack([F.cross_entropy(logits * inverse, labels) for inverse in inverses]).argmin()]
    )


def measure(model: nn.Module, n_scenes: int = 4000) -> dict[str, Any]:
    """All measurements for a model's card."""
    scenes = EmojiScenes(n_scenes, TESTING)
    logits, labels, artists = answers(model, scenes)
    labels, artists = labels[:, 0], artists[:, 0]
    right = logits.argmax(-1) == labels
    is_small = torch.from_numpy(scenes.layout(range(n_scenes)).scales[:, 0] < 0.5)
    pair_logits, pairs, _ = answers(model, EmojiScenes(n_scenes // 2, TESTING, objects=2))
    return {
        "scenes": n_scenes,
        "single_top1": share(right),
        "single_top5": share((logits.topk(5).indices == labels[:, None]).any(-1)),
        "single_top1_by_artist": {name: share(right[artists == index]) for index, name in enumerate(ARTISTS)},
        "single_top1_of_small_objects": share(right[is_small]),
        "single_top1_by_class": {
            name: share(right[labels == index]) for index, name in enumerate(EmojiScenes.class_names)
        },
        "confusions": confusions(logits.argmax(-1), labels),
        "mean_confidence": round(float(logits.softmax(-1).amax(-1).mean()), 4),
        "calibration_error": round(calibration_error(logits, labels), 4),
        "two_objects_scenes": n_scenes // 2,
        "two_objects_both_in_top2": share(both_named(pair_logits, pairs)),
        "two_objects_top1_is_one_of_them": share((pair_logits.argmax(-1)[:, None] == pairs).any(-1)),
        "two_objects_probability_of_both": round(float(pair_logits.softmax(-1).gather(-1, pairs).sum(-1).mean()), 4),
        "backgrounds": measure_backgrounds(model, n_scenes // 2),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


# A misleading background shows what the background contributes. Each scene is shown with a background in the colours of
# its class's group, then of each other group, and once more in its own group's colours with the object fully hidden,
# where only the group can be right.


def measure_backgrounds(model: nn.Module, n_scenes: int) -> dict[str, float]:
    """Accuracy on matching and on misleading backgrounds, and from a background alone."""
    coloured = EmojiScenes(n_scenes, TESTING, background_strength=1)
    group_of = torch.tensor(group_of_class())
    logits, labels, _ = answers(model, coloured)
    right_matching = (logits.argmax(-1) == labels[:, 0]).float()
    right_misleading = []
    for index, group in enumerate(emoji_groups()):
        logits, labels, _ = answers(model, coloured.swap_background(group))
        right_misleading.append((logits.argmax(-1) == labels[:, 0])[group_of[labels[:, 0]] != index])
    logits, labels, _ = answers(model, coloured.occlude(1.0))
    return {
        "top1_on_own_groups_colours": share(right_matching),
        "top1_on_another_groups_colours": share(torch.cat(right_misleading)),
        "group_right_with_object_hidden": share(group_of[logits.argmax(-1)] == group_of[labels[:, 0]]),
        "group_right_by_chance": round(float((group_of.bincount() / len(group_of)).square().sum()), 4),
    }


def share(which: Tensor) -> float:
    """Share of True, to four digits."""
    return round(float(which.float().mean()), 4)


def confusions(answers: Int64[Tensor, "scene"], labels: Int64[Tensor, "scene"], most: int = 8) -> list[str]:
    """The commonest mistakes, commonest first.

    >>> confusions(torch.tensor([3, 3, 3, 4]), torch.tensor([4, 4, 3, 3]))
    ['lion taken for fox: 2', 'fox taken for lion: 1']
    """
    names = EmojiScenes.class_names
    made = Counter((int(label), int(answer)) for label, answer in zip(labels, answers, strict=True) if label != answer)
    return [f"{names[label]} taken for {names[answer]}: {n}" for (label, answer), n in made.most_common(most)]


# %% The command


def main(model: str = typer.Argument("emoji-vit"), scenes: int = 4000) -> None:
    """Measure a bundled model on SCENES scenes that it has never seen."""
    keep_freed_memory()
    Console().print_json(data=measure(HookedViT.from_pretrained(model), scenes))


if __name__ == "__main__":
    typer.run(main)

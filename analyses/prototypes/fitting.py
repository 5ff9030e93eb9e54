"""Class embeddings from pictures: the mean of what the head reads in each class, or ridge regression on it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.data.dataset import LabelledImages
from analyses.data.reading import ItemReader
from analyses.linear_probe.ridge import fit_ridge_probe
from analyses.progress import progress_bar
from analyses.prototypes.class_embeddings import ClassEmbeddings
from hooked_vit import HookedViT
from hooked_vit.class_names import ClassNames, numbered_class_names, ordered_class_names
from hooked_vit.new_head import HeadPool

__all__ = ["PrototypeMethod", "class_prototypes"]

PrototypeMethod = Literal["mean", "ridge"]
_MOST_FOLDS = 5


@torch.no_grad()
def class_prototypes(
    model: HookedViT,
    dataset: LabelledImages,
    class_names: ClassNames | None = None,
    *,
    method: PrototypeMethod = "mean",
    shots: int | None = None,
    pool: HeadPool | None = None,
    alpha: float = 1.0,
    batch_size: int = 8,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool | None = None,
) -> ClassEmbeddings:
    """Class embeddings for a model without classes, or for other classes, from a few pictures of each.

    With f the pooled features of a picture (what the head reads, after the final norm), m their mean over classes, and
    μ_c the mean over the pictures of class c:

        mean:   W_c = s (μ_c - m),   b_c = -s (μ_c - m)·m - s |μ_c - m|² / 2

    so that the class with the largest logit is the one with the nearest mean (Snell et al. 2017). `ridge` is ridge
    regression of ±1 targets on f (`fit_ridge_probe`), times s. The common factor s changes no rank. It makes the mean
    lead of a picture's own class over the mean of the others `log(9 (C - 1))`, a probability of 0.9 if the others are
    alike; otherwise the softmax of distances in hundreds of dimensions would be 0 or 1, and its gradients 0.

    Args:
        model: The model; its own classes, if it has any, play no part.
        dataset: Items are `(image, label)`; masks are ignored.
        class_names: One name per class; by default the dataset's own, from `class_names` or `class_to_idx`.
        method: `"mean"` or `"ridge"`.
        shots: Only the first so many pictures of each class, in the dataset's order.
        pool: What the embeddings read: `"cls"`, `"avg"`, or `"cls_and_mean"`; by default what the model's head reads.
        alpha: The penalty of `ridge`.
        batch_size: Pictures per forward pass.
        on_error: `"skip"` leaves out pictures that cannot be read, and lists them in `how["skipped"]`.
        progress: Whether to show a progress bar; by default on a terminal.

    Returns:
        The embeddings. `how` has the number of pictures of each class and, with at least two pictures per class,
        `held_out_accuracy`: the percentage of pictures classified right by prototypes made without them (in up to
        five folds).

    Raises:
        ValueError: If there are fewer than two classes, a class has too few pictures, the features do not tell the
            classes apart at all, or a picture cannot be read.

    >>> from analyses.data import EmojiScenes
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> scenes = [(item[0], index % 2) for index, item in enumerate(EmojiScenes(8, seed=1))]
    >>> two = class_prototypes(model, scenes, ["even", "odd"])
    >>> two.on(model).class_names, two.how["pictures"]
    (('even', 'odd'), [4, 4])
    """
    if method not in get_args(PrototypeMethod):
        raise ValueError(f"method is 'mean' or 'ridge', got {method!r}")
    if shots is not None and shots < 1:
        raise ValueError(f"shots must be at least 1, got {shots}")
    names = _names(dataset, class_names)
    features, labels, skipped = _features(model, dataset, names, shots, pool, batch_size, on_error, progress)
    counts = labels.bincount(minlength=len(names))
    few = [names[index] for index in (counts < (shots or 1)).nonzero()[:, 0].tolist()]
    if few:
        raise ValueError(
            f"{len(few)} of {len(names)} classes have fewer than {shots or 1} pictures, such as '{few[0]}': add "
            "pictures, or leave the class out"
        )
    weight, bias = _fit(features, labels, len(names), method, alpha)
    scale = _scale(features @ weight.T + bias, labels)
    how: dict[str, Any] = {
        "method": method,
        **({"alpha": alpha} if method == "ridge" else {}),
        "pictures": counts.tolist(),
        "held_out_accuracy": _held_out_accuracy(features, labels, len(names), method, alpha),
        "scale": scale,
        **({"skipped": skipped} if skipped else {}),
    }
    dtype = model.cfg.dtype
    return ClassEmbeddings((scale * weight).to(dtype).cpu(), (scale * bias).to(dtype).cpu(), names, pool, how)


def _names(dataset: LabelledImages, class_names: ClassNames | None) -> tuple[str, ...]:
    names = class_names if class_names is not None else getattr(dataset, "class_names", None)
    folders = getattr(dataset, "class_to_idx", None)
    if names is None and isinstance(folders, dict) and set(folders.values()) == set(range(len(folders))):
        names = sorted(folders, key=lambda name: folders[name])
    if names is None:
        labels = {int(dataset[index][1]) for index in range(len(dataset))}
        names = numbered_class_names(max(labels, default=0) + 1)
    ordered = ordered_class_names(names)
    if len(ordered) < 2:
        raise ValueError(f"prototypes tell classes apart: expected at least two classes, got {len(ordered)}")
    return ordered


def _features(
    model: HookedViT,
    dataset: LabelledImages,
    names: Sequence[str],
    shots: int | None,
    pool: HeadPool | None,
    batch_size: int,
    on_error: str,
    progress: bool | None,
) -> tuple[Float[Tensor, "picture d_read"], Int[Tensor, "picture"], list[tuple[int, str]]]:
    """What a head would read of each picture, in double precision, and its class."""
    width = model.cfg.d_model * (2 if pool == "cls_and_mean" or (pool is None and model.cfg.n_read == 2) else 1)
    reading = model.with_class_embeddings(torch.zeros(width, 2), pool=pool)
    points = ["hook_pooled", "hook_pooled_dist"] if model.cfg.pool == "cls_and_dist" and pool is None else "hook_pooled"
    cfg = dataclasses.replace(model.cfg, n_classes=len(names))
    reader = ItemReader(dataset, cfg, model.data_config, skip=on_error == "skip")
    kept: list[Tensor] = []
    labels: list[int] = []
    skipped: list[tuple[int, str]] = []
    counts = [0] * len(names)
    with progress_bar(len(dataset), show=progress) as advance:
        for start in range(0, len(dataset), batch_size):
            if shots is not None and min(counts) >= shots:
                break
            read = reader.__getitems__(range(start, min(start + batch_size, len(dataset))))
            skipped += read.failures
            wanted = []
            for place, label in enumerate(read.labels.tolist()):
                if shots is None or counts[label] < shots:
                    counts[label] += 1
                    wanted.append(place)
                    labels.append(label)
            if read.images is not None and wanted:
                images = read.images[wanted].to(device=model.cfg.device, dtype=model.cfg.dtype)
                _, cache = reading.run_with_cache(images, names_filter=points)
                pooled = torch.stack(list(cache.cache_dict.values())).double()
                kept.append(pooled.mean(dim=0))
            advance(read.n_asked)
    if not kept:
        raise ValueError("expected pictures of each class, and none could be read" if skipped else "no pictures")
    features = torch.cat(kept)
    return features, torch.tensor(labels, device=features.device), skipped


def _fit(
    features: Tensor, labels: Tensor, n_classes: int, method: str, alpha: float
) -> tuple[Float[Tensor, "n_classes d_read"], Float[Tensor, "n_classes"]]:
    if method == "ridge":
        probe = fit_ridge_probe(features, labels, n_classes, alpha)
        return probe.weight.T, probe.bias
    sums = features.new_zeros(n_classes, features.shape[1]).index_add_(0, labels, features)
    means = sums / labels.bincount(minlength=n_classes)[:, None]
    centre = means.mean(dim=0)
    weight = means - centre
    return weight, -weight @ centre - weight.square().sum(dim=1) / 2


def _scale(class_logits: Float[Tensor, "picture n_classes"], labels: Int[Tensor, "picture"]) -> float:
    """The factor that makes the mean lead of the pictures' own classes `log(9 (C - 1))`."""
    n_classes = class_logits.shape[1]
    own = class_logits.gather(1, labels[:, None])[:, 0]
    lead = float((own - (class_logits.sum(dim=1) - own) / (n_classes - 1)).mean())
    if not lead > 1e-9 * float(class_logits.abs().max()):
        raise ValueError("the model's features are the same for all classes: nothing tells them apart")
    return math.log(9 * (n_classes - 1)) / lead


def _held_out_accuracy(features: Tensor, labels: Tensor, n_classes: int, method: str, alpha: float) -> float | None:
    n_folds = min(_MOST_FOLDS, int(labels.bincount(minlength=n_classes).min()))
    if n_folds < 2:
        return None
    place = (labels[:, None] == labels[None]).tril(-1).sum(dim=1)  # among the pictures of its class
    right = 0
    for fold in range(n_folds):
        held_out = place % n_folds == fold
        weight, bias = _fit(features[~held_out], labels[~held_out], n_classes, method, alpha)
        right += int(((features[held_out] @ weight.T + bias).argmax(dim=1) == labels[held_out]).sum())
    return 100 * right / len(labels)

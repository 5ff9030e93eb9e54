"""Prototypes equal a loop over pictures, classify by the nearest mean, and never depend on the model's own classes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_timm, ported
from PIL import Image
from torch import Tensor

from analyses.data import ImageFolder
from analyses.prototypes import class_prototypes
from hooked_vit import HookedViT

Items = list[tuple[Tensor, int]]


@pytest.fixture
def items() -> Items:
    """Nine inputs of three classes that differ in brightness: four, three and two."""
    generator = torch.Generator().manual_seed(6)
    labels = [0, 1, 0, 2, 1, 0, 2, 1, 0]
    return [(torch.randn(3, 32, 24, generator=generator) + label, label) for label in labels]


def read_by_head(model: HookedViT, image: Tensor, pool: str | None) -> Tensor:
    """What a head would read of one image, from the last stream."""
    _, cache = model.run_with_cache(image[None])
    if pool is None and model.cfg.pool == "cls_and_dist":
        return (cache["hook_pooled"] + cache["hook_pooled_dist"])[0] / 2
    if pool is None:
        return cache["hook_pooled"][0]
    tokens = cache["resid_post", -1][0]
    tokens = tokens if model.ln_final is None else model.ln_final.fused(tokens)
    cls, mean = tokens[0], tokens[model.token_layout.patches].mean(dim=0)
    return {"cls": cls, "avg": mean, "cls_and_mean": torch.cat([cls, mean])}[pool]


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind_name", "pool"),
    [
        ("cls", None),
        ("cls", "avg"),
        ("dynamic", "cls_and_mean"),
        ("post_norm", None),
        ("map", None),
        ("distilled", None),
    ],
)
def test_the_largest_logit_is_the_nearest_mean(kind_name: str, pool: str | None, items: Items) -> None:
    model = ported(kind_name)
    made = class_prototypes(model, items, ["dark", "grey", "bright"], pool=pool, batch_size=4)
    features = torch.stack([read_by_head(model, image, pool) for image, _ in items]).double()
    labels = torch.tensor([label for _, label in items])
    means = torch.stack([features[labels == c].mean(dim=0) for c in range(3)])
    with_classes = made.on(model)
    others = torch.randn(5, 3, 32, 24)
    for image in [*(image for image, _ in items), *others]:
        distances = (read_by_head(model, image, pool).double() - means).square().sum(dim=1)
        logits = with_classes(image[None])[0].double()
        # differences of logits are half the differences of squared distances, times the scale
        expected = -made.how["scale"] * (distances - distances[0]) / 2
        torch.testing.assert_close(logits - logits[0], expected, rtol=1e-3, atol=2e-3)
    assert with_classes.class_names == ("dark", "grey", "bright")
    assert made.how["pictures"] == [4, 3, 2]


@torch.no_grad()
@pytest.mark.parametrize("method", ["mean", "ridge"])
def test_the_scale_makes_the_mean_lead_a_probability_of_nine_tenths(method: str, items: Items) -> None:
    made = class_prototypes(ported("cls"), items, method=method)
    model, leads = made.on(ported("cls")), []
    for image, label in items:
        logits = model(image[None])[0].tolist()
        own = logits.pop(label)
        leads.append(own - sum(logits) / 2)
    lead = sum(leads) / len(leads)
    assert lead == pytest.approx(math.log(9 * 2), rel=1e-3)
    assert math.exp(lead) / (math.exp(lead) + 2) == pytest.approx(0.9, rel=1e-3)


@torch.no_grad()
def test_ridge_is_sklearns(items: Items) -> None:
    from sklearn.linear_model import Ridge

    model = ported("cls")
    made = class_prototypes(model, items, method="ridge", alpha=0.7)
    features = torch.stack([read_by_head(model, image, None) for image, _ in items]).double()
    targets = -np.ones((9, 3))
    targets[range(9), [label for _, label in items]] = 1
    fitted = Ridge(alpha=0.7).fit(features.numpy(), targets)
    torch.testing.assert_close(
        made.weight.double() / made.how["scale"], torch.from_numpy(fitted.coef_), rtol=1e-3, atol=1e-5
    )
    assert made.how["alpha"] == 0.7


def test_the_models_own_classes_play_no_part(items: Items) -> None:
    with_head = class_prototypes(ported("cls"), items)
    without = class_prototypes(HookedViT.from_timm(make_timm("cls", num_classes=0)), items)
    # the perturbation of the timm model draws other numbers without a head, so only shapes can be compared there
    assert with_head.weight.shape == without.weight.shape == (3, 24)
    fewer = ported("cls").with_class_embeddings(torch.randn(24, 2))
    torch.testing.assert_close(class_prototypes(fewer, items).weight, with_head.weight)


@torch.no_grad()
def test_held_out_accuracy_is_that_of_a_loop(items: Items) -> None:
    model = ported("cls")
    made = class_prototypes(model, items)
    features = torch.stack([read_by_head(model, image, None) for image, _ in items]).double()
    labels = [label for _, label in items]
    seen: dict[int, int] = {}
    fold_of = []
    for label in labels:  # two folds: the smallest class has two pictures
        fold_of.append(seen.get(label, 0) % 2)
        seen[label] = seen.get(label, 0) + 1
    right = 0
    for index in range(9):
        means = [
            torch.stack([features[i] for i in range(9) if labels[i] == c and fold_of[i] != fold_of[index]]).mean(dim=0)
            for c in range(3)
        ]
        nearest = min(range(3), key=lambda c: float((features[index] - means[c]).square().sum()))
        right += nearest == labels[index]
    assert made.how["held_out_accuracy"] == pytest.approx(100 * right / 9)
    assert class_prototypes(model, items, shots=1).how["held_out_accuracy"] is None


def test_shots_are_the_first_pictures_of_each_class(items: Items) -> None:
    few = class_prototypes(ported("cls"), items, shots=1, batch_size=2)
    first = class_prototypes(ported("cls"), [items[0], items[1], items[3]])
    torch.testing.assert_close(few.weight, first.weight)
    assert few.how["pictures"] == [1, 1, 1]


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for name, brightness in (("night", 30), ("day", 200), ("noon", 250)):
        (tmp_path / name).mkdir()
        for index in range(2):
            pixels = rng.integers(brightness - 20, brightness, (20, 30, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    (tmp_path / "day" / "damaged.png").write_text("no picture")
    folder = ImageFolder(tmp_path, classes="sorted")
    with pytest.raises(ValueError, match="image 2 of the dataset cannot be read"):
        class_prototypes(ported("cls"), folder)
    made = class_prototypes(ported("cls"), folder, on_error="skip")
    assert made.class_names == ("day", "night", "noon")
    assert made.how["pictures"] == [2, 2, 2]
    assert [folder.samples[index][0] for index, _ in made.how["skipped"]] == [str(tmp_path / "day" / "damaged.png")]


@pytest.mark.usefixtures("bad_input")
def test_errors(items: Items) -> None:
    model = ported("cls")
    with pytest.raises(ValueError, match="method is 'mean' or 'ridge', got 'median'"):
        class_prototypes(model, items, method="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shots must be at least 1, got 0"):
        class_prototypes(model, items, shots=0)
    with pytest.raises(ValueError, match="1 of 3 classes have fewer than 3 pictures, such as 'bright'"):
        class_prototypes(model, items, ["dark", "grey", "bright"], shots=3)
    with pytest.raises(ValueError, match="expected at least two classes, got 1"):
        class_prototypes(model, items, ["dark"])
    with pytest.raises(ValueError, match="has label 2"):
        class_prototypes(model, items, ["dark", "grey"])
    with pytest.raises(ValueError, match="the same for all classes: nothing tells them apart"):
        class_prototypes(model, [(items[0][0], 0), (items[0][0], 1)])
    with pytest.raises(ValueError, match="pool='cls' needs a CLS token"):
        class_prototypes(ported("map"), items, pool="cls")

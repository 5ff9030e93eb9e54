"""Requirements for the bundled models: size, port, card, and accuracy on scenes they have never seen."""

import json
from importlib.resources import as_file, files

import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from analyses.data.emoji_scenes.scenes import EmojiScenes
from hooked_vit import HookedViT
from hooked_vit.loading import EMBEDDED

ASSETS = files("hooked_vit") / "assets"
N_SCENES, UNSEEN = 300, 5_000_000
# Below the measured accuracies by three standard errors of so few scenes: one object's class on top, two objects'
# classes the top two.
FLOORS = {"emoji-vit": (0.98, 0.91), "emoji-vit-gap": (0.975, 0.86), "emoji-vit-context": (0.965, 0.80)}


def card_of(name: str) -> dict:
    """The model card next to the weights."""
    return json.loads((ASSETS / f"{name}.json").read_text("utf-8"))


def timm_module(name: str) -> VisionTransformer:
    """The same weights in timm's own class."""
    module = VisionTransformer(**card_of(name)["architecture"]).eval()
    with as_file(ASSETS / f"{name}.safetensors") as path:
        module.load_state_dict(load_file(path))
    return module


def test_three_models_are_bundled() -> None:
    assert set(EMBEDDED) == FLOORS.keys()


@pytest.mark.parametrize("name", EMBEDDED)
class TestEach:
    def test_it_is_small_enough_to_bundle(self, name: str) -> None:
        with as_file(ASSETS / f"{name}.safetensors") as path:
            assert path.stat().st_size < 4_000_000
            assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}

    def test_the_port_is_timm_to_the_bit(self, name: str) -> None:
        model, module = HookedViT.from_pretrained(name), timm_module(name)
        images = EmojiScenes(8, UNSEEN).batch(range(8)).images
        assert torch.allclose(model(images), module(images), atol=1e-4)
        model.fused_attention = False
        for block in module.blocks:
            block.attn.fused_attn = False  # pyright: ignore
        assert model.verify(module, images).bitwise

    @torch.no_grad()
    def test_it_is_right_on_unseen_scenes(self, name: str) -> None:
        model = HookedViT.from_pretrained(name)
        one, two = (EmojiScenes(N_SCENES, UNSEEN, objects=n).batch(range(N_SCENES)) for n in (1, 2))
        top1 = (model(one.images).argmax(-1) == one.labels[:, 0]).float().mean().item()
        top2 = model(two.images).topk(2).indices.sort(-1).values
        both = (top2 == two.labels.sort(-1).values).all(-1).float().mean().item()
        assert top1 >= FLOORS[name][0]
        assert both >= FLOORS[name][1]

    @torch.no_grad()
    def test_its_confidence_matches_its_accuracy(self, name: str) -> None:
        batch = EmojiScenes(N_SCENES, UNSEEN).batch(range(N_SCENES))
        confidence, answer = HookedViT.from_pretrained(name)(batch.images).softmax(-1).max(-1)
        accuracy = (answer == batch.labels[:, 0]).float().mean()
        assert abs(confidence.mean() - accuracy) < 0.02

    def test_its_card_describes_it(self, name: str) -> None:
        card = card_of(name)
        assert card["trained_on"].startswith("Emoji Scenes")
        measured = card["measured"]
        assert measured["parameters"] == sum(parameter.numel() for parameter in timm_module(name).parameters())
        assert measured["single_top1"] > FLOORS[name][0]
        assert measured["two_objects_both_in_top2"] > FLOORS[name][1]
        assert measured["calibration_error"] < 0.02
        assert len(measured["single_top1_by_class"]) == 100
        assert set(measured["single_top1_by_artist"]) == {"noto", "twemoji", "fluent-3d"}
        assert len(card["weaknesses"]) >= 5


def test_the_second_is_built_differently() -> None:
    model = HookedViT.from_pretrained("emoji-vit-gap")
    layout = model.token_layout
    assert (layout.n_cls, layout.n_registers, layout.n_patches) == (0, 4, 64)
    assert model.cfg.pool == "avg"
    gammas = [p for n, p in timm_module("emoji-vit-gap").named_parameters() if n.endswith(".gamma")]
    assert len(gammas) == 16
    assert all(gamma.std() > 0 for gamma in gammas), "LayerScale was trained"


@torch.no_grad()
def test_the_third_uses_the_background() -> None:
    """With the object hidden, it names the group from the background's colour."""
    groups = [one.group for one in EmojiScenes.taxonomy]
    hidden = EmojiScenes(N_SCENES, UNSEEN, background_strength=1).occlude(1.0).batch(range(N_SCENES))

    def group_right(name: str) -> float:
        answers = HookedViT.from_pretrained(name)(hidden.images).argmax(-1)
        pairs = zip(answers.tolist(), hidden.labels[:, 0].tolist(), strict=True)
        return sum(groups[answer] == groups[label] for answer, label in pairs) / N_SCENES

    assert group_right("emoji-vit-context") > 0.6 > group_right("emoji-vit")

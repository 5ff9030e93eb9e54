"""The script that trains the embedded dictionary: a small run, and the card of the embedded one."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from analyses.data import EmojiScenes
from analyses.dictionaries import load_dictionary
from hooked_vit import HookedViT

sys.path.append(str(Path(__file__).parents[2] / "examples"))
script = importlib.import_module("train_emoji_dictionary")


@pytest.fixture
def model() -> HookedViT:
    """The model that it is for."""
    return HookedViT.from_pretrained("emoji-vit")


def test_a_small_run_leaves_a_dictionary_and_its_card(tmp_path, capsys) -> None:
    arguments = {"scenes": 40, "layer": 1, "kind": "batch_topk", "latents": 64, "k": 4, "test_scenes": 10}
    script.main(**arguments, out=tmp_path)
    card = json.loads((tmp_path / "resid_post-1.json").read_text("utf-8"))
    dictionary = load_dictionary(tmp_path / "resid_post-1.safetensors")
    assert card["d_dict"] == dictionary.config.d_dict == 64
    assert card["trained_on"] == "40 Emoji Scenes, each shown once: 2,600 activations"
    assert 0 < card["measured"]["explained_variance"] < 1
    assert dictionary.record["stored_as"] == "float16"
    assert "of the variance unexplained" in capsys.readouterr().out


def test_measurements_equal_those_by_hand(model: HookedViT) -> None:
    dictionary = load_dictionary("emoji-vit/resid_post-5")
    found = script.measure(model, dictionary, n_scenes=20, batch_size=7)
    batch = EmojiScenes(20, script.TESTING).batch(range(20))
    with torch.no_grad():
        logits, cache = model.run_with_cache(batch.images, names_filter=("resid_post", 5))
        x = cache["resid_post", 5].flatten(0, 1)
        latents = dictionary.encode(x)
        unexplained = (x - dictionary.decode(latents)).square().sum() / (x - x.mean(dim=0)).square().sum()
        replaced = dictionary(x).reshape(20, 65, 128)
        answers = model(replaced, start_at_layer=6).argmax(dim=-1)
    assert found["explained_variance"] == pytest.approx(1 - float(unexplained), abs=1e-3)
    assert found["active_per_token"] == round(float((latents > 0).sum()) / len(x), 2)
    assert found["never_active"] == round(1 - float((latents > 0).any(dim=0).float().mean()), 4)
    assert found["accuracy"] == float((logits.argmax(dim=-1) == batch.labels[:, 0]).float().mean())
    assert found["accuracy_spliced"] == pytest.approx(float((answers == batch.labels[:, 0]).float().mean()))


def test_the_embedded_dictionary_is_what_its_card_says(model: HookedViT) -> None:
    from analyses.dictionaries.loading import _ASSETS

    card = json.loads((_ASSETS / "emoji-vit/resid_post-5.json").read_text("utf-8"))
    dictionary = load_dictionary("emoji-vit/resid_post-5")
    dictionary.check_fits(model)
    assert json.loads(dictionary.config.to_json()) == {name: card[name] for name in dictionary.config.__dict__}
    assert dictionary.record["options"] == card["options"]
    found, stated = script.measure(model, dictionary, n_scenes=50), card["measured"]
    assert found["explained_variance"] == pytest.approx(stated["explained_variance"], abs=0.02)
    assert found["active_per_token"] == pytest.approx(stated["active_per_token"], abs=0.5)
    assert found["accuracy_spliced"] == pytest.approx(stated["accuracy_spliced"], abs=0.08)
    assert (_ASSETS / "emoji-vit/resid_post-5.safetensors").stat().st_size < 2 * 2**20

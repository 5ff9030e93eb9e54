"""Similarity of classes, against a loop over pairs of paths; the bundled taxonomies."""

import pytest
import torch

from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.value_vectors.taxonomy import class_similarity, emoji_taxonomy, taxonomy_of, wordnet_taxonomy
from hooked_vit.class_names import imagenet_class_names

PATHS = [("a", "b", "c"), ("a", "b", "d"), ("a", "e"), ("f",), ("f", "b", "c"), ("a", "b", "c")]


def test_matches_wu_and_palmers_formula():
    similarity = class_similarity(PATHS)
    for i, one in enumerate(PATHS):
        for j, other in enumerate(PATHS):
            common = 0
            while common < min(len(one), len(other)) and one[common] == other[common]:
                common += 1
            assert float(similarity[i, j]) == pytest.approx(2 * common / (len(one) + len(other))), (one, other)


def test_the_taxonomy_of_emoji():
    taxonomy = emoji_taxonomy()
    assert list(taxonomy) == [(emoji.group, emoji.subgroup) for emoji in EmojiScenes.taxonomy]
    assert taxonomy_of(EmojiScenes.class_names) == taxonomy


def test_categories_of_imagenet_classes():
    names, taxonomy = imagenet_class_names(1000), wordnet_taxonomy(1000)
    assert names is not None
    assert taxonomy_of(names) == taxonomy
    for name, category in {
        "tench": "animal", "abacus": "artifact", "yawl": "artifact", "pizza": "food", "alp": "object",
        "daisy": "plant", "scuba diver": "person", "street sign": "communication", "cup": "food",
    }.items():  # fmt: skip
        found = [taxonomy[i] for i, synonyms in enumerate(names) if name in synonyms.split(", ")]
        assert (category,) in found, name
    assert len(wordnet_taxonomy(21841)) == 21841
    assert taxonomy_of(["class 0", "class 1"]) is None


def test_errors(bad_input):
    with pytest.raises(ValueError, match="timm knows no ImageNet with 7 classes: pass your own taxonomy"):
        wordnet_taxonomy(7)
    with pytest.raises(ValueError, match=r"expected one path of names per class.*, got 'fruit'"):
        class_similarity([("food",), "fruit"])
    with pytest.raises(ValueError, match=r"got \(\)"):
        class_similarity([()])
    assert torch.equal(class_similarity([("a",)]), torch.ones(1, 1))

"""Directions in class space equal loops over latents, and value vectors where a dictionary is the MLP's neurons."""

import pytest
import torch
from dictionary_toys import KINDS, toy, toy_dictionary

from analyses.dictionaries import (
    Dictionary,
    DictionaryConfig,
    compare_coherence,
    decoder_logits,
    latent_classes,
    latent_coherence,
    stream_directions,
)
from analyses.value_vectors import class_similarity, semantic_coherence, value_logits
from hooked_vit.interventions import random_directions

PATHS = [("a", "x"), ("a", "x"), ("a", "y"), ("b", "z"), ("b", "z"), ("b", "w"), ("b", "w")]


def neurons_as_latents(model, layer: int) -> Dictionary:
    """A dictionary whose latents are the neurons of a block."""
    point, width = f"blocks.{layer}.mlp.hook_post", model.cfg.d_mlp
    dictionary = Dictionary(DictionaryConfig("relu", width, width, width, point, point))
    with torch.no_grad():
        dictionary.W_enc.copy_(torch.eye(width))
        dictionary.W_dec.copy_(torch.eye(width))
    return dictionary


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", ["blocks.1.hook_resid_post", "blocks.2.hook_mlp_out", "blocks.0.attn.hook_z"])
def test_logits_are_those_of_each_direction(kind: str, point: str) -> None:
    model = toy(kind)
    dictionary = toy_dictionary(model, point)
    logits, cosines = decoder_logits(model, dictionary), decoder_logits(model, dictionary, unit_length=True)
    scale = model.blocks[0].ls1
    W_O = model.blocks[0].attn.W_O.flatten(0, 1) * (1 if scale is None else scale)
    for latent in range(37):
        one = torch.zeros(37)
        one[latent] = 1
        direction = dictionary.decode(one) - dictionary.decode(torch.zeros(37))
        if point.endswith("hook_z"):
            direction = sum(direction[i] * W_O[i] for i in range(len(W_O)))
        torch.testing.assert_close(stream_directions(model, dictionary)[latent], direction, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits[latent], direction @ model.W_U, rtol=1e-4, atol=1e-4)
        for label in range(7):
            cosine = torch.cosine_similarity(direction, model.W_U[:, label], dim=0)
            assert float(cosines[latent, label]) == pytest.approx(float(cosine), abs=1e-5)


def test_neurons_as_latents_are_value_vectors() -> None:
    model = toy("gap_registers_layerscale")
    dictionary = neurons_as_latents(model, 1)
    expected = value_logits(model, 1, layer_scale=True)
    torch.testing.assert_close(decoder_logits(model, dictionary), expected)
    found = latent_coherence(model, dictionary, PATHS, k=3, n_permutations=29, seed=2)
    known = semantic_coherence(model, PATHS, k=3, n_permutations=29, seed=2, layer_scale=True)
    assert torch.equal(found.score, known.score[1])
    assert torch.equal(found.p_value, known.p_value[1])
    assert torch.equal(found.null, known.null[1])


def test_top_classes_and_coherence_equal_the_loop() -> None:
    model = toy("cls")
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post")
    table = latent_classes(model, dictionary, [4, 9], k=3)
    assert table[["latent", "place"]].values.tolist() == [[i, place] for i in (4, 9) for place in (1, 2, 3)]
    logits = decoder_logits(model, dictionary)
    for latent in (4, 9):
        rows = table[table["latent"] == latent]
        expected = sorted(range(7), key=lambda c: -float(logits[latent, c]))[:3]
        assert rows["class_index"].tolist() == expected
        assert rows["class_name"].tolist() == [model.class_names[c] for c in expected]
        assert rows["logit"].tolist() == pytest.approx([float(logits[latent, c]) for c in expected])
    similarity = class_similarity(PATHS)
    found = latent_coherence(model, dictionary, PATHS, k=3, n_permutations=19)
    top = found.top_classes[5].tolist()
    pairs = [similarity[a, b] for i, a in enumerate(top) for b in top[i + 1 :]]
    assert float(found.score[5]) == pytest.approx(float(sum(pairs)) / 3)
    rows = compare_coherence(model, dictionary, PATHS, layer=1, k=3, n_permutations=19).set_index("directions")
    assert rows.loc["latents", "value"] == pytest.approx(float(found.score.mean()))
    assert rows["n_directions"].tolist() == [37, 60, 37]
    drawn = random_directions(stream_directions(model, dictionary), 0) @ model.W_U
    tops = drawn.topk(3).indices.tolist()
    scores = [sum(float(similarity[a, b]) for i, a in enumerate(t) for b in t[i + 1 :]) / 3 for t in tops]
    assert rows.loc["random directions", "value"] == pytest.approx(sum(scores) / 37, abs=1e-6)


def test_errors_say_what_to_do() -> None:
    model = toy("cls")
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post")
    with pytest.raises(ValueError, match=r"latents from 0 to 36, got \[37\]"):
        latent_classes(model, dictionary, [0, 37])
    with pytest.raises(ValueError, match="got none"):
        latent_classes(model, dictionary, [])
    with pytest.raises(ValueError, match="number of classes, 7, got 8"):
        latent_classes(model, dictionary, k=8)
    with pytest.raises(ValueError, match="one path per class, 7, got 2"):
        latent_coherence(model, dictionary, PATHS[:2])
    with pytest.raises(ValueError, match="k must be from 2 to the number of classes, 7, got 1"):
        latent_coherence(model, dictionary, PATHS, k=1)
    with pytest.raises(ValueError, match=r"'blocks.1.attn.hook_q' adds nothing to the residual stream"):
        decoder_logits(model, toy_dictionary(model, "blocks.1.attn.hook_q"))

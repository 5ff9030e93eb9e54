"""The memories of a page are those that fire most and those that add most to a class, by a loop over all of them."""

import functools

import pytest
import torch
from explored import explored, unpacked

from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.pages.explorer.memories import N_ADDING
from analyses.value_vectors.vectors import MemorySublayer, value_logits


@functools.cache
def parts_of(kind: str, sublayer: MemorySublayer) -> dict:
    _, _, data = explored(kind)
    return {name: part if name == "start" else unpacked(part) for name, part in data["memories"][sublayer].items()}


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
def test_they_are_those_of_all_memories(kind: str, sublayer: MemorySublayer) -> None:
    model, cache, data = explored(kind)
    stored, steps = parts_of(kind, sublayer), data["memories"][sublayer]
    assert stored["adding"].shape[-1] == N_ADDING / 2
    for layer in range(model.cfg.n_layers):
        used = stored["used"][stored["start"][layer] : stored["start"][layer + 1]]
        coefficients = memory_coefficients(model, cache, layer, sublayer, "post")[0]
        logits = value_logits(model, layer, sublayer, layer_scale=True)
        for token in range(len(coefficients)):
            fired = sorted(enumerate(coefficients[token].tolist()), key=lambda one: -one[1])[:5]
            assert used[stored["fired"][layer, token]].tolist() == [memory for memory, _ in fired]
            assert stored["fired_coefficient"][layer, token].tolist() == pytest.approx(
                [value for _, value in fired], abs=steps["fired_coefficient"]["step"] / 2 + 1e-6
            )
            for place, label in enumerate(data["shown"][: data["n_remembered"]]):
                pairs = zip(coefficients[token].tolist(), logits[:, label].tolist(), strict=True)
                adds = [coefficient * logit for coefficient, logit in pairs]
                ordered = sorted(range(len(adds)), key=lambda memory: -adds[memory])
                assert used[stored["adding"][layer, token, place]].tolist() == [*ordered[:4], *ordered[-2:]]


def test_value_vectors_are_projected_with_layer_scale(kind: str) -> None:
    model, _, data = explored(kind)
    stored, step = parts_of(kind, "mlp"), data["memories"]["mlp"]["logits"]["step"]
    for layer in range(model.cfg.n_layers):
        here = slice(stored["start"][layer], stored["start"][layer + 1])
        logits = value_logits(model, layer, "mlp", layer_scale=True)[stored["used"][here]]
        assert torch.equal(stored["classes"][here], logits.topk(3).indices)
        assert (stored["logits"][here] - logits[:, data["shown"]]).abs().max() <= step / 2 + 1e-6

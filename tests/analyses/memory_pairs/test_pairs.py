"""Key-value agreement and compositionality, against loops over images, blocks and tokens from the definitions."""

import pytest
import torch
from analysis_batches import model_of

from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.memory_pairs.pairs import compositionality, key_value_agreement
from analyses.value_vectors.alignment import class_value_agreement
from analyses.value_vectors.vectors import value_logits

LABELS = torch.tensor([5, 2])


def cached(kind):
    model = model_of(kind)
    images = torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model, model.run_with_cache(images)[1]


def slow_agreement(model, cache, sublayer, k, coefficients):
    found = []
    for layer in range(3):
        logits = value_logits(model, layer, sublayer)
        keys = memory_coefficients(model, cache, layer, sublayer, coefficients)
        for image, label in enumerate(LABELS.tolist()):
            class_memories = sorted(range(len(logits)), key=lambda m: -logits[m, label].item())[:k]
            for token in range(keys.shape[1]):
                activated = sorted(range(len(logits)), key=lambda m: -keys[image, token, m].item())[:k]
                found.append(any(memory in class_memories for memory in activated))
    return torch.tensor(found).view(3, 2, -1)


def slow_compositionality(model, cache, sublayer, k, coefficients):
    found = []
    for layer in range(3):
        logits = value_logits(model, layer, sublayer)
        keys = memory_coefficients(model, cache, layer, sublayer, coefficients)
        for image in range(2):
            for token in range(keys.shape[1]):
                output = int(model.class_logits(cache[f"{sublayer}_out", layer][image, token]).argmax())
                activated = sorted(range(len(logits)), key=lambda m: -keys[image, token, m].item())[:k]
                found.append(all(int(logits[memory].argmax()) != output for memory in activated))
    return torch.tensor(found).view(3, 2, -1)


@pytest.mark.parametrize(("sublayer", "coefficients", "k"), [("mlp", "pre", 5), ("mlp", "post", 3), ("attn", "pre", 4)])
def test_both_match_the_loops(kind, sublayer, coefficients, k):
    model, cache = cached(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = slow_agreement(model, cache, sublayer, k, coefficients)
    assert torch.equal(key_value_agreement(model, cache, LABELS, sublayer, k, coefficients), expected)
    expected = slow_compositionality(model, cache, sublayer, k, coefficients)
    assert torch.equal(compositionality(model, cache, sublayer, k, coefficients), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_order_of_calls_does_not_matter():
    model, cache = cached("swiglu_packed")
    calls = {
        "agreement": lambda: key_value_agreement(model, cache, LABELS),
        "compositionality": lambda: compositionality(model, cache, "attn"),
        "class-value": lambda: class_value_agreement(model),
    }
    first = {name: call() for name, call in calls.items()}
    for name in reversed(calls):
        assert torch.equal(calls[name](), first[name])


def test_layer_scale_can_be_folded_in():
    model, cache = cached("gap_registers_layerscale")
    logits = value_logits(model, 2, "mlp", layer_scale=True)
    keys = memory_coefficients(model, cache, 2)[1, 3]
    expected = bool(set(keys.topk(5).indices.tolist()) & set(logits[:, 2].topk(5).indices.tolist()))
    assert bool(key_value_agreement(model, cache, LABELS, layer_scale=True)[2, 1, 3]) == expected


def test_errors(bad_input):
    model, cache = cached("cls")
    with pytest.raises(ValueError, match="expected class indices from 0 to 6, got 0 to 7"):
        key_value_agreement(model, cache, torch.tensor([7, 0]))
    with pytest.raises(ValueError, match="k must be from 1 to the number of memories, 60, got 61"):
        key_value_agreement(model, cache, LABELS, k=61)
    with pytest.raises(ValueError, match="k must be from 1 to the number of memories, 24, got 0"):
        compositionality(model, cache, "attn", k=0)
    with pytest.raises(ValueError, match="expected sublayer 'mlp' or 'attn', got 'resid'"):
        compositionality(model, cache, "resid")  # pyright: ignore[reportArgumentType]

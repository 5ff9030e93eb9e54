"""Tables of value vectors, against loops over memories and classes; edits of the weights are noticed."""

import copy
import pickle

import pytest
import torch
from analysis_batches import model_of
from conftest import make_timm

from analyses.memory_pairs.lookup import MemoryTables, TableStore
from analyses.value_vectors.vectors import value_logits
from hooked_vit import HookedViT


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
def test_lookups_match_the_loop(kind, sublayer):
    model = model_of(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tables = MemoryTables(model, sublayer, k=4)
    labels = torch.tensor([6, 2])
    activated = torch.stack([torch.randperm(24, generator=torch.Generator().manual_seed(i))[:3] for i in range(10)])
    activated = activated.view(2, 5, 3)
    for layer in range(3):
        logits = value_logits(model, layer, sublayer)
        by_class = [sorted(range(len(logits)), key=lambda m: -logits[m, c].item())[:4] for c in range(7)]
        assert tables.memories_of_class[layer].tolist() == by_class
        assert tables.class_of_memory[layer].tolist() == [int(row.argmax()) for row in logits]
        agrees, random = tables.agrees(layer, activated, labels), tables.random_agreement(layer, activated)
        label_logits = tables.label_logits(layer, activated, labels)
        for image in range(2):
            for token in range(5):
                mine = activated[image, token].tolist()
                assert bool(agrees[image, token]) == any(memory in by_class[int(labels[image])] for memory in mine)
                share = sum(any(memory in by_class[c] for memory in mine) for c in range(7)) / 7
                assert float(random[image, token]) == pytest.approx(share)
                expected = [logits[memory, labels[image]].item() for memory in mine]
                assert label_logits[image, token].tolist() == pytest.approx(expected, abs=1e-5)
        assert tables.mean_logit[layer].tolist() == pytest.approx(logits.mean(-1).tolist(), abs=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_more_classes_than_a_byte_has_bits():
    model = model_of("cls").with_class_embeddings(torch.randn(24, 21, generator=torch.Generator().manual_seed(3)))
    tables, activated = MemoryTables(model, "mlp", k=2), torch.tensor([[[3, 11, 59]]])
    expected = [any(m in (3, 11, 59) for m in tables.memories_of_class[1][c].tolist()) for c in range(21)]
    assert float(tables.random_agreement(1, activated)) == pytest.approx(sum(expected) / 21)


def test_the_store_notices_another_model_and_edits_in_place():
    model, store = HookedViT.from_timm(make_timm("cls", 1)), TableStore()
    first = store.tables(model, "mlp")
    assert store.tables(model, "mlp") is first
    assert store.tables(model, "attn") is not first
    with torch.no_grad():
        model.blocks[1].mlp.W_out[9] = 50 * model.W_U[:, 4]
    edited = store.tables(model, "mlp")
    assert edited is not first
    assert int(edited.class_of_memory[1, 9]) == 4
    assert store.tables(HookedViT.from_timm(make_timm("cls", 2)), "mlp") is not edited


def test_copies_of_a_store_are_empty():
    model, store = model_of("cls"), TableStore()
    tables = store.tables(model, "mlp")
    for other in (copy.deepcopy(store), pickle.loads(pickle.dumps(store))):
        assert other.tables(model, "mlp") is not tables


def test_tables_of_weights_without_edit_counts_are_not_kept():
    with torch.inference_mode():
        model = HookedViT.from_timm(make_timm("cls", 1))
    store = TableStore()
    if any(weight.is_inference() for weight in model.parameters()):
        assert store.tables(model, "mlp") is not store.tables(model, "mlp")


def test_errors():
    with pytest.raises(ValueError, match="k must be from 1 to the number of memories, 24, got 25"):
        MemoryTables(model_of("cls"), "attn", k=25)

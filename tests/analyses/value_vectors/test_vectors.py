"""Value vectors, against rows picked one at a time; tables against sorted logits."""

import pytest
import torch
from analysis_batches import model_of

from analyses.value_vectors.vectors import (
    block_index,
    check_k,
    memory_indices,
    n_memories,
    read_by_head,
    top_classes,
    top_memories,
    value_logits,
    value_vectors,
)


def slow_rows(model, layer, sublayer, layer_scale=False):
    block = model.blocks[layer]
    if sublayer == "mlp":
        rows, scale = [block.mlp.out.weight[:, i] for i in range(model.cfg.d_mlp)], block.mlp_ls
    else:
        rows = [block.attn.W_O[head, i] for head in range(model.cfg.n_heads) for i in range(model.cfg.d_head)]
        scale = block.ls1
    return [row * scale if layer_scale and scale is not None else row for row in rows]


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
@pytest.mark.parametrize("layer_scale", [False, True])
def test_rows_and_logits_match_the_loop(kind, sublayer, layer_scale):
    model = model_of(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for layer in range(3):
        rows = slow_rows(model, layer, sublayer, layer_scale)
        torch.testing.assert_close(value_vectors(model, layer, sublayer, layer_scale=layer_scale), torch.stack(rows))
        logits = value_logits(model, layer, sublayer, layer_scale=layer_scale)
        cosines = value_logits(model, layer, sublayer, layer_scale=layer_scale, unit_length=True)
        assert logits.shape == cosines.shape == (len(rows), 7)
        for memory in (0, 5, len(rows) - 1):
            read = read_by_head(model, rows[memory])
            for label in range(7):
                direction = model.W_U[:, label]
                torch.testing.assert_close(logits[memory, label], read @ direction, rtol=1e-4, atol=1e-5)
                cosine = read @ direction / (read.norm() * direction.norm())
                torch.testing.assert_close(cosines[memory, label], cosine, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_layer_scale_applies_where_the_block_has_one():
    model = model_of("gap_registers_layerscale")
    assert not torch.equal(value_vectors(model, 1), value_vectors(model, 1, layer_scale=True))
    model = model_of("cls")
    assert torch.equal(value_vectors(model, 1), value_vectors(model, 1, layer_scale=True))


def test_the_head_reads_vectors_unchanged_unless_it_pools_by_attention():
    vectors = torch.randn(4, 24, generator=torch.Generator().manual_seed(0))
    assert read_by_head(model_of("distilled"), vectors) is vectors
    model = model_of("map")
    torch.testing.assert_close(
        read_by_head(model, vectors) @ model.W_U, model.class_logits(vectors, normalise=False, bias=False)
    )


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
def test_tables_are_sorted_logits_with_names(sublayer):
    model = model_of("cls")
    logits = value_logits(model, 1, sublayer)
    table = top_classes(model, -2, [3, 17], sublayer, k=4)
    assert table["layer"].unique().tolist() == [1]
    for memory in (3, 17):
        rows, order = table[table["memory"] == memory], sorted(range(7), key=lambda c: -logits[memory, c].item())
        assert rows["class_index"].tolist() == order[:4]
        assert rows["class_name"].tolist() == [model.class_names[c] for c in order[:4]]
        assert rows["logit"].tolist() == pytest.approx([logits[memory, c].item() for c in order[:4]])
        if sublayer == "attn":
            assert set(zip(rows["head"], rows["dimension"], strict=True)) == {(memory // 8, memory % 8)}
        else:
            assert rows[["head", "dimension"]].isna().all(axis=None)
    table = top_memories(model, 1, [6, "class 2"], sublayer, k=3)
    for label in (6, 2):
        order = sorted(range(len(logits)), key=lambda m: -logits[m, label].item())
        assert table[table["class_index"] == label]["memory"].tolist() == order[:3]


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
def test_every_memory_has_a_value_vector(kind, sublayer):
    model = model_of(kind)
    assert n_memories(model.cfg, sublayer) == len(value_vectors(model, 0, sublayer))


def test_k_is_from_one_to_the_number_of_choices():
    check_k(1, 3, "classes")
    check_k(3, 3, "classes")
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k must be from 1 to the number of classes, 3, got {k}"):
            check_k(k, 3, "classes")


def test_errors(bad_input):
    model = model_of("cls")
    with pytest.raises(ValueError, match="expected sublayer 'mlp' or 'attn', got 'heads'"):
        n_memories(model.cfg, "heads")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"expected a layer from 0 to 2 .*, got 3"):
        block_index(model.cfg, 3)
    with pytest.raises(ValueError, match="expected sublayer 'mlp' or 'attn', got 'heads'"):
        value_vectors(model, 0, "heads")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"expected neurons from 0 to 59, got \[60\]"):
        top_classes(model, 0, [1, 60])
    with pytest.raises(ValueError, match=r"expected memories \(head \* 8 \+ dimension\) from 0 to 23, got \[-1\]"):
        memory_indices(model.cfg, "attn", [-1])
    with pytest.raises(ValueError, match="k must be from 1 to the number of classes, 7, got 8"):
        top_classes(model, 0, [1], k=8)
    with pytest.raises(ValueError, match="k must be from 1 to the number of memories, 24, got 25"):
        top_memories(model, 0, [1], "attn", k=25)
    for single in (2, "class 2"):
        with pytest.raises(ValueError, match=rf"classes is a list, got {single!r}: pass classes=\[{single!r}\]"):
            top_memories(model, 0, single)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"memories is a list, got 4: pass memories=\[4\]"):
        top_classes(model, 0, 4)  # pyright: ignore[reportArgumentType]

"""Edits of memories, against edits of the output by hand; means against a loop."""

import pytest
import torch
from analysis_batches import batch_of, model_of

from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.memory_pairs.interventions import MemoryMeans, edit_memories, intervention_name
from analyses.value_vectors.vectors import value_vectors

MEMORIES = torch.tensor([[3, 17, 3], [20, 4, 11]])


def images():
    return torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
@pytest.mark.parametrize("factor", [0, 3.5])
def test_an_edit_changes_the_output_of_the_memories(kind, sublayer, factor):
    model = model_of(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        _, cache = model.run_with_cache(images())
        with model.hooks(fwd_hooks=edit_memories(model, 1, MEMORIES, sublayer, factor=factor)):
            _, edited = model.run_with_cache(images())
    coefficients = memory_coefficients(model, cache, 1, sublayer, "post").clone()
    for image, chosen in enumerate(MEMORIES.tolist()):
        for memory in set(chosen):
            coefficients[image, :, memory] *= factor
    torch.testing.assert_close(memory_coefficients(model, edited, 1, sublayer, "post"), coefficients)
    block = model.blocks[1]
    if not block.post_norm:
        values = value_vectors(model, 1, sublayer, layer_scale=True)
        change = (coefficients - memory_coefficients(model, cache, 1, sublayer, "post")) @ values
        expected = cache[f"{sublayer}_out", 1] + change
        torch.testing.assert_close(edited[f"{sublayer}_out", 1], expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_factors_per_image_and_means():
    model = model_of("cls")
    with torch.no_grad():
        _, cache = model.run_with_cache(images())
        hooks = edit_memories(model, 2, MEMORIES, factor=torch.tensor([1.0, 0.0]))
        with model.hooks(fwd_hooks=hooks):
            _, edited = model.run_with_cache(images())
        means = torch.randn(13, 60)
        with model.hooks(fwd_hooks=edit_memories(model, 2, MEMORIES, means=means)):
            _, at_means = model.run_with_cache(images())
    post = "blocks.2.mlp.hook_post"
    assert torch.equal(edited[post][0], cache[post][0])
    assert not edited[post][1][:, [20, 4, 11]].any()
    assert torch.equal(at_means[post][0][:, [3, 17]], means[:, [3, 17]])
    assert torch.equal(at_means[post][1][:, 5], cache[post][1][:, 5])


def test_means_match_the_loop_and_merge():
    for sublayer in ("mlp", "attn"):
        whole, shard, other = (MemoryMeans(sublayer) for _ in range(3))
        batches = [batch_of("gap_registers_layerscale", [whole], index=index) for index in ([0, 1, 2], [3, 4])]
        for batch in batches:
            whole.update(batch)
        shard.update(batches[0])
        other.update(batches[1])
        shard.merge_state(other)
        for layer in range(3):
            all_images = torch.cat([memory_coefficients(b.model, b.cache, layer, sublayer, "post") for b in batches])
            torch.testing.assert_close(whole.means()[layer], all_images.mean(0))
        assert torch.equal(shard.means(), whole.means())
        table = whole.compute()
        expected = whole.means()[1].mean(0)[7].item()
        assert table.query("layer == 1 and memory == 7")["value"].item() == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_errors():
    model = model_of("cls")
    with pytest.raises(ValueError, match="expected memories from 0 to 23, got 3 to 24"):
        edit_memories(model, 0, torch.tensor([[3, 24]]), "attn")
    with pytest.raises(ValueError, match="memories were chosen for 1 images, but the batch has 2"):
        model.run_with_hooks(images(), fwd_hooks=edit_memories(model, 0, torch.tensor([[3]])))
    with pytest.raises(ValueError, match=r"expected 'zero', 'mean' or a factor such as 3.0, got 'none'"):
        intervention_name("none")
    with pytest.raises(ValueError, match="no image was seen"):
        MemoryMeans().compute()

"""The causal test, against one run per image, block, choice and k, with the activations edited by hand."""

import pandas as pd
import pytest
import torch
from analysis_batches import batch_of, model_of

from analyses.memory_pairs.causal import CausalMemories
from analyses.memory_pairs.choices import ChoiceDraws
from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.memory_pairs.interventions import MemoryMeans
from analyses.statistics import Resampling
from analyses.statistics.hypothesis_tests import permutation_test
from analyses.value_vectors.vectors import n_memories, value_logits


def slow_effect(batch, layer, chosen, sublayer, change):
    """Logits [image class] after a change of each image's chosen memories in one block, in a separate run."""
    name = f"blocks.{layer}.mlp.hook_post" if sublayer == "mlp" else f"blocks.{layer}.attn.hook_z"
    logits = []
    for image in range(len(batch.labels)):

        def edit(activation, hook, image=image):
            flat = activation.flatten(2).clone()
            for memory in chosen[image]:
                flat[:, :, memory] = change(flat[:, :, memory], memory)
            return flat.view(activation.shape)

        residual = batch.cache[f"blocks.{layer}.hook_resid_pre"][image : image + 1]
        with batch.model.hooks(fwd_hooks=[(name, edit)]), torch.no_grad():
            logits.append(batch.model(residual, start_at_layer=layer)[0])
    return torch.stack(logits)


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
def test_effects_match_single_runs(kind, sublayer):
    analysis = CausalMemories(
        sublayer, layers=[0, 2], ks=[1, 4], interventions=["zero", 2.5], resampling=Resampling(9, seed=3), seed=3
    )
    batch = batch_of(kind, [analysis], index=[6, 2, 9])
    before = {name: value.clone() for name, value in batch.model.state_dict().items()}
    analysis.update(batch)
    table = analysis.compute()
    assert all(torch.equal(value, before[name]) for name, value in batch.model.state_dict().items())
    images, labels = torch.arange(3), batch.labels
    total = n_memories(batch.model.cfg, sublayer)
    other = ChoiceDraws.of_images(batch.index, labels, 7, 3, total, seed=3).other
    for layer in (0, 2):
        values = value_logits(batch.model, layer, sublayer)
        written = memory_coefficients(batch.model, batch.cache, layer, sublayer, "post").sum(1)
        for k in (1, 4):
            choices = {
                "aligned": values[:, labels].topk(k, dim=0).indices.T,
                "aligned_other": values[:, other].topk(k, dim=0).indices.T,
                "contribution": (written * values[:, labels].T).topk(k).indices,
                "contribution_other": (written * values[:, other].T).topk(k).indices,
            }
            for name, chosen in choices.items():
                for intervention, factor in (("zero", 0.0), ("x2.5", 2.5)):
                    logits = slow_effect(batch, layer, chosen.tolist(), sublayer, lambda x, _, f=factor: x * f)
                    at = f"layer == {layer} and k == {k} and memories == '{name}' and intervention == '{intervention}'"
                    rows = table.query(f"{at} and against.isna()").set_index("metric")["value"]
                    largest = [
                        [
                            max(v for c, v in enumerate(row) if c != label)
                            for row, label in zip(run_logits.tolist(), labels.tolist(), strict=True)
                        ]
                        for run_logits in (batch.logits, logits)
                    ]
                    expected = {
                        "label_logit": (logits - batch.logits)[images, labels].mean(),
                        "other_logit": (logits - batch.logits)[images, other].mean(),
                        "label_margin": ((logits - batch.logits)[images, labels]
                                         - torch.tensor(largest[1]) + torch.tensor(largest[0])).mean(),
                        "accuracy": 100 * ((logits.argmax(-1) == labels).float()
                                           - (batch.logits.argmax(-1) == labels).float()).mean(),
                        "says_other": 100 * ((logits.argmax(-1) == other).float()
                                             - (batch.logits.argmax(-1) == other).float()).mean(),
                    }  # fmt: skip
                    for metric, value in expected.items():
                        assert rows[metric] == pytest.approx(float(value), abs=2e-4), (name, metric, at)


def test_mean_ablation_sets_means():
    means = MemoryMeans("mlp")
    means.update(batch_of("cls", [means], index=range(4)))
    analysis = CausalMemories(layers=[1], ks=[2], interventions=["mean"], means=means.means(), resampling=Resampling(9))
    batch = batch_of("cls", [analysis], index=[0, 1])
    analysis.update(batch)
    chosen = value_logits(batch.model, 1)[:, batch.labels].topk(2, dim=0).indices.T.tolist()
    logits = slow_effect(batch, 1, chosen, "mlp", lambda _, memory: means.means()[1, :, memory])
    row = analysis.compute().query("memories == 'aligned' and against.isna() and metric == 'label_logit'").iloc[0]
    expected = (logits - batch.logits)[torch.arange(2), batch.labels].mean()
    assert row["value"] == pytest.approx(float(expected), abs=1e-4)
    assert row["intervention"] == "mean"


def test_comparisons_are_paired_tests_on_images():
    analysis = CausalMemories(layers=[2], ks=[3], resampling=Resampling(50, seed=1), seed=1)
    analysis.update(batch_of("cls", [analysis], index=range(6)))
    table = analysis.compute()
    effect = torch.cat(analysis.effect).view(6, 5, 5)  # image, choice, metric
    for name, against, a, b in (("aligned", "random", 0, 4), ("contribution", "contribution_other", 2, 3)):
        row = table.query(f"memories == '{name}' and against == '{against}' and metric == 'label_logit'").iloc[0]
        x, y = effect[:, a, 0].double().numpy(), effect[:, b, 0].double().numpy()
        expected = permutation_test(x, y, paired=True, n_resamples=50, seed=1)
        assert (row["value"], row["p_value"]) == pytest.approx((expected.difference, expected.p_value))
        assert row["low"] <= row["value"] <= row["high"]


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_shards_merge_and_batch_sizes_do_not_matter(monkeypatch):
    whole, shards = (
        CausalMemories(ks=[2], resampling=Resampling(9)),
        [CausalMemories(ks=[2], resampling=Resampling(9)) for _ in range(2)],
    )
    whole.update(batch_of("swiglu_packed", [whole], index=range(5)))
    for shard, index in zip(shards, ([3, 4], [0, 1, 2]), strict=True):
        shard.update(batch_of("swiglu_packed", [whole], index=index))
    merged = CausalMemories(ks=[2], resampling=Resampling(9))
    for shard in reversed(shards):
        merged.merge_state(shard)
    pd.testing.assert_frame_equal(merged.compute(), whole.compute(), atol=1e-4)
    monkeypatch.setattr("analyses.memory_pairs.causal.IMAGES_ON_CPU", 1)
    one_by_one = CausalMemories(ks=[2], resampling=Resampling(9))
    one_by_one.update(batch_of("swiglu_packed", [whole], index=range(5)))
    pd.testing.assert_frame_equal(one_by_one.compute(), whole.compute(), atol=1e-4)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_errors(bad_input):
    with pytest.raises(ValueError, match="'mean' needs means: sweep `MemoryMeans"):
        CausalMemories(interventions=["mean"])
    with pytest.raises(ValueError, match=r"expected ks from 1 on and interventions, got \[0\] and \['zero'\]"):
        CausalMemories(ks=[0])
    with pytest.raises(ValueError, match="no image was seen"):
        CausalMemories().compute()
    with pytest.raises(ValueError, match=r"expected a layer from 0 to 2 .*, got 3"):
        CausalMemories(layers=[3]).names(model_of("cls").cfg)

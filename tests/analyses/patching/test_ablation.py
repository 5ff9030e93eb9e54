"""The ablation study against a loop of whole runs with hooks; its shards add up."""

import pandas as pd
import pytest
import torch
from analysis_batches import batch_of, model_of

from analyses.patching.ablation import AblationStudy
from analyses.projection import class_ranks
from analyses.statistics import Resampling
from hooked_vit.interventions import edit, mean_activations


def images_of(index: list[int]) -> torch.Tensor:
    from analysis_batches import _item

    return torch.stack([_item(i)[0] for i in index])


@torch.no_grad()
def slow(kind: str, index: list[int], labels: torch.Tensor, replacement: dict | None) -> dict[tuple, torch.Tensor]:
    """[image metric] of a whole run per component; `replacement` is what replaces it, by hook point; zero without."""
    model, images = model_of(kind), images_of(index)
    patches = slice(model.cfg.token_layout.n_prefix, None)

    def outcome(hooks: list) -> torch.Tensor:
        with model.hooks(fwd_hooks=hooks):
            logits, cache = model.run_with_cache(images, names_filter=("resid_post", -1))
        ranks = []
        for image, label in enumerate(labels):
            patch_logits = model.class_logits(cache["resid_post", -1][image, patches])
            ranks.append(class_ranks(patch_logits, label.expand(len(patch_logits))).float().mean())
        accuracy = 100.0 * (logits.argmax(-1) == labels)
        return torch.stack([accuracy, logits[torch.arange(len(labels)), labels], 1 - torch.stack(ranks) / 7], dim=1)

    found = {("none",): outcome([])}
    for layer in range(3):
        for head in range(model.cfg.n_heads):
            found["head", layer, head] = outcome(
                edit(model, ("z", layer), lambda x, name: 0.0 if replacement is None else replacement[name], heads=head)
            )
        found["mlp", layer] = outcome(
            edit(model, ("mlp_out", layer), lambda x, name: 0.0 if replacement is None else replacement[name])
        )
    return found


@pytest.mark.parametrize("method", ["zero", "mean"])
def test_every_component_matches_whole_runs(kind: str, method: str) -> None:
    index = [0, 1, 2, 3]
    analysis = AblationStudy(method, min_images=2, memory_limit=1e6, resampling=Resampling(9))
    batch = batch_of(kind, [analysis], index)
    analysis.update(batch)
    table = analysis.compute()
    means = mean_activations(model_of(kind), [images_of(index)], ["z", "mlp_out"]) if method == "mean" else None
    expected = slow(kind, index, batch.labels, means)
    whole = table[table["class_index"].isna()]
    assert len(whole) == 3 * (batch.model.cfg.n_heads + 1) * 3
    for row in whole.itertuples():
        key = (row.component, row.layer) if row.component == "mlp" else (row.component, row.layer, row.head)
        i = ["accuracy", "label_logit", "identifiability"].index(row.metric)
        assert row.before == pytest.approx(expected["none",][:, i].mean().item(), abs=1e-4)
        assert row.after == pytest.approx(expected[key][:, i].mean().item(), abs=1e-4), key
        assert row.value == pytest.approx(row.after - row.before)
        assert row.low <= row.value + 1e-9
        assert row.value <= row.high + 1e-9
    by_class = table[table["class_index"].notna()]
    for row in by_class[by_class["component"] == "mlp"].itertuples():
        members = batch.labels == row.class_index
        assert row.n_images == int(members.sum())
        assert row.after == pytest.approx(expected["mlp", row.layer][members, 0].mean().item(), abs=1e-4)


def test_means_of_other_images() -> None:
    model = model_of("cls")
    means = mean_activations(model, [images_of([7, 8, 9])], ["z", "mlp_out"])
    analysis = AblationStudy(means=means, resampling=Resampling(9))
    batch = batch_of("cls", [analysis], [0])
    analysis.update(batch)
    table = analysis.compute()
    expected = slow("cls", [0], batch.labels, means)
    row = table[(table["component"] == "head") & (table["metric"] == "label_logit") & (table["layer"] == 1)].iloc[2]
    assert row["after"] == pytest.approx(expected["head", 1, 2][0, 1].item(), abs=1e-5)


def test_shards_add_up_in_any_order() -> None:
    def run(parts: list[list[int]]) -> pd.DataFrame:
        analysis = AblationStudy("zero", resampling=Resampling(9))
        for part in parts:
            analysis.update(batch_of("post_norm", [analysis], part))
        return analysis.compute()

    pd.testing.assert_frame_equal(run([[0, 1], [2, 3]]), run([[2, 3], [0, 1]]))


def test_batches_too_small_for_a_mean_are_not_counted() -> None:
    analysis = AblationStudy(min_images=3, resampling=Resampling(9))
    analysis.update(batch_of("cls", [analysis], [0, 1, 2]))
    analysis.update(batch_of("cls", [analysis], [3, 4]))
    assert set(analysis.compute().query("class_index.isna()")["n_images"]) == {3}


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    with pytest.raises(ValueError, match="expected method 'mean' or 'zero', got 'resample'"):
        AblationStudy("resample")
    analysis = AblationStudy()
    analysis.update(batch_of("cls", [analysis], [0, 1]))
    with pytest.raises(
        ValueError, match="no image was counted: give update batches of at least 8 images, or pass means"
    ):
        analysis.compute()
    wrong = AblationStudy(means={})
    with pytest.raises(
        ValueError, match=r"means must hold 'blocks.0.attn.hook_z' of shape \(13, 3, 8\): make them with"
    ):
        wrong.update(batch_of("cls", [wrong], [0, 1]))
    batch = batch_of("cls", [analysis], [0, 1])
    with (
        model_of("cls").hooks(fwd_hooks=[(("z", 0), lambda z, hook: z)]),
        pytest.raises(ValueError, match=r"the model has a hook on 'blocks.0.attn.hook_z'"),
    ):
        AblationStudy("zero").update(batch)

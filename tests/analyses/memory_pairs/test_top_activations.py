"""Top activations, against sorting every coefficient of every image and token."""

import pandas as pd
import pytest
import torch
from analysis_batches import batch_of

from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.memory_pairs.top_activations import TopActivations, images_at
from hooked_vit import HookedViT


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
@pytest.mark.parametrize("patches_only", [False, True])
def test_matches_sorting_all_images(kind, sublayer, patches_only):
    analysis = TopActivations(-1, [5, 19], sublayer, k=3, patches_only=patches_only)
    batches = [batch_of(kind, [analysis], index=index) for index in ([0, 1], [2, 3, 4, 5, 6])]
    for batch in batches:
        analysis.update(batch)
    table, layout = analysis.compute(), batches[0].model.token_layout
    for memory in (5, 19):
        best = []
        for batch in batches:
            values = memory_coefficients(batch.model, batch.cache, 2, sublayer, "post")[..., memory]
            for i, image_values in enumerate(values):
                tokens = range(layout.n_prefix if patches_only else 0, layout.n_tokens)
                token = max(tokens, key=lambda t: image_values[t].item())
                best.append((image_values[token].item(), int(batch.index[i]), token, int(batch.labels[i])))
        best = sorted(best, key=lambda row: -row[0])[:3]
        rows = table[table["memory"] == memory]
        assert rows["place"].tolist() == [1, 2, 3]
        assert rows["value"].tolist() == pytest.approx([row[0] for row in best])
        assert rows["index"].tolist() == [row[1] for row in best]
        assert rows["label"].tolist() == [row[3] for row in best]
        for (_, _, token, _), row in zip(best, rows.to_dict("records"), strict=True):
            assert row["token_type"] == layout.token_types[token]
            if token >= layout.n_prefix:
                assert (row["row"], row["column"]) == divmod(token - layout.n_prefix, layout.grid[1])
            else:
                assert pd.isna(row["row"])


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_shards_merge_to_one_pass():
    whole, shards = TopActivations(1, [3, 4], k=2), [TopActivations(1, [3, 4], k=2) for _ in range(2)]
    for shard, index in zip(shards, ([3, 4, 5], [0, 1, 2]), strict=True):
        batch = batch_of("dynamic", [whole], index=index)
        whole.update(batch)
        shard.update(batch)
    merged = TopActivations(1, [3, 4], k=2)
    for shard in shards:
        merged.merge_state(shard)
    pd.testing.assert_frame_equal(merged.compute(), whole.compute(), check_exact=True)


def test_the_state_grows_with_k_and_not_with_the_batch():
    analysis = TopActivations(1, [3, 4], k=2)
    analysis.update(batch_of("cls", [analysis], index=range(9)))
    assert [tuple(kept.shape) for kept in analysis.activation] == [(2, 2)]


def test_images_come_from_the_dataset():
    model, scenes = HookedViT.from_pretrained("emoji-vit"), EmojiScenes(9, seed=3)
    images = images_at(model, scenes, [7, 2])
    assert torch.equal(images, torch.stack([scenes[7][0], scenes[2][0]]))


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_errors():
    with pytest.raises(ValueError, match=r"at least one memory and one image, got \[\] and k = 9"):
        TopActivations(0, [])
    with pytest.raises(ValueError, match="no image was seen"):
        TopActivations(0, [1]).compute()
    analysis = TopActivations(0, [60])
    batch = batch_of("cls", [analysis])
    with pytest.raises(ValueError, match=r"expected neurons from 0 to 59, got \[60\]"):
        analysis.update(batch)

"""Pooled features equal loops over images and tokens; all kinds of features encode what their definition says."""

import pytest
import torch
from dictionary_toys import KINDS, items, toy, toy_dictionary
from torch.nn import functional as F

from analyses.dictionaries import (
    Features,
    latent_features,
    neuron_features,
    pca_features,
    pool_features,
    value_vector_features,
)
from analyses.dictionaries.scores.pooling import halves
from analyses.value_vectors import value_vectors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_pooled_features_equal_the_loop(kind: str, pooling: str) -> None:
    model, point = toy(kind), "blocks.1.hook_resid_post"
    dictionary = toy_dictionary(model, point, tokens="patch")
    kinds = [latent_features(dictionary), neuron_features(model, -1), value_vector_features(model, 1, point)]
    pooled = pool_features(model, items(), kinds, pooling=pooling, batch_size=4)  # pyright: ignore[reportArgumentType]
    vectors = F.normalize(value_vectors(model, 1), dim=-1)
    for index, (image, label) in enumerate(items()):
        _, cache = model.run_with_cache(image[None], names_filter=[point, ("post", -1)])
        stream = cache[point][0]
        tokens = {
            "latents": [dictionary.encode(token) for token in stream[model.token_layout.patches]],
            "neurons": list(cache[f"blocks.{model.cfg.n_layers - 1}.mlp.hook_post"][0]),
            "value vectors": [torch.cat([vectors @ token, -(vectors @ token)]) for token in stream],
        }
        for name, rows in tokens.items():
            found = torch.stack(rows)
            expected = found.amax(dim=0) if pooling == "max" else found.mean(dim=0)
            torch.testing.assert_close(pooled[name].values[index].float(), expected, rtol=2e-3, atol=2e-3)
        assert pooled["latents"].labels[index] == label
    assert pooled["latents"].index.tolist() == list(range(6))
    assert pooled["latents"].live.tolist() == [len(set(v.tolist())) > 1 for v in pooled["latents"].values.T]


def test_principal_components_are_those_of_all_tokens() -> None:
    model, point = toy("gap_registers_layerscale"), "blocks.0.hook_mlp_out"
    pca = pca_features(model, items(), point, "register", batch_size=4)
    _, cache = model.run_with_cache(torch.stack([image for image, _ in items()]), names_filter=point)
    tokens = cache[point][:, :2].flatten(0, 1).double()
    centred = tokens - tokens.mean(dim=0)
    _, sizes, rows = torch.linalg.svd(centred, full_matrices=False)
    coordinates = pca.encode(tokens.float())
    assert coordinates.shape == (12, 48)
    assert torch.equal(coordinates[:, :24], -coordinates[:, 24:])
    n = int((sizes > 1e-4).sum())
    torch.testing.assert_close(coordinates[:, :n].abs(), (centred @ rows[:n].T).abs().float(), rtol=1e-3, atol=1e-4)


def test_half_precision_that_overflows_is_refused() -> None:
    model = toy("cls")
    large = Features("large", "blocks.0.hook_resid_post", lambda x: 1e6 * x.abs() + 1e6)
    with pytest.raises(ValueError, match=r"'large' reach .* which half precision cannot hold"):
        pool_features(model, items(), [large])


def test_errors_say_what_to_do(bad_input: None) -> None:
    model = toy("cls")
    neurons = neuron_features(model, 0)
    with pytest.raises(ValueError, match=r"different names, got \['neurons', 'neurons'\]"):
        pool_features(model, items(), [neurons, neurons])
    with pytest.raises(ValueError, match="pooling 'max' or 'mean', got 'sum'"):
        pool_features(model, items(), [neurons], pooling="sum")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="the model has no register token"):
        pool_features(model, items(), [neuron_features(model, 0, "register")])
    with pytest.raises(ValueError, match="at least one image"):
        pool_features(model, [], [neurons])
    with pytest.raises(ValueError, match="at least two images"):
        halves(1)
    assert neurons.called("others").name == "others"

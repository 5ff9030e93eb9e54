"""Every kind recovers planted features; a state continues to the same weights; what cannot be fitted is refused."""

import pytest
import torch

from analyses.dictionaries import (
    DictionaryConfig,
    DictionaryFit,
    FitOptions,
    PlantedFeatures,
    mean_max_cosine,
    random_dictionary,
)

PLANTED = PlantedFeatures(width=20, n_features=40, n_active=3)
KINDS = {
    "topk": ({"k": 3}, {}),
    "batch_topk": ({"k": 3}, {}),
    "matryoshka": ({"k": 3, "group_sizes": (24, 48)}, {}),
    "relu": ({}, {"penalty": 0.05}),
    "jump_relu": ({}, {"penalty": 0.02}),
}


def config(kind: str, d_out: int = 20, **changes) -> DictionaryConfig:
    writes = "hook_tokens" if d_out == 20 else "hook_embed"
    values = {**KINDS[kind][0], "normalisation": "mean_and_scale", **changes}
    return DictionaryConfig(kind, 20, d_out, 48, "hook_tokens", writes, **values)


@pytest.mark.parametrize("kind", KINDS)
def test_planted_features_are_recovered(kind: str) -> None:
    """40 features in 20 dimensions, 3 of them active at a time."""
    options = FitOptions(learning_rate=3e-3, dead_after=20_000, **KINDS[kind][1])
    fit, x = DictionaryFit(config(kind), options), PLANTED.draw(60_000, seed=1)
    fit.measure(x, x)
    for step in range(600):
        rows = x[step * 512 % 59_000 :][:512]
        fit.step(rows, rows, step / 600)
    dictionary, held_out = fit.dictionary(), PLANTED.draw(2000, seed=7)
    assert mean_max_cosine(PLANTED.directions, dictionary.directions.detach()) > 0.95
    null = random_dictionary(dictionary, k=3)
    assert mean_max_cosine(PLANTED.directions, null.directions.detach()) < 0.7
    torch.testing.assert_close(dictionary.W_dec.norm(dim=-1), torch.ones(48))
    with torch.no_grad():
        latents = dictionary.encode(held_out)
        unexplained = (held_out - dictionary.decode(latents)).var() / held_out.var()
    assert unexplained < 0.2
    n_active = float(latents.count_nonzero()) / 2000
    assert n_active == pytest.approx(3, abs=0.3) if "k" in KINDS[kind][0] else 2.5 < n_active < 12


@pytest.mark.parametrize("kind", ["batch_topk", "jump_relu"])
def test_a_transcoder_learns_a_map_between_activations(kind: str) -> None:
    sizes = PLANTED.sizes(30_000, seed=1)
    x, out = sizes @ PLANTED.directions, PlantedFeatures(13, 40, 3, seed=5).directions
    y = sizes @ out
    options = FitOptions(learning_rate=3e-3, dead_after=20_000, **KINDS[kind][1])
    fit = DictionaryFit(config(kind, d_out=13), options)
    fit.measure(x, y)
    losses = [fit.step(x[s : s + 512], y[s : s + 512], s / 30_000) for s in range(0, 29_000, 512) for _ in range(4)]
    assert losses[-1]["unexplained"] < 0.4 * losses[0]["unexplained"]
    with torch.no_grad():
        dictionary = fit.dictionary()
        found = (y[:2000] - dictionary(x[:2000])).var() / y.var()
    assert found == pytest.approx(losses[-1]["unexplained"], abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_continues_to_the_same_weights(kind: str) -> None:
    x, options = PLANTED.draw(4000, seed=2), FitOptions(dead_after=400, auxiliary_k=8)

    def steps(fit: DictionaryFit, first: int, last: int) -> None:
        for step in range(first, last):
            rows = x[100 * step : 100 * step + 100]
            fit.step(rows, rows, step / 30)

    whole = DictionaryFit(config(kind), options, seed=4)
    whole.measure(x, x)
    steps(whole, 0, 12)
    state = {name: tensor.clone() for name, tensor in whole.state().items()}
    steps(whole, 12, 30)
    other = DictionaryFit(config(kind), options, seed=9)
    other.load_state(state)
    steps(other, 12, 30)
    for name, tensor in whole.state().items():
        assert torch.equal(other.state()[name], tensor), name
    assert any(name.startswith("adam.dec.exp_avg") for name in state)


def test_the_threshold_is_the_mean_of_the_last_batches_smallest() -> None:
    """A short training: a mean of all batches, begun anew when a fifth of the training is left."""
    x, smallest = PLANTED.draw(4000, seed=2), []
    fit = DictionaryFit(config("batch_topk"), FitOptions(learning_rate=3e-3))
    fit.measure(x, x)
    for step in range(30):
        fit.step(x[100 * step : 100 * step + 100], x[100 * step : 100 * step + 100], step / 30)
        smallest.append(float(fit.state()["kept.last_smallest"]))
        threshold = float(fit.dictionary().threshold)
        from_here = smallest if step < 24 else smallest[24:]
        assert threshold == pytest.approx(sum(from_here) / len(from_here), rel=1e-5)


def test_a_long_average_forgets() -> None:
    fit = DictionaryFit(config("batch_topk"))
    for value in [1.0] * 100 + [2.0]:
        fit._average(value, progress=0.5)
    assert float(fit.state()["kept.threshold_average"]) == pytest.approx(1.01)


def test_a_checkpoint_of_an_earlier_version_is_refused() -> None:
    fit, x = DictionaryFit(config("topk")), PLANTED.draw(64, seed=0)
    fit.measure(x, x)
    fit.step(x, x)
    state = {name: tensor for name, tensor in fit.state().items() if name != "kept.n_averaged"}
    with pytest.raises(ValueError, match="of an earlier version and has no n_averaged: start over with resume=False"):
        DictionaryFit(config("topk")).load_state(state)


def test_dead_latents_come_back() -> None:
    def dead(auxiliary: float) -> float:
        options = FitOptions(learning_rate=3e-3, dead_after=3000, auxiliary=auxiliary, auxiliary_k=16)
        fit, x = DictionaryFit(config("topk"), options), PLANTED.draw(30_000, seed=1)
        fit._parameters["b_enc"].data[:30] = -3.0
        fit.measure(x, x)
        return [fit.step(x[s : s + 256], x[s : s + 256], 0.5)["dead"] for s in range(0, 29_000, 256)][-1]

    assert dead(auxiliary=1 / 32) < 0.5 * dead(auxiliary=0.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"learning_rate": -1e-3}, "learning_rate must be above 0, got -0.001"),
        ({"bandwidth": 0.0}, "bandwidth must be above 0, got 0.0"),
        ({"penalty": -0.1}, "penalty must be 0 or more, got -0.1"),
        ({"penalty": float("nan")}, "penalty must be 0 or more, got nan"),
        ({"decay": 1.5}, "decay is a share of the training, from 0 to 1, got 1.5"),
        ({"auxiliary_k": 0}, "auxiliary_k must be above 0, got 0"),
    ],
)
def test_options_outside_their_range_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitOptions(**values)


def test_weights_that_are_not_finite_are_never_a_dictionary() -> None:
    fit = DictionaryFit(config("topk"))
    fit._parameters["b_enc"].data[3] = torch.inf
    with pytest.raises(ValueError, match=r"weights that are not finite \(b_enc\): lower the learning rate"):
        fit.dictionary()


def test_what_cannot_be_fitted_is_refused() -> None:
    fit, x = DictionaryFit(config("relu")), PLANTED.draw(64, seed=0)
    with pytest.raises(ValueError, match="no activations to train on"):
        fit.measure(x[:0], x[:0])
    with pytest.raises(ValueError, match="the activations of 'hook_tokens' do not vary"):
        fit.measure(torch.ones(5, 20), x[:5])
    with pytest.raises(ValueError, match="the activations of 'hook_tokens' are not finite"):
        fit.measure(torch.full((5, 20), torch.nan), x[:5])
    fit.measure(x, x)
    before = {name: tensor.clone() for name, tensor in fit.state().items()}
    with pytest.raises(ValueError, match="the loss became nan: lower the learning rate"):
        fit.step(torch.full((5, 20), torch.nan), torch.full((5, 20), torch.nan))
    assert all(torch.equal(fit.state()[name], tensor) for name, tensor in before.items())
    fit._parameters["b_enc"].data.fill_(-100)
    for _ in range(2):
        fit._kept["inactive_for"].fill_(99_980)
        fit.step(x[:10], x[:10])
    fit._kept["inactive_for"].fill_(100_000)
    with pytest.raises(ValueError, match="all 48 latents are dead: none was active in the last 100000 activations"):
        fit.step(x, x)
    with pytest.raises(ValueError, match="a fit measures mean and scale, got normalisation='none'"):
        DictionaryFit(config("relu", normalisation="none"))

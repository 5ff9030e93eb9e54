"""Random dictionaries fitted to activations have the size of least squares, found here by search and by loop."""

from dataclasses import replace

import pytest
import torch

from analyses.dictionaries import Dictionary, DictionaryConfig, explained_variance, random_dictionary


def like(d_out: int = 11, **changes) -> Dictionary:
    writes = "hook_tokens" if d_out == 11 else "hook_embed"
    config = DictionaryConfig("topk", 11, d_out, 40, "hook_tokens", writes, k=6, normalisation="mean_and_scale")
    made = Dictionary(replace(config, **changes))
    if made.config.normalisation != "none":
        made.in_mean.fill_(3.0)
        made.out_mean.fill_(3.0)
        made.in_scale.fill_(2.0)
        made.out_scale.fill_(2.0)
    return made.requires_grad_(False)


X = 3 + 2 * torch.randn(9, 7, 11, generator=torch.Generator().manual_seed(1))


def test_the_size_is_that_of_least_squares() -> None:
    plain, fitted = random_dictionary(like()), random_dictionary(like(), activations=X)
    target, sizes = X.flatten(0, 1) - 3, plain(X).flatten(0, 1) - 3
    above = sum(float(t @ r) for t, r in zip(target, sizes, strict=True))
    factor = above / sum(float(r @ r) for r in sizes)
    torch.testing.assert_close(fitted(X), 3 + factor * (plain(X) - 3), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fitted.W_dec, plain.W_dec)
    found = float(explained_variance(X, fitted(X)))
    assert found > float(explained_variance(X, plain(X))) + 0.1
    for other in (0.0, 0.9 * factor, 1.1 * factor):
        assert found > float(explained_variance(X, 3 + other * (plain(X) - 3)))
    assert (fitted.encode(X).count_nonzero(dim=-1) == 6).all()


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_transcoder_has_the_better_sign(seed: int) -> None:
    y = 3 + (X - 3) @ torch.randn(11, 5, generator=torch.Generator().manual_seed(2))
    crossing = like(d_out=5)
    plain, fitted = random_dictionary(crossing, seed), random_dictionary(crossing, seed, activations=X, targets=y)
    sizes = plain(X) - 3
    factor = float(((y - 3) * sizes).sum() / sizes.square().sum())
    torch.testing.assert_close(fitted(X), 3 + factor * sizes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fitted.W_dec.norm(dim=-1), torch.ones(40))
    assert (fitted.encode(X).count_nonzero(dim=-1) == 6).all()


def test_a_dictionary_without_a_normalisation_is_centred() -> None:
    """Far from zero, directions through the origin explain nothing."""
    x, bare = X + 50, like(normalisation="none")
    fitted = random_dictionary(bare, activations=x)
    torch.testing.assert_close(fitted.in_mean, x.mean(dim=(0, 1)))
    assert float(explained_variance(x, fitted(x))) > 0.2
    assert bare.config.normalisation == "none"


def test_what_it_cannot_be_fitted_to_is_refused(bad_input: None) -> None:
    with pytest.raises(ValueError, match=r"for a transcoder .* got activations and no targets"):
        random_dictionary(like(d_out=5), activations=X)
    with pytest.raises(ValueError, match="got activations and targets"):
        random_dictionary(like(), activations=X, targets=X)
    with pytest.raises(ValueError, match="got no activations and targets"):
        random_dictionary(like(), targets=X)
    for x in (torch.full((4, 11), 3.0), torch.full((4, 11), torch.nan), X[:0]):
        with pytest.raises(ValueError, match="do not vary or are not finite"):
            random_dictionary(like(), activations=x)

"""Attribution over latents: gradients of a loop, estimates that approach exact patching, and exact patching by hand."""

import pytest
import torch
from dictionary_toys import KINDS, items, toy, toy_dictionary

from analyses.dictionaries import latent_attribution, latent_patching
from analyses.patching import logit_difference

POINTS = [("blocks.1.hook_resid_post", None, "any"), ("blocks.0.hook_mlp_in", "blocks.0.hook_mlp_out", "patch"),
          ("blocks.1.attn.hook_z", None, "any")]  # fmt: skip
METRIC = logit_difference([2, 5], against=[1, 0])


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.stack([image for image, _ in items()[:4]])
    return images[:2], images[2:]


def nodes(model, dictionary, images):
    """What a dictionary makes of images: written rows, latents, error, with heads flattened."""
    config = dictionary.config
    _, cache = model.run_with_cache(images, names_filter=[config.reads, config.writes])
    written = cache[config.writes].flatten(2)
    latents = dictionary.encode(cache[config.reads].flatten(2))
    return written, latents, written - dictionary.decode(latents)


def patched(model, dictionary, images, change) -> float:
    """The metric when the dictionary's tokens are changed by hand."""
    first = model.token_layout.n_prefix if dictionary.tokens == "patch" else 0

    def hook(activation, hook):
        rows = activation.flatten(2).clone()
        rows[:, first:] = rows[:, first:] + change[:, first:]
        return rows.reshape(activation.shape)

    return float(METRIC(model.run_with_hooks(images, fwd_hooks=[(dictionary.config.writes, hook)])))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", POINTS, ids=["stream", "transcoder", "heads"])
def test_estimates_are_derivatives_and_patching_is_exact(kind: str, point: tuple) -> None:
    model = toy(kind)
    dictionary = toy_dictionary(model, *point)
    clean, corrupt = pair()
    _, latents, error = nodes(model, dictionary, clean)
    _, other_latents, other_error = nodes(model, dictionary, corrupt)
    found = latent_attribution(model, clean, corrupt, METRIC, dictionary, by_token=True)
    assert float(found.clean) == pytest.approx(float(METRIC(model(clean))))
    assert float(found.corrupt) == pytest.approx(float(METRIC(model(corrupt))))
    exact = latent_patching(model, clean, corrupt, METRIC, dictionary, [0, 7, 30])
    changes = [(other_latents - latents)[..., [i]] * dictionary.directions[i] for i in (0, 7, 30)]
    changes.append(other_error - error)
    estimates = [*found.effect[[0, 7, 30]].tolist(), float(found.error.sum())]
    for change, estimate, value in zip(changes, estimates, exact.tolist(), strict=True):
        by_hand = patched(model, dictionary, clean, change) - float(found.clean)
        assert value == pytest.approx(by_hand, abs=1e-5)
        ahead, behind = (patched(model, dictionary, clean, step * change) for step in (1e-3, -1e-3))
        assert estimate == pytest.approx((ahead - behind) / 2e-3, rel=0.02, abs=2e-3)
    assert found.by_token is not None
    torch.testing.assert_close(found.by_token.sum(dim=1), found.latents)
    assert found.top(3) == sorted(range(37), key=lambda i: -abs(float(found.effect[i])))[:3]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_latents_and_error_together_are_the_whole_activation(kind: str) -> None:
    model = toy(kind)
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post")
    clean, corrupt = pair()
    found = latent_attribution(model, clean, corrupt, METRIC, dictionary, steps=64)
    total = float(found.latents.sum() + found.error.sum())
    # the whole stream at all tokens is patched, so the metric becomes that of the corrupt run
    assert total == pytest.approx(float(found.corrupt - found.clean), rel=1e-2, abs=1e-3)


def test_errors_say_what_to_do(bad_input: None) -> None:
    model = toy("cls")
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post")
    clean, corrupt = pair()
    with pytest.raises(ValueError, match=r"a corrupt image for each clean one, .* got \(1, 3, 32, 24\)"):
        latent_attribution(model, clean, corrupt[:1], METRIC, dictionary)
    with pytest.raises(ValueError, match=r"expected 0 steps, .* or more, got -1"):
        latent_attribution(model, clean, corrupt, METRIC, dictionary, steps=-1)
    with pytest.raises(ValueError, match=r"latents from 0 to 36, got \[40\]"):
        latent_patching(model, clean, corrupt, METRIC, dictionary, [40])
    with pytest.raises(ValueError, match="metric must return one number"):
        latent_patching(model, clean, corrupt, lambda logits: logits, dictionary, [0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", POINTS, ids=["stream", "transcoder", "heads"])
def test_patching_is_that_of_the_spliced_model(kind: str, point: tuple) -> None:
    model = toy(kind)
    dictionary = toy_dictionary(model, *point)
    clean, corrupt = pair()
    exact = latent_patching(model, clean, corrupt, METRIC, dictionary, [0, 7])
    names = [f"{dictionary.config.writes}.dictionary.{name}" for name in ("hook_latents", "hook_error")]
    with model.spliced({dictionary.config.point: dictionary}):
        plain, _ = model.run_with_cache(clean, names_filter=names)
        _, cache = model.run_with_cache(corrupt, names_filter=names)

        def one(latents: torch.Tensor, hook: object, latent: int = 0) -> torch.Tensor:
            latents = latents.clone()
            latents[..., latent] = cache[names[0]][..., latent]
            return latents

        patches = [(names[0], lambda x, hook, i=i: one(x, hook, i)) for i in (0, 7)]
        patches.append((names[1], lambda error, hook: cache[names[1]]))
        for patch, value in zip(patches, exact.tolist(), strict=True):
            moved = float(METRIC(model.run_with_hooks(clean, fwd_hooks=[patch])) - METRIC(plain))
            assert value == pytest.approx(moved, abs=1e-4)

"""Direct effects add up to those of the whole activation, and equal a loop over tokens and latents."""

import pytest
import torch
from dictionary_toys import KINDS, items, toy, toy_dictionary

from analyses.attribution import attribution_names, logit_attribution
from analyses.dictionaries import direct_effect_names, direct_effects


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", ["blocks.2.hook_resid_post", "blocks.0.hook_mlp_out"])
def test_parts_add_up_and_equal_the_loop(kind: str, point: str) -> None:
    model = toy(kind)
    dictionary = toy_dictionary(model, point)
    images = torch.stack([image for image, _ in items()[:3]])
    names = direct_effect_names(model.cfg, dictionary) + attribution_names(model.cfg)
    logits, cache = model.run_with_cache(images, names_filter=list(dict.fromkeys(names)))
    effects = direct_effects(model, cache, dictionary, 4)
    total = effects.latents.sum(dim=1) + effects.bias + effects.error
    torch.testing.assert_close(total, effects.whole, rtol=1e-4, atol=1e-4)
    parts = logit_attribution(model, cache, 4)
    if point.endswith("resid_post"):
        torch.testing.assert_close(effects.whole + parts.constant, logits[:, 4], rtol=1e-4, atol=1e-4)
    else:
        torch.testing.assert_close(effects.whole, parts.mlp[0], rtol=1e-4, atol=1e-4)
    # a loop: by how much the logit changes if one latent's part is taken away, with the final norm's scale frozen
    scale = cache.cache_dict.get("ln_final.hook_scale")
    if point.endswith("resid_post") and scale is not None:
        latents = dictionary.encode(cache[point])
        for latent in (0, 11, 36):
            without = cache[point] - latents[..., [latent]] * dictionary.directions[latent]
            hooks = [(point, lambda a, hook, w=without: w), ("ln_final.hook_scale", lambda a, hook: scale)]
            changed = logits[:, 4] - model.run_with_hooks(images, fwd_hooks=hooks)[:, 4]
            torch.testing.assert_close(effects.latents[:, latent], changed, rtol=1e-3, atol=1e-4)


def test_errors_say_what_to_do() -> None:
    model = toy("cls")
    patches = toy_dictionary(model, "blocks.2.hook_resid_post", tokens="patch")
    names = direct_effect_names(model.cfg, patches)
    _, cache = model.run_with_cache(items()[0][0][None], names_filter=names)
    with pytest.raises(ValueError, match=r"the head reads none of the tokens .* use latent_attribution"):
        direct_effects(model, cache, patches, 0)
    neurons = toy_dictionary(model, "blocks.2.mlp.hook_post")
    with pytest.raises(ValueError, match=r"got one of 'blocks.2.mlp.hook_post'"):
        direct_effects(model, cache, neurons, 0)
    other = toy_dictionary(model, "blocks.1.hook_resid_post")
    with pytest.raises(ValueError, match=r"the cache lacks 'blocks.1.hook_resid_post'"):
        direct_effects(model, cache, other, 0)

"""A survey of latents equals loops over pictures and tokens, and keeps no more than it says."""

import bisect

import pytest
import torch
from dictionary_toys import KINDS, items, toy, toy_dictionary

from analyses.dictionaries import latent_maps, survey_latents
from analyses.dictionaries.reading.top_pictures import histogram_edges


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", ["any", "patch"])
def test_survey_equals_the_loop(kind: str, tokens: str) -> None:
    model, dataset = toy(kind), items(11)
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post", tokens=tokens, k=3)
    survey = survey_latents(model, dataset, dictionary, k=4, batch_size=3)
    first = model.token_layout.n_prefix if tokens == "patch" else 0
    images = torch.stack([image for image, _ in dataset])
    _, cache = model.run_with_cache(images, names_filter="resid_post")
    latents = dictionary.encode(cache["resid_post", 1][:, first:])
    edges = histogram_edges().tolist()
    maps = latent_maps(model, dataset, dictionary, survey, [0, 5, 36], batch_size=2)
    for latent in range(37):
        values = latents[..., latent]
        best = sorted((-float(values[i].max()), i) for i in range(11) if values[i].max() > 0)[:4]
        assert [i for i in survey.index[latent].tolist() if i >= 0] == [i for _, i in best]
        assert survey.label[latent].tolist() == [i % 7 for _, i in best] + [-1] * (4 - len(best))
        padded = [-v for v, _ in best] + [0.0] * (4 - len(best))
        assert survey.activation[latent].tolist() == pytest.approx(padded, rel=1e-4)
        active = [float(v) for v in values.flatten() if v > 0]
        assert int(survey.n_active[latent]) == len(active)
        assert int(survey.n_images[latent]) == sum(bool((values[i] > 0).any()) for i in range(11))
        counts = [0] * 34
        for value in active:
            counts[bisect.bisect_left(edges, value)] += 1
        assert survey.histogram[latent].tolist() == counts
        assert float(survey.frequency[latent]) == pytest.approx(len(active) / (11 * values.shape[1]))
    for row, latent in enumerate((0, 5, 36)):
        for place, index in enumerate(survey.index[latent].tolist()):
            expected = torch.zeros(model.token_layout.n_tokens)
            if index >= 0:
                expected[first:] = latents[index, :, latent]
            torch.testing.assert_close(maps[row, place], expected, rtol=1e-4, atol=1e-5)
    assert (survey.total_images, survey.total_tokens) == (11, 11 * latents.shape[1])


def test_state_does_not_grow_with_the_dataset() -> None:
    model = toy("cls")
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post")
    few, many = (survey_latents(model, items(n), dictionary, k=2) for n in (3, 11))
    for name in ("activation", "index", "label", "n_active", "n_images", "histogram"):
        assert getattr(few, name).shape == getattr(many, name).shape


def test_latents_that_never_fire_have_no_pictures() -> None:
    model = toy("cls")
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post")
    with torch.no_grad():
        dictionary.W_enc[:, 4] = 0
        dictionary.b_enc[4] = -1
    survey = survey_latents(model, items(), dictionary, k=2)
    assert survey.index[4].tolist() == [-1, -1]
    assert latent_maps(model, items(), dictionary, survey, [4]).abs().sum() == 0


def test_errors_say_what_to_do() -> None:
    model = toy("cls")
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post")
    with pytest.raises(ValueError, match="at least one picture per latent, got k=0"):
        survey_latents(model, items(), dictionary, k=0)
    with pytest.raises(ValueError, match="at least one image"):
        survey_latents(model, [], dictionary)
    survey = survey_latents(model, items(), dictionary, k=1)
    with pytest.raises(ValueError, match=r"latents from 0 to 36, got \[99\]"):
        latent_maps(model, items(), dictionary, survey, [99])

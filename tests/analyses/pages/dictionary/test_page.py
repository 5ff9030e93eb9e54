"""A dictionary page shows the survey's numbers, and the browser the latent that is asked for."""

import base64
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import Visit
from dictionary_toys import items, toy, toy_dictionary
from sklearn.metrics import roc_auc_score

from analyses.data import EmojiScenes
from analyses.dictionaries import (
    PooledFeatures,
    decoder_logits,
    latent_features,
    latent_maps,
    pool_features,
    scene_factors,
    survey_latents,
)
from analyses.dictionaries.scores.pooling import halves
from analyses.pages.dictionary import DictionaryPage, dictionary_page
from analyses.pages.dictionary.content import factor_numbers

KIND, POINT = "gap_registers_layerscale", "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def page() -> DictionaryPage:
    """A page of a small model with 20 of its 37 latents, and a name that is markup."""
    model = toy(KIND)
    return dictionary_page(
        model, items(15), toy_dictionary(model, POINT), n_latents=20, n_pictures=3, min_images=1,
        name="<script>alert(1)</script>",
    )  # fmt: skip


def unpacked(part: dict[str, Any]) -> np.ndarray:
    """An array as the page's script unpacks it."""
    return np.frombuffer(zlib.decompress(base64.b64decode(part["data"])), f"<{part['type']}").reshape(part["shape"])


def test_numbers_are_those_of_the_survey(page: DictionaryPage) -> None:
    model = toy(KIND)
    dictionary = toy_dictionary(model, POINT)
    data, survey = page.content.data, survey_latents(model, items(15), dictionary, k=3)
    most = sorted(range(37), key=lambda i: -int(survey.n_active[i]))[:20]
    latents = data["latents"]
    assert latents == sorted(most)
    assert data["frequency"] == pytest.approx(survey.frequency[latents].tolist(), rel=1e-3)
    assert (data["n_dead"], data["n_all"]) == (int((survey.n_active == 0).sum()), 37)
    assert unpacked(data["histogram"]).tolist() == survey.histogram[latents].tolist()
    pictures = page.content.pictures
    assert pictures == sorted({i for row in survey.index[latents].tolist() for i in row if i >= 0})
    shown = unpacked(data["picture"])
    maps = latent_maps(model, items(15), dictionary, survey, latents)
    stored, peaks = unpacked(data["maps"]) / 255, unpacked(data["peaks"])
    for row, latent in enumerate(latents):
        for place in range(3):
            index = int(survey.index[latent, place])
            assert int(shown[row, place]) == (pictures.index(index) if index >= 0 else len(pictures))
            known = maps[row, place]
            assert stored[row, place] * peaks[row, place] == pytest.approx(known.numpy(), abs=float(known.max()) / 254)
            assert ((stored[row, place] > 0) == (known.numpy() > 0)).all()
        top = decoder_logits(model, dictionary)[latent].topk(5)
        assert data["top"][0][row] == top.indices.tolist()
        assert data["top"][1][row] == pytest.approx(top.values.tolist(), rel=1e-3)
    assert data["labels"] == [index % 7 for index in pictures]


def test_factors_are_measured_on_the_other_half(page: DictionaryPage) -> None:
    model = toy(KIND)
    pooled = pool_features(model, items(15), [latent_features(toy_dictionary(model, POINT))])["latents"]
    first, second = halves(15)
    data = page.content.data
    assert data["factors"]
    for row, latent in enumerate(data["latents"]):
        values = pooled.values[:, latent].float()
        areas = []
        for _, name in data["factors"]:
            truth = pooled.labels == model.class_names.index(name)
            areas.append([roc_auc_score(truth[half].numpy(), values[half].numpy()) for half in (first, second)])
        best = data["best"][row]
        assert areas[best[0]][0] == pytest.approx(max(area for area, _ in areas))
        for column, found in zip(best, data["best_auroc"][row], strict=True):
            assert found == pytest.approx(areas[column][1], abs=1e-3)


def test_chance_tells_nothing_apart() -> None:
    noise = PooledFeatures("noise", torch.rand(200, 60), torch.zeros(200, dtype=torch.long), torch.arange(200))
    factors = scene_factors(EmojiScenes(200, seed=0), range(200))
    found = factor_numbers(noise, factors, range(60))
    assert (found["null_found"], found["n_left_out"] + len(found["factors"])) == (0, len(factors.names))
    assert not any(name == "class" for name, _ in found["factors"])  # two pictures of each
    assert max(row[0] for row in found["best_auroc"]) < 0.9
    single = factor_numbers(noise, factors, range(60), min_images=1)
    told = sum(row[0] >= 0.9 for row in single["best_auroc"])
    assert told > 0
    assert single["null_found"] == pytest.approx(told, abs=6)


def test_a_page_without_factors_that_can_be_measured(visit: Callable[..., Visit], tmp_path: Path) -> None:
    model = toy(KIND)
    page = dictionary_page(model, items(4), toy_dictionary(model, POINT), n_latents=3, n_pictures=2)
    assert (page.content.data["factors"], page.table()["factor"].isna().all()) == ([], True)
    opened = visit(page.save(tmp_path / "page.html"))
    opened.page.locator("html[data-drawn]").wait_for()
    assert "Left out are 7 of 7 factor values" in str(opened.page.locator("#summary").text_content())
    assert opened.page.locator("#factors tbody tr").count() == 0


def test_the_page_is_one_file_and_names_are_text(page: DictionaryPage, tmp_path: Path) -> None:
    assert "<script>alert" not in page.html
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.html, flags=re.DOTALL)
    assert json.loads(found)["n_all"] == 37
    assert page.save(tmp_path / "new" / "page.html").read_text("utf-8") == page.html
    table = page.table()
    assert table["latent"].tolist() == page.content.data["latents"]
    assert re.match(r"20 of 37 latents \(\d+ dead\) over 15 pictures; \d+ of them tell a true factor", page.summary)
    assert "sandbox" in page._repr_html_()


def test_choosing_finding_and_sorting_in_a_browser(
    page: DictionaryPage, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    opened = visit(page.save(tmp_path / "page.html"))
    shown, data = opened.page, page.content.data
    shown.locator("html[data-drawn]").wait_for()
    order = sorted(range(20), key=lambda row: (-data["frequency"][row], data["latents"][row]))
    names = shown.locator("#rows button").all_text_contents()
    assert names == [str(data["latents"][row]) for row in order]
    assert shown.locator("#latent-name").text_content() == f"Latent {names[0]}"
    shown.keyboard.press("j")
    shown.keyboard.press("ArrowDown")
    assert shown.locator("#latent-name").text_content() == f"Latent {names[2]}"
    shown.keyboard.press("k")
    assert shown.locator("tr.chosen button").text_content() == names[1]
    row = order[1]
    n_pictures = int((unpacked(data["picture"])[row] < len(page.content.pictures)).sum())
    assert shown.locator("#pictures canvas").count() == n_pictures
    assert shown.locator("#classes .name").first.text_content() == data["classes"][data["top"][0][row][0]]
    assert shown.locator("#factors tbody tr").count() == 3
    bars = shown.locator("#histogram rect").count()
    assert bars >= (unpacked(data["histogram"])[row] > 0).sum()
    shown.locator("#sort").select_option("latent")
    assert shown.locator("#rows button").all_text_contents() == [str(latent) for latent in data["latents"]]
    shown.keyboard.press("Escape")
    shown.keyboard.press("/")
    shown.keyboard.type(str(data["latents"][7]))
    assert str(data["latents"][7]) in shown.locator("#rows button").all_text_contents()
    assert shown.locator("#rows tr").count() < 20
    shown.locator("#filter").fill("nothing like this")
    assert shown.locator("#rows tr").count() == 0
    assert shown.locator("h1").text_content() == "<script>alert(1)</script>"


def test_it_fits_a_phone(page: DictionaryPage, visit: Callable[..., Visit], tmp_path: Path) -> None:
    opened = visit(page.save(tmp_path / "page.html"))
    opened.page.set_viewport_size({"width": 390, "height": 844})
    opened.page.locator("html[data-drawn]").wait_for()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_errors_say_what_to_do() -> None:
    model = toy("cls")
    dictionary = toy_dictionary(model, POINT)
    with pytest.raises(ValueError, match="at least one latent on the page, got 0"):
        dictionary_page(model, items(), dictionary, n_latents=0)
    with torch.no_grad():
        dictionary.W_enc.zero_()
        dictionary.b_enc.fill_(-1)
    with pytest.raises(ValueError, match="none of the 37 latents is active at any token of 6 pictures"):
        dictionary_page(model, items(), dictionary)

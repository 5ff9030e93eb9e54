"""A page's contributions are those of `logit_attribution` and add up; where they are not defined, it says so."""

import pytest
import torch
from explored import an_image, explored, unpacked

from analyses.attribution import logit_attribution
from analyses.pages.explorer.contributions import contribution_names


def test_they_are_those_of_logit_attribution_and_add_up(kind: str) -> None:
    model, cache, data = explored(kind)
    if kind == "map":
        pytest.skip("logits behind an attention pool cannot be taken apart")
    stored = {name: unpacked(part) for name, part in data["contributions"].items()}
    with torch.no_grad():
        logits = model(an_image())[0]
    for place, label in enumerate(data["shown"][: data["n_leading"]]):
        parts = logit_attribution(model, cache, [label])
        for name in ("constant", "embed", "logit"):
            assert stored[name][place] == getattr(parts, name)[0]
        for name in ("head", "attn_bias", "mlp"):
            assert torch.equal(stored[name][place], getattr(parts, name)[:, 0])
        assert ("pos_embed" in stored) == (parts.pos_embed is not None)
        total = sum(part[place].sum() for name, part in stored.items() if name != "logit")
        assert total.item() == pytest.approx(logits[label].item(), abs=1e-4)
        assert stored["logit"][place].item() == pytest.approx(logits[label].item(), abs=1e-5)


def test_behind_an_attention_pool_the_page_says_why_not() -> None:
    model, _, data = explored("map")
    why_not = "a head after attention pooling does not read the stream linearly, so no class has a direction"
    assert data["contributions"] == {"why_not": why_not}
    assert contribution_names(model) == []

"""What patching restores, on a page, is a run with hooks that copy one token or one head."""

import pytest
import torch
from conftest import ported
from explored import an_image, unpacked

from analyses.pages.explorer.content import explorer_data

LABEL, AGAINST = 5, 2
IMAGES = torch.cat([an_image(), an_image().flip(-1) * 2])


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale"])
def test_shares_by_hooks(kind: str) -> None:
    model = ported(kind)
    data = explorer_data(model, IMAGES, [LABEL, AGAINST], patching=True)["patching"]
    tokens, heads = unpacked(data["tokens"]), unpacked(data["heads"])
    with torch.no_grad():
        logits, cache = model.run_with_cache(IMAGES)
        first, second = (logits[:, LABEL] - logits[:, AGAINST]).tolist()
        assert (data["label"], data["against"]) == (LABEL, AGAINST)
        assert [data["first"], data["second"]] == pytest.approx([first, second], abs=1e-5)
        for layer in range(model.cfg.n_layers):

            def share(name: str, index: tuple) -> float:
                def copy(activation: torch.Tensor, hook: object) -> torch.Tensor:
                    activation = activation.clone()
                    activation[index] = cache[name][:1][index]
                    return activation

                [patched] = model.run_with_hooks(IMAGES[1:], fwd_hooks=[(name, copy)])
                return ((patched[LABEL] - patched[AGAINST]).item() - second) / (first - second)

            for token in range(tokens.shape[1]):
                expected = share(f"blocks.{layer}.hook_resid_post", (slice(None), token))
                assert tokens[layer, token].item() == pytest.approx(expected, abs=1e-4)
            for head in range(model.cfg.n_heads):
                expected = share(f"blocks.{layer}.attn.hook_z", (slice(None), slice(None), head))
                assert heads[layer, head].item() == pytest.approx(expected, abs=1e-4)


def test_by_default_the_predicted_classes_are_told_apart() -> None:
    model = ported("cls")
    with torch.no_grad():
        first, second = model(IMAGES).argmax(-1).tolist()
    data = explorer_data(model, IMAGES, patching=True)
    against = None if first == second else second
    assert (data["patching"]["label"], data["patching"]["against"]) == (first, against)
    assert {first, second} <= set(data["shown"])
    assert explorer_data(model, IMAGES, [3], patching=True)["patching"]["label"] == 3


def test_pictures_without_a_difference_are_an_error() -> None:
    with pytest.raises(ValueError, match="two pictures that the model tells apart"):
        explorer_data(ported("cls"), an_image().repeat(2, 1, 1, 1), patching=True)

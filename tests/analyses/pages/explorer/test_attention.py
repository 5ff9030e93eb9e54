"""A page's attention is the model's pattern, to the precision of its levels, and fits into the room."""

import json

import pytest
import torch
from explored import explored, unpacked

from analyses.pages.explorer.attention import attention


def held_against(stored: torch.Tensor, pattern: torch.Tensor, levels: int) -> None:
    largest = pattern.amax(-1, keepdim=True)
    assert ((stored - pattern).abs() <= largest / levels * 1.0001).all()


def test_every_weight_of_every_head(kind: str) -> None:
    model, cache, data = explored(kind)
    assert (data["attention"]["kept"], data["attention"]["levels"]) == ("everything", 255)
    for layer in range(model.cfg.n_layers):
        held_against(unpacked(data["attention"]["heads"][layer]), cache["pattern", layer][0], 255)


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale", "post_norm"])
def test_with_less_room_precision_is_reduced_first_and_then_rows(kind: str) -> None:
    model, cache, _ = explored(kind)
    n_prefix, seen = model.token_layout.n_prefix, []
    for room in range(8000, -1, -100):
        stored = attention(model, cache, room)
        if stored["kept"] != "nothing":
            assert len(json.dumps(stored)) <= room + 200
            held_against_what_is_kept(stored, model, cache, n_prefix)
        if stored["kept"] not in seen:
            seen.append(stored["kept"])
    # without prefix tokens there is nothing between means and nothing
    assert seen == ["everything", "means", "prefix", "nothing"] if n_prefix else ["everything", "means", "nothing"]


def held_against_what_is_kept(stored: dict, model, cache, n_prefix: int) -> None:
    for layer in range(model.cfg.n_layers):
        pattern = cache["pattern", layer][0]
        if stored["kept"] == "everything":
            held_against(unpacked(stored["heads"][layer]), pattern, stored["levels"])
            continue
        if n_prefix:
            held_against(unpacked(stored["heads"][layer]), pattern[:, :n_prefix], stored["levels"])
        mean = pattern.mean(0)
        held_against(
            unpacked(stored["means"][layer]), mean if stored["kept"] == "means" else mean[:n_prefix], stored["levels"]
        )

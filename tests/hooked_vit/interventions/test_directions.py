"""Steering and projection compared with their definitions."""

import pytest
import torch
from conftest import ported
from torch import Tensor

from hooked_vit.interventions import add_direction, intervene, project_out, random_directions

NAME = "blocks.1.hook_resid_post"


@torch.no_grad()
def after(model, images: Tensor, hooks: list) -> Tensor:
    with intervene(model, hooks):
        return model.run_with_cache(images, names_filter=NAME)[1][NAME]


def test_a_direction_is_added_at_the_selected_tokens(kind: str, images: Tensor) -> None:
    model, direction = ported(kind), torch.randn(24)
    expected = after(model, images, []).clone()
    expected[:, [2, 5]] += 3 * direction
    torch.testing.assert_close(after(model, images, add_direction(model, NAME, direction, 3, tokens=[2, 5])), expected)


def test_projected_out_directions_are_gone(kind: str, images: Tensor) -> None:
    model = ported(kind)
    directions = torch.randn(3, 24)
    directions[2] = 2 * directions[0] - directions[1]  # dependent: they span a plane
    own, found = after(model, images, []), after(model, images, project_out(model, NAME, directions))
    assert (found @ directions.T).abs().max() < 1e-4
    # the orthogonal complement is unchanged
    basis, _ = torch.linalg.qr(directions[:2].T)
    torch.testing.assert_close(found, own - own @ basis @ basis.T, rtol=1e-4, atol=1e-5)
    once = project_out(model, NAME, directions[0])
    torch.testing.assert_close(
        after(model, images, once),
        own - (own @ directions[0])[..., None] * directions[0] / directions[0].square().sum(),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_random_directions_keep_the_lengths() -> None:
    like = torch.randn(2, 5, 24) * torch.arange(5)[:, None]
    drawn = random_directions(like, 3)
    torch.testing.assert_close(drawn.norm(dim=-1), like.norm(dim=-1))
    assert torch.equal(drawn, random_directions(like, 3))
    assert not torch.equal(drawn, random_directions(like, 4))
    assert torch.nn.functional.cosine_similarity(drawn, like, dim=-1)[:, 1:].abs().max() < 0.8


@pytest.mark.usefixtures("bad_input")
def test_errors(images: Tensor) -> None:
    model = ported("cls")
    with pytest.raises(ValueError, match=f"expected a direction of width 24 for '{NAME}', got 23"):
        model.run_with_hooks(images, fwd_hooks=add_direction(model, NAME, torch.ones(23)))
    with pytest.raises(ValueError, match="of width 24"):
        model.run_with_hooks(images, fwd_hooks=project_out(model, NAME, torch.ones(23)))
    with pytest.raises(ValueError, match="expected a direction to project out, got zeros"):
        project_out(model, NAME, torch.zeros(2, 24))

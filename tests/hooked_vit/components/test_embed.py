"""From pixels to tokens: patches compared with a loop over pixels, the order of tokens, all kinds of positions."""

import dataclasses

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from hooked_vit import HookedViTConfig, HookPoint, NormConfig
from hooked_vit.components.embed import Embed

# images of 6 × 8 pixels, patches of 3 × 2: a grid of two rows and four columns
BASE = HookedViTConfig(
    n_layers=1, d_model=10, n_heads=2, d_mlp=7, n_classes=9, image_size=(6, 8), patch_size=(3, 2), n_channels=4
)
VARIANTS = {
    "cls": BASE,
    "prefix": dataclasses.replace(BASE, has_dist=True, n_registers=3),
    "registers_without_positions": dataclasses.replace(BASE, n_registers=3, positions="patches"),
    "no_prefix": dataclasses.replace(BASE, has_cls=False, patch_bias=False),
    "no_positions": dataclasses.replace(BASE, positions="none"),
    "normed": dataclasses.replace(BASE, patch_norm=NormConfig(eps=0.1)),
}


def made(cfg: HookedViTConfig) -> Embed:
    """An embedding with non-trivial parameters."""
    embed = Embed(cfg)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in embed.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return embed.requires_grad_(False)


@pytest.fixture(params=sorted(VARIANTS))
def embed(request: pytest.FixtureRequest) -> Embed:
    """Each kind of embedding in turn."""
    return made(VARIANTS[request.param])


@pytest.fixture
def images() -> Tensor:
    """Two images."""
    return torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(1))


def run(embed: Embed, images: Tensor, look: bool = True, edit=None) -> dict[str, Tensor]:
    """The tokens, and what the three points saw."""
    points = {name: HookPoint() for name in ("patch_embed", "embed", "pos_embed")}
    seen: dict[str, Tensor] = {}
    if edit is not None:
        points["pos_embed"].add_hook(edit)
    for name, point in points.items() if look else ():
        point.add_hook(lambda a, hook, name=name: seen.update({name: a.clone()}))
    seen["out"] = embed(images, embed.cfg.token_layout_at(*images.shape[-2:]), *points.values())
    return seen


def slow_patches(embed: Embed, images: Tensor) -> Tensor:
    """Every patch as a sum over its pixels."""
    rows, columns = images.shape[2] // 3, images.shape[3] // 2
    patches = torch.zeros(len(images), rows * columns, 10)
    for row in range(rows):
        for column in range(columns):
            into = patches[:, row * columns + column]
            for channel in range(4):
                for y in range(3):
                    for x in range(2):
                        pixel = images[:, channel, 3 * row + y, 2 * column + x]
                        into += pixel[:, None] * embed.patch.weight[:, channel, y, x]
    if embed.patch.bias is not None:
        patches += embed.patch.bias
    return patches if embed.patch_ln is None else embed.patch_ln.fused(patches)


def slow_tokens(embed: Embed, patches: Tensor) -> Tensor:
    """Prefix tokens, then patches, one image at a time."""
    prefix = [p for p in (embed.cls, embed.dist, embed.registers) if p is not None]
    return torch.stack([torch.cat([*prefix, image]) for image in patches])


def test_patches_tokens_and_positions_are_those_of_the_loop(embed: Embed, images: Tensor) -> None:
    seen = run(embed, images)
    patches = slow_patches(embed, images)
    torch.testing.assert_close(seen["patch_embed"], patches, rtol=1e-4, atol=1e-4)
    tokens = slow_tokens(embed, seen["patch_embed"])
    assert torch.equal(seen["embed"], tokens)
    positions = torch.zeros_like(tokens)
    if embed.cfg.positions == "tokens":
        positions += embed.pos
    elif embed.cfg.positions == "patches":
        positions[:, -8:] += embed.pos
    assert torch.equal(seen["pos_embed"], positions)
    assert torch.equal(seen["out"], tokens + positions)


def test_reading_hooks_change_nothing(embed: Embed, images: Tensor) -> None:
    assert torch.equal(run(embed, images, look=False)["out"], run(embed, images)["out"])


@pytest.mark.parametrize("in_place", [False, True])
def test_edited_positions_are_added_and_the_parameter_is_unchanged(
    embed: Embed, images: Tensor, in_place: bool
) -> None:
    stored = None if embed.pos is None else embed.pos.clone()
    before = run(embed, images)
    after = run(embed, images, edit=lambda p, hook: p.add_(5) if in_place else p + 5)
    torch.testing.assert_close(after["out"], before["out"] + 5, rtol=1e-5, atol=1e-5)
    assert stored is None or torch.equal(embed.pos, stored)


@pytest.mark.parametrize("variant", ["cls", "prefix", "registers_without_positions", "no_prefix"])
def test_positions_of_another_grid_are_resampled_as_timm_does(variant: str) -> None:
    cfg = dataclasses.replace(VARIANTS[variant], dynamic_image_size=True)
    embed, layout = made(cfg), cfg.token_layout_at(15, 6)
    assert layout.grid == (5, 3)
    n_prefix = layout.n_prefix if cfg.positions == "tokens" else 0
    expected = resample_abs_pos_embed(embed.pos[None], [5, 3], [2, 4], num_prefix_tokens=n_prefix)[0]
    positions = embed.positions(layout)
    assert positions.shape == (layout.n_tokens, 10)
    assert torch.equal(positions[layout.n_prefix - n_prefix :], expected)
    assert torch.equal(positions[: layout.n_prefix - n_prefix], torch.zeros(layout.n_prefix - n_prefix, 10))
    assert run(embed, torch.randn(1, 4, 15, 6))["out"].shape == (1, layout.n_tokens, 10)


def test_images_are_padded_below_and_on_the_right() -> None:
    embed = made(dataclasses.replace(BASE, dynamic_image_size=True, pad_to_patches=True))
    images = torch.randn(2, 4, 7, 5)
    padded = torch.zeros(2, 4, 9, 6)
    padded[:, :, :7, :5] = images
    torch.testing.assert_close(run(embed, images)["patch_embed"], slow_patches(embed, padded), rtol=1e-4, atol=1e-4)

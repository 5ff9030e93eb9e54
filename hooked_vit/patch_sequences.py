"""NaFlex's native input: the patches of images of any aspect ratio, with their places, padded to one length."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooked_vit.config import HookedViTConfig
from hooked_vit.token_layout import TokenLayout

KEYS = ("patches", "patch_coord", "patch_valid")


@dataclass(frozen=True)
class PatchSequences:
    """Images as sequences of patches, row by row; shorter ones are padded at the end.

    Attributes:
        patches: The pixels of each patch, flattened.
        coordinates: Row and column of each patch on its image's grid.
        valid: False at padding, and at patches that are to be left out.
        grids: Height and width of each image's grid of patches.
    """

    patches: Float[Tensor, "batch patch pixel"]
    coordinates: Int[Tensor, "batch patch row_column"]
    valid: Bool[Tensor, "batch patch"]
    grids: tuple[tuple[int, int], ...]

    @classmethod
    def from_dict(cls, batch: Mapping[str, Any], cfg: HookedViTConfig) -> "PatchSequences":
        """From the dict that timm's NaFlex models take.

        Raises:
            ValueError: If the model takes no sequences, or the dict does not hold sequences that it can embed.

        >>> from hooked_vit.embedding_config import LinearPatches
        >>> cfg = HookedViTConfig(1, 6, 2, 9, 5, (4, 4), (2, 2), linear_patches=LinearPatches())
        >>> batch = {"patches": torch.zeros(1, 3, 12), "patch_coord": torch.tensor([[[0, 0], [1, 0], [0, 0]]]),
        ...          "patch_valid": torch.tensor([[True, True, False]])}
        >>> PatchSequences.from_dict(batch, cfg).grids
        ((2, 1),)
        """
        if cfg.linear_patches is None:
            raise ValueError(
                "this model embeds images by a convolution and takes no dict of patches: pass images "
                f"[batch, {cfg.n_channels}, height, width], as `model.preprocess` makes them"
            )
        _check_keys(batch)
        patches, coordinates, valid = (batch[key] for key in KEYS)
        if patches.ndim == 5:
            patches = _flattened(patches, cfg)
        n_pixels = cfg.n_channels * prod(cfg.patch_size)
        if patches.ndim != 3 or patches.shape[2] != n_pixels or 0 in patches.shape:
            raise ValueError(
                f"expected patches of shape [batch, patch, {n_pixels}], {cfg.n_channels} × {cfg.patch_size[0]} × "
                f"{cfg.patch_size[1]} pixels each, got {tuple(patches.shape)}"
            )
        shape = tuple(patches.shape[:2])
        if tuple(coordinates.shape) != (*shape, 2) or coordinates.is_floating_point():
            raise ValueError(
                f"expected patch_coord of shape {(*shape, 2)}, whole rows and columns, got {coordinates.dtype} of "
                f"shape {tuple(coordinates.shape)}"
            )
        if tuple(valid.shape) != shape or valid.dtype != torch.bool:
            raise ValueError(
                f"expected patch_valid of shape {shape}, bool, got {valid.dtype} of shape {tuple(valid.shape)}"
            )
        if not patches.device == coordinates.device == valid.device:
            raise ValueError(
                f"patches are on {patches.device}, patch_coord on {coordinates.device}, patch_valid on "
                f"{valid.device}: move them to one device"
            )
        return cls(patches, coordinates, valid, _grids(coordinates, valid))

    def layouts(self, cfg: HookedViTConfig) -> list[TokenLayout]:
        """The token layout of each image, without its padding."""
        return [cfg.token_layout_of(grid) for grid in self.grids]


def n_images(input: Any) -> int:
    """The number of images of a batch: images, a residual stream, or a dict of patches.

    >>> n_images(torch.zeros(4, 3, 8, 8)), n_images({"patches": torch.zeros(2, 5, 12)})
    (4, 2)
    """
    return len(input["patches"] if isinstance(input, Mapping) and "patches" in input else input)


def _check_keys(batch: Mapping[str, Any]) -> None:
    missing = [key for key in KEYS if not isinstance(batch.get(key), Tensor)]
    surplus = sorted(set(batch) - {*KEYS, "seq_len"})  # timm's collator adds the length
    if missing:
        raise ValueError(
            f"expected a dict of the tensors {', '.join(KEYS)}, missing: {', '.join(missing)}; "
            "`model.preprocess_naflex(pictures)` makes one"
        )
    if surplus:
        hint = "; edit 'hook_attn_scores' instead of passing a mask" if "attn_mask" in surplus else ""
        raise ValueError(f"expected a dict of {', '.join(KEYS)}, got also {', '.join(surplus)}{hint}")


def _flattened(patches: Tensor, cfg: HookedViTConfig) -> Tensor:
    assert cfg.linear_patches is not None
    last = cfg.linear_patches.given_channels_last
    size = (*cfg.patch_size, cfg.n_channels) if last else (cfg.n_channels, *cfg.patch_size)
    if tuple(patches.shape[2:]) != size:
        raise ValueError(
            f"expected patches of {size[0]} × {size[1]} × {size[2]} numbers, got {tuple(patches.shape[2:])}: patches "
            "of another size are not resampled"
        )
    return patches.flatten(2)


def _grids(coordinates: Tensor, valid: Tensor) -> tuple[tuple[int, int], ...]:
    """As timm finds them: from the largest row and column of each image."""
    if not bool(valid.any(dim=1).all()):
        raise ValueError(f"image {int((~valid.any(dim=1)).nonzero()[0])} has no valid patch")
    grids = coordinates.clamp(min=0).amax(dim=1) + 1
    place = torch.arange(coordinates.shape[1], device=coordinates.device)
    width = grids[:, 1:]
    expected = torch.stack([place.div(width, rounding_mode="floor"), place % width], dim=-1)
    fits = ((coordinates == expected).all(dim=-1) | ~valid).all(dim=1)
    if not bool(fits.all()):
        image = int((~fits).nonzero()[0])
        height, width = grids[image].tolist()
        raise ValueError(
            f"expected the patches of image {image} row by row on its grid of {height} × {width}, then padding: "
            "to leave patches out, keep their places and set patch_valid to False there"
        )
    return tuple((height, width) for height, width in grids.tolist())

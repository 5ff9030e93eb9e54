"""Scenes as tensors: picture, labels, masks and boxes of one scene and of a batch."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from PIL import Image
from torch import Tensor

from analyses.data.emoji_scenes.layout import SceneLayout
from analyses.data.emoji_scenes.rendering import MASK_ALPHA, RenderedScenes

__all__ = ["Scene", "SceneBatch", "collect"]


@dataclass(frozen=True)
class Scene:
    """One scene. The axis `object` has length 1 for datasets of one object, else 2, whether or not both are present.

    Attributes:
        index: Index in the dataset.
        image: The input of emoji-vit: (pixels / 255 - 0.5) / 0.5, from -1 to 1.
        pixels: The picture, 0 to 255.
        labels: Class of each object, -1 where there is no second object.
        masks: True where the object fills at least half of a pixel (alpha `MASK_ALPHA` of 255).
        boxes: Left, top, right, bottom of each mask in pixels, right and bottom excluded; zeros for an empty one.
        artists: Index into `ARTISTS`, -1 where there is no second object.
        background_group: Index into `emoji_groups()` of the group whose colour the background has, -1 for any.
    """

    index: int
    image: Float32[Tensor, "channel=3 height width"]
    pixels: UInt8[Tensor, "channel=3 height width"]
    labels: Int64[Tensor, "object"]
    masks: Bool[Tensor, "object height width"]
    boxes: Int64[Tensor, "object edge=4"]
    artists: Int64[Tensor, "object"]
    background_group: int

    @property
    def label(self) -> int:
        """Class of the first object."""
        return int(self.labels[0])

    @property
    def mask(self) -> Bool[Tensor, "height width"]:
        """Mask of the first object."""
        return self.masks[0]

    @property
    def picture(self) -> Image.Image:
        """The picture as a PIL image; `model.preprocess` turns it into exactly `image`."""
        return Image.fromarray(self.pixels.permute(1, 2, 0).numpy())


@dataclass(frozen=True)
class SceneBatch:
    """Some scenes of a dataset, stacked; the fields are those of `Scene`."""

    indices: Int64[Tensor, "batch"]
    images: Float32[Tensor, "batch channel=3 height width"]
    pixels: UInt8[Tensor, "batch channel=3 height width"]
    labels: Int64[Tensor, "batch object"]
    masks: Bool[Tensor, "batch object height width"]
    boxes: Int64[Tensor, "batch object edge=4"]
    artists: Int64[Tensor, "batch object"]
    background_groups: Int64[Tensor, "batch"]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Scene:
        """The scene at a position in the batch (not its index in the dataset)."""
        return Scene(
            index=int(self.indices[position]),
            image=self.images[position],
            pixels=self.pixels[position],
            labels=self.labels[position],
            masks=self.masks[position],
            boxes=self.boxes[position],
            artists=self.artists[position],
            background_group=int(self.background_groups[position]),
        )


def collect(indices: Int64[np.ndarray, "batch"], layout: SceneLayout, rendered: RenderedScenes) -> SceneBatch:
    """The batch of tensors from a layout and its rendering."""
    pixels = torch.from_numpy(rendered.pixels)
    masks = np.asarray(rendered.alphas >= MASK_ALPHA)
    return SceneBatch(
        indices=torch.from_numpy(indices),
        images=pixels.float().div_(255).sub_(0.5).div_(0.5),
        pixels=pixels,
        labels=torch.from_numpy(layout.labels),
        masks=torch.from_numpy(masks),
        boxes=torch.from_numpy(_boxes(masks)),
        artists=torch.from_numpy(layout.artists),
        background_groups=torch.from_numpy(layout.background_groups),
    )


def _boxes(masks: Bool[np.ndarray, "batch object height width"]) -> Int64[np.ndarray, "batch object edge=4"]:
    left, right = _ends(masks.max(axis=2))
    top, bottom = _ends(masks.max(axis=3))
    return np.stack([left, top, right, bottom], axis=-1)


def _ends(filled: Bool[np.ndarray, "batch object line"]) -> tuple[np.ndarray, np.ndarray]:
    after = filled.shape[-1] - filled[:, :, ::-1].argmax(axis=2)
    return filled.argmax(axis=2), after * filled.max(axis=2)

"""timm's HybridEmbed: a convolutional stem, then a projection of the patches of its feature map, or none."""

from typing import Any

from timm import layers
from torch import nn

from hooked_vit.components.stem import without_weights
from hooked_vit.config import StemConfig
from hooked_vit.porting.parts import refuse


def read_stem(embed: Any, dynamic: bool) -> dict[str, Any]:
    """The config fields of a `HybridEmbed`.

    Args:
        embed: The module.
        dynamic: Whether the model takes images of other sizes; the embedding itself takes any.

    Raises:
        ValueError: If the stem's stride does not divide the image size.
    """
    projected = isinstance(embed.proj, nn.Conv2d)
    height, width = map(int, layers.to_2tuple(embed.img_size))
    kernel_height, kernel_width = map(int, layers.to_2tuple(embed.patch_size))
    rows, columns = embed.feature_size
    if height % rows or width % columns:
        refuse(f"an image size of ({height}, {width}) that the stride of the convolutional stem does not divide")
    if not projected and kernel_height * kernel_width != 1:
        refuse("patches of a convolutional stem without a projection")
    stem = without_weights(embed.backbone)
    return {
        "image_size": (height, width),
        "patch_size": (height // rows * kernel_height, width // columns * kernel_width),
        "n_channels": embed.in_chans,
        "dynamic_image_size": dynamic,
        "pad_to_patches": embed.dynamic_img_pad,
        "patch_bias": projected and embed.proj.bias is not None,
        "stem": StemConfig(stem, repr(stem), embed.feature_dim, (kernel_height, kernel_width), projected),
    }

"""From pictures to a model's input and back, with the preprocessing of its weights."""

from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from hooked_vit import preprocessing
from hooked_vit.config import HookedViTConfig


class Pictures(nn.Module):
    """Methods of a HookedViT that prepare its input."""

    cfg: HookedViTConfig
    data_config: dict[str, Any] | None
    embed: Any

    def preprocess(self, images: Any) -> Float[Tensor, "batch channel height width"]:
        """Turn pictures into the model's input, by timm's own transform for the loaded weights, on the model's device.

        Args:
            images: A path, a PIL image, an array ([height width channel], uint8, uint16, or floats from 0 to 1), or a
                list of these. Photos are rotated by their EXIF orientation; timm's evaluation, and datasets in a
                sweep, take the pixels as stored. 16-bit pictures are scaled from their full range to 8 bits.
                Transparent ones are composited on white, unless the model takes four channels; timm drops the alpha
                channel, which shows whatever colours the transparent pixels happen to have.

        Raises:
            ValueError: If a picture has another format, holds NaN, or has values whose range is not known (floats
                beyond 0 to 1, 32-bit numbers), or the list is empty.
            FileNotFoundError: If there is no file at a path.
        """
        return preprocessing.preprocess(images, self.cfg, self.data_config).to(self.embed.weight)

    def preprocess_naflex(self, images: Any, max_patches: int | None = None) -> dict[str, Tensor]:
        """Turn pictures of any aspect ratio into sequences of patches, by timm's own NaFlex transform.

        Each picture is resized, with its aspect ratio kept, to as many patches as fit into `max_patches`; none is
        cropped. Shorter sequences are padded to the longest of the batch.

        Args:
            images: As for `preprocess`.
            max_patches: The most patches of a picture; by default, those of the model's own image size.

        Returns:
            `"patches"` [batch patch pixel], `"patch_coord"` [batch patch row_column] and `"patch_valid"`
            [batch patch], on the model's device.

        Raises:
            ValueError: As `preprocess`, or if the model takes no sequences of patches.

        >>> import timm
        >>> module = timm.create_model("naflexvit_base_patch16_gap", num_classes=7, embed_dim=36, depth=2, num_heads=3)
        >>> model = HookedViT.from_timm(module)
        >>> wide, tall = np.zeros((30, 90, 3), np.uint8), np.zeros((80, 20, 3), np.uint8)
        >>> batch = model.preprocess_naflex([wide, tall], max_patches=12)
        >>> [layout.grid for layout in model.token_layouts(batch)], model(batch).shape
        ([(2, 6), (6, 2)], torch.Size([2, 7]))
        """
        weight = self.embed.weight
        batch = preprocessing.preprocess_naflex(images, self.cfg, self.data_config, max_patches)
        return {key: tensor.to(weight if key == "patches" else weight.device) for key, tensor in batch.items()}

    def picture_of(self, image: Float[Tensor, "channel height width"]) -> Float[np.ndarray, "height width channel"]:
        """The picture that one image of the model's input shows, 0 to 1: the inverse of `preprocess`.

        It is resized and cropped as the model sees it. If the model's preprocessing is unknown, the image's own range
        of values is stretched to 0 to 1.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> picture = np.random.default_rng(0).random((64, 64, 3))
        >>> bool(np.abs(model.picture_of(model.preprocess(picture)[0]) - picture).max() < 1 / 255)
        True
        """
        return preprocessing.picture_of(image, self.data_config)

    def input_of(self, picture: Image.Image) -> Float[Tensor, "channel height width"]:
        """The input that shows a picture as it is: normalised, but neither resized nor cropped.

        The inverse of `picture_of` for pictures of 8 bits, on the model's device.

        Raises:
            ValueError: If the model's preprocessing is unknown.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> image = model.preprocess(np.random.default_rng(0).random((64, 64, 3)))[0]
        >>> picture = Image.fromarray((255 * model.picture_of(image)).round().astype(np.uint8))
        >>> bool((model.input_of(picture) == image).all())
        True
        """
        return preprocessing.input_of(picture, self.cfg.n_channels, self.data_config).to(self.embed.weight)

"""The common corruptions of Hendrycks and Dietterich (ImageNet-C), by kind and severity, from `imagecorruptions`."""

import inspect
import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from PIL import Image

from analyses.robustness.pictures import OnPictures

__all__ = ["CORRUPTIONS", "Corruption", "corruption"]

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression", "speckle_noise",
    "gaussian_blur", "spatter", "saturate",
)  # fmt: skip
"""The 15 kinds of ImageNet-C, then the 4 that it holds back for validation."""

_INSTALL = "pip install 'hooked-vit[robustness]'"
_LEAST_SIDE = 32


def corruption(name: str, severity: int = 3, seed: int = 0) -> OnPictures:
    """A corruption of ImageNet-C (Hendrycks and Dietterich 2019), as a perturbation of a batch.

    The functions are those of `imagecorruptions-imaug`, which maintains the authors' code for pictures of any size from
    32 × 32. They were tuned to 224 × 224: on smaller pictures the same severity hides more.

    Args:
        name: One of `CORRUPTIONS`.
        severity: 1 (weakest) to 5.
        seed: Seed of noise, weather and distortions; each image has its own, whatever the batch.

    Raises:
        ValueError: If there is no such corruption or severity.
        ImportError: If `imagecorruptions` is not installed.

    >>> corruption("pixelate", 2).transform
    Corruption(name='pixelate', severity=2)
    """
    if name not in CORRUPTIONS:
        near = get_close_matches(name, CORRUPTIONS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"unknown corruption '{name}'{hint} Expected one of {', '.join(CORRUPTIONS)}")
    if severity not in range(1, 6) or isinstance(severity, bool):
        raise ValueError(f"expected a severity from 1 to 5 for '{name}', got {severity!r}")
    _package()
    return OnPictures(Corruption(name, severity), seed)


@dataclass(frozen=True)
class Corruption:
    """One kind at one severity: a function from a picture to a picture, which draws from numpy's global generator."""

    name: str
    severity: int

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The corrupted picture, in RGB.

        Raises:
            ValueError: If a side is shorter than 32 pixels.
        """
        if min(picture.size) < _LEAST_SIDE:
            raise ValueError(
                f"'{self.name}' needs pictures of at least {_LEAST_SIDE} × {_LEAST_SIDE} pixels, got {picture.width} × "
                f"{picture.height}"
            )
        package, options = _package(), {}
        function = package.corruption_dict[self.name]
        if "seed" in inspect.signature(function).parameters:
            # these do not draw from numpy's global generator
            options["seed"] = int(np.random.randint(2**31))  # noqa: NPY002
        with redirect_stdout(io.StringIO()):  # some of them print
            pixels = package.corrupt(np.asarray(picture.convert("RGB")), self.severity, self.name, **options)
        return Image.fromarray(pixels)


def _package() -> Any:
    try:
        import imagecorruptions  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"the corruptions of ImageNet-C need imagecorruptions-imaug: {_INSTALL} ({error})") from error
    return imagecorruptions

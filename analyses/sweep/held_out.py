"""Whether two descriptions of datasets are of the same images: what was fitted to images is measured on others."""

from typing import Any

from analyses.data.dataset import LabelledImages
from analyses.sweep.describe import describe

__all__ = ["refuse_fitted", "share_images"]


def refuse_fitted(fitted_to: Any, dataset: LabelledImages, what: str) -> None:
    """Refuse to measure something on the dataset that it was fitted to.

    Args:
        fitted_to: `describe` of the dataset that it was fitted to; `None` if that is not known.
        dataset: The images to measure on.
        what: What was fitted, such as `"the lens"`.

    Raises:
        ValueError: If both are of the same images; other overlaps, such as of two subsets, are not seen.

    >>> from analyses.data import EmojiScenes
    >>> refuse_fitted(describe(EmojiScenes(64, seed=1)), EmojiScenes(16, seed=2), "the lens")
    """
    if fitted_to is not None and share_images(fitted_to, describe(dataset)):
        raise ValueError(
            f"{what} was fitted to images of this dataset, on which its numbers would be too good: measure it on other "
            "images, such as those of another seed (emoji-scenes:100?seed=1) or another folder"
        )


def share_images(then: Any, now: Any) -> bool:
    """Whether two descriptions are of one dataset, whole or cut off after different numbers of images.

    Lists, and datasets with an attribute `n`, may be cut off; what follows from `n` is not compared.

    >>> from analyses.data import EmojiScenes
    >>> small, large, other = (describe(EmojiScenes(n, seed=seed)) for n, seed in ((4, 1), (9, 1), (4, 2)))
    >>> share_images(small, large), share_images(small, other)
    (True, False)
    """
    if isinstance(then, list) and isinstance(now, list):
        return any(item in now for item in then)
    if isinstance(then, dict) and isinstance(now, dict) and then.get("n") != now.get("n"):
        return _apart_from_n(then) == _apart_from_n(now)
    return then == now


def _apart_from_n(description: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in description.items()
        if not (key == "n" or isinstance(value, list) or (isinstance(value, dict) and "sha256" in value))
    }

"""Images whose classes a model knows: Emoji Scenes where these are its classes, and else a dataset by its name."""

from analyses.data.dataset import LabelledImages
from analyses.data.open import open_dataset
from hooked_vit import HookedViT

__all__ = ["images_for"]


def images_for(model: HookedViT, n: int, data: str | None = None, seed: int = 7) -> LabelledImages:
    """Images to ask a model about, with the answers.

    Args:
        model: Whose classes the labels must be.
        n: How many Emoji Scenes, where these are shown; `data` says itself how many.
        data: As for `open_dataset`, such as `imagenet-s:DIR?n=5`; by default Emoji Scenes.
        seed: Which Emoji Scenes.

    Raises:
        ValueError: If the images are Emoji Scenes, and these are not the model's classes; or as `open_dataset`.
        FileNotFoundError: If there is nothing at the path that `data` names.

    >>> len(images_for(HookedViT.from_pretrained("emoji-vit"), n=40))
    40
    """
    scenes = f"emoji-scenes:{n}?seed={seed}&image_size={model.cfg.image_size[0]}"
    return open_dataset(scenes if data is None else data, model.class_names)

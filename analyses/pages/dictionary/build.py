"""A dictionary page: every latent with its pictures, histogram, classes and factors, in one file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from analyses.data.dataset import LabelledImages
from analyses.dictionaries.dictionary import Dictionary
from analyses.dictionaries.images import images_of
from analyses.dictionaries.scores.measurable import MIN_IMAGES
from analyses.pages.dictionary.content import DictionaryContent, dictionary_content
from analyses.pages.page import notebook_frame, picture_url, render_page, write_page
from hooked_vit import HookedViT

__all__ = ["DictionaryPage", "dictionary_page"]

_THUMBNAIL = 96
_SHEET_COLUMNS = 40


@dataclass(frozen=True)
class DictionaryPage:
    """The latents of a dictionary in one file, without server or network. A notebook displays it inline.

    Attributes:
        html: The whole page.
        content: The numbers on it.
    """

    html: str
    content: DictionaryContent

    @property
    def summary(self) -> str:
        """What the page shows, in a sentence."""
        data = self.content.data
        best = [row[0] for row in data["best_auroc"] if row]
        found = sum(value is not None and value >= data["found"] for value in best)
        return (
            f"{len(data['latents'])} of {data['n_all']} latents ({data['n_dead']} dead) over {data['n_images']:,} "
            f"pictures; {found} of them tell a true factor apart (AUROC at least {data['found']:g}; with permuted "
            f"factors, {data['null_found']:g})"
        )

    def table(self) -> pd.DataFrame:
        """One row per latent on the page: `latent`, `frequency`, `coherence`, `factor`, `factor_value`, `auroc`."""
        data = self.content.data
        names = [data["factors"][row[0]] if row else [None, None] for row in data["best"]]
        return pd.DataFrame(
            {
                "latent": data["latents"],
                "frequency": data["frequency"],
                "coherence": data["coherence"] or [None] * len(data["latents"]),
                "factor": [factor for factor, _ in names],
                "factor_value": [value for _, value in names],
                "auroc": [row[0] if row else None for row in data["best_auroc"]],
                "top_class": [data["classes"][row[0]] for row in data["top"][0]],
            }
        )

    def save(self, path: str | Path) -> Path:
        """Write the page to a file; missing folders are created."""
        return write_page(self.html, path)

    def _repr_html_(self) -> str:
        return notebook_frame(self.html, "Dictionary", 860)

    def __repr__(self) -> str:
        return f"DictionaryPage({len(self.html) / 1e6:.1f} MB): .save(path) writes it, a notebook displays it"


def dictionary_page(
    model: HookedViT,
    dataset: LabelledImages,
    dictionary: Dictionary,
    *,
    n_latents: int = 512,
    n_pictures: int = 9,
    min_images: int = MIN_IMAGES,
    limit: int | None = None,
    batch_size: int = 32,
    name: str | None = None,
    model_name: str | None = None,
    progress: bool | None = None,
) -> DictionaryPage:
    """Show what the latents of a dictionary are: top pictures with maps, histograms, classes and true factors.

    Args:
        model: The model, with classes.
        dataset: The pictures; Emoji Scenes bring their true factors, of others the labels are the factors.
        dictionary: A dictionary of this model.
        n_latents: The most latents on the page: those that are active most often.
        n_pictures: Pictures per latent.
        min_images: The fewest pictures with a factor value, and without, in each half; other values are left out.
        limit: Only so many images.
        batch_size: Images per forward pass.
        name: The dictionary's name.
        model_name: The model's name.
        progress: Whether to show a bar; by default on a terminal.

    Raises:
        ValueError: If the dictionary is of another model or cannot be read in class space, no latent is active, or a
            number is not positive.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.dictionaries import DictionaryConfig, random_dictionary
    >>> point = "blocks.5.hook_resid_post"
    >>> dictionary = random_dictionary(Dictionary(DictionaryConfig("topk", 128, 128, 64, point, point, k=4)))
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> page = dictionary_page(model, EmojiScenes(8, seed=0), dictionary, n_latents=4, n_pictures=2, progress=False)
    >>> page.html[:15]
    '<!doctype html>'
    """
    model.require_several_classes("the classes that latents promote")
    content = dictionary_content(
        model,
        dataset,
        dictionary,
        n_latents=n_latents,
        n_pictures=n_pictures,
        min_images=min_images,
        limit=limit,
        batch_size=batch_size,
        progress=progress,
    )
    sheet, size = _contact_sheet(model, dataset, content.pictures, batch_size)
    config = dictionary.config
    data = {**content.data, "sheet": {"columns": _SHEET_COLUMNS, "n": len(content.pictures)}}
    point = config.reads if not config.is_transcoder else f"{config.reads} → {config.writes}"
    page = render_page(
        "dictionary/dictionary.html",
        styles=["dictionary/dictionary.css"],
        script="dictionary/main.js",
        data=data,
        title=f"{name or point} – dictionary",
        name=name or "Dictionary",
        point=point,
        kind=config.kind.replace("_", " "),
        tokens=config.tokens,
        model_name=model_name,
        sheet=picture_url(sheet, "jpeg", quality=88),
        ratio=size[0] / size[1],
        small=max(size) <= 64,
        has_coherence=data["coherence"] is not None,
    )
    return DictionaryPage(page, content)


def _contact_sheet(
    model: HookedViT, dataset: LabelledImages, index: list[int], batch_size: int
) -> tuple[Image.Image, tuple[int, int]]:
    """All pictures of the page in one, row by row, and the size of each."""
    height, width = model.cfg.image_size
    shrink = min(1.0, _THUMBNAIL / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    rows = -(-len(index) // _SHEET_COLUMNS)
    sheet = Image.new("RGB", (size[0] * _SHEET_COLUMNS, size[1] * max(1, rows)))
    for start in range(0, len(index), batch_size):
        images = images_of(model, dataset, index[start : start + batch_size])
        for place, image in enumerate(images, start):
            picture = _picture(model.picture_of(image))
            at = place % _SHEET_COLUMNS * size[0], place // _SHEET_COLUMNS * size[1]
            sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), at)
    return sheet, size


def _picture(pixels: np.ndarray) -> Image.Image:
    eight_bits = (pixels[..., :3] * 255).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(eight_bits[..., 0] if eight_bits.shape[-1] == 1 else eight_bits).convert("RGB")

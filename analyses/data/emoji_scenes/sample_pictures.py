"""The bundled samples: 36 scenes as picture files, for examples and documentation."""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from analyses.data.emoji_scenes.batch import Scene
from analyses.data.emoji_scenes.classes import ARTISTS
from analyses.data.emoji_scenes.scenes import EmojiScenes

__all__ = ["SampleScene", "sample_scenes", "write_samples"]

_N_SAMPLES = 36
_SEED = 58
_INDEX = "index.json"
# a palette that makes the mask files visible: context black, first object white, second orange
_MASK_COLOURS = (0, 0, 0, 255, 255, 255, 255, 140, 0)


@dataclass(frozen=True)
class SampleScene:
    """One bundled scene; `object` is the number of its objects, 1 or 2.

    Attributes:
        path: Path of its PNG file.
        picture: The picture, RGB, 64 × 64 pixels.
        labels: Class of each object.
        class_names: Class name of each object.
        artists: Artist of each object.
        masks: True where a pixel shows the object.
        boxes: Left, top, right, bottom of each mask in pixels, right and bottom excluded.
    """

    path: Path
    picture: Image.Image
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    artists: tuple[str, ...]
    masks: Bool[Tensor, "object height width"]
    boxes: tuple[tuple[int, int, int, int], ...]


def sample_scenes() -> list[SampleScene]:
    """The bundled scenes, in the order of their file names; about a third show two objects.

    >>> samples = sample_scenes()
    >>> len(samples), samples[0].path.name, samples[0].class_names, samples[0].masks.shape
    (36, 'scene_00.png', ('eggplant', 'crocodile'), torch.Size([2, 64, 64]))
    """
    folder = Path(str(resources.files("analyses.data.emoji_scenes") / "samples"))
    return [_load(folder, entry) for entry in json.loads((folder / _INDEX).read_text("utf-8"))["scenes"]]


def _load(folder: Path, entry: dict) -> SampleScene:
    objects = entry["objects"]
    with Image.open(folder / entry["mask"]) as image:
        object_of_pixel = torch.from_numpy(np.array(image))
    with Image.open(folder / entry["picture"]) as image:
        picture = image.convert("RGB")
    return SampleScene(
        path=folder / entry["picture"],
        picture=picture,
        labels=tuple(shown["label"] for shown in objects),
        class_names=tuple(shown["class_name"] for shown in objects),
        artists=tuple(shown["artist"] for shown in objects),
        masks=torch.stack([object_of_pixel == number for number in range(1, len(objects) + 1)]),
        boxes=tuple((shown["box"][0], shown["box"][1], shown["box"][2], shown["box"][3]) for shown in objects),
    )


def write_samples(folder: Path) -> None:
    """Write the files of the bundled scenes: pictures, masks (0 context, 1 first object, 2 second) and the index."""
    folder.mkdir(parents=True, exist_ok=True)
    batch = EmojiScenes(_N_SAMPLES, _SEED, objects="mixed").batch(range(_N_SAMPLES))
    entries = [_write(folder, batch[position]) for position in range(len(batch))]
    about = f"EmojiScenes({_N_SAMPLES}, seed={_SEED}, objects='mixed'); emoji by several artists, see NOTICE"
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    text = f'{{"about": {json.dumps(about)}, "scenes": [\n{lines}\n]}}\n'
    (folder / _INDEX).write_text(text, encoding="utf-8")


def _write(folder: Path, scene: Scene) -> dict:
    picture, mask = f"scene_{scene.index:02}.png", f"scene_{scene.index:02}_mask.png"
    scene.picture.save(folder / picture, optimize=True)
    numbers = torch.arange(1, len(scene.masks) + 1)[:, None, None]
    object_of_pixel = Image.fromarray((scene.masks * numbers).sum(0).to(torch.uint8).numpy())
    object_of_pixel.putpalette(_MASK_COLOURS)
    object_of_pixel.save(folder / mask, optimize=True, bits=2)
    objects = [
        {
            "label": int(label),
            "class_name": EmojiScenes.class_names[label],
            "artist": ARTISTS[artist],
            "box": box.tolist(),
        }
        for label, artist, box in zip(scene.labels, scene.artists, scene.boxes, strict=True)
        if label >= 0
    ]
    return {"picture": picture, "mask": mask, "objects": objects}

"""Open a dataset by name, as on the command line: `KIND:PATH`, with options after a question mark."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from analyses.data.dataset import LabelledImages
from hooked_vit import HookedViT
from hooked_vit.class_names import numbered_class_names, ordered_class_names

__all__ = ["KINDS", "images_for", "open_dataset"]

Options = dict[str, str]


def open_dataset(spec: str, class_names: Sequence[str] | None = None) -> LabelledImages:
    """Open a dataset by name.

    | spec | items | options |
    |---|---|---|
    | `emoji-scenes:1000` | 1000 Emoji Scenes, with masks | `seed` (0), `objects`, `image_size`, `artists`, `background_strength` |
    | `imagenet-s:ROOT` | ImageNet-S, with masks | `n`, `partition`, `exclude` (wnids, or `none`), `masks`, `listing` |
    | `folder:ROOT` | a folder of pictures for each class | `classes` (`sorted`, or a file with one folder name per class) |
    | `cifar100:ROOT` | CIFAR-100's 10,000 test images | `n`, `train`, `download` |

    Options are written as in a web address: `imagenet-s:/data/ImageNet-S?n=5&masks=no`.

    The folders of `folder` are classes by name, wnid or index, see `ImageFolder`. `classes=sorted` numbers them in
    alphabetical order; `classes=FILE` reads the folder of each class, line by line in the order of the classes.

    Args:
        spec: Kind, colon, path (or number of scenes), options.
        class_names: The model's class names, among which `folder` looks up its folders. The labels of the other kinds
            must be the model's classes.

    Raises:
        ValueError: If the kind, an option or a value is unknown, or the model does not have the dataset's classes.
        FileNotFoundError: If there is no dataset of that kind at the path.

    >>> len(open_dataset("emoji-scenes:200?seed=3&objects=2"))
    200
    """  # noqa: E501
    class_names = None if class_names is None else ordered_class_names(class_names)
    kind, colon, rest = spec.partition(":")
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"unknown kind of dataset '{kind}'{hint} Expected KIND:PATH, with one of {', '.join(KINDS)}")
    path, _, query = rest.partition("?")
    if not colon or not path:
        raise ValueError(f"'{spec}' names no path: expected '{kind}:PATH'")
    options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    dataset = KINDS[kind](path, options, class_names)
    if options:
        raise ValueError(f"'{kind}' has no option {', '.join(map(repr, options))}: it has {', '.join(_OPTIONS[kind])}")
    return dataset


def _emoji_scenes(path: str, options: Options, class_names: Sequence[str] | None) -> LabelledImages:
    from analyses.data.emoji_scenes.scenes import EmojiScenes

    if class_names is not None and tuple(class_names) != EmojiScenes.class_names:
        raise ValueError(
            f"Emoji Scenes show none of this model's {len(class_names)} classes: give other data, such as "
            "imagenet-s:DIR?n=5, folder:DIR or cifar100:DIR"
        )
    objects = options.pop("objects", "1")
    chosen: dict[str, Any] = {"objects": int(objects) if objects.isdigit() else objects}
    for name, convert in (("image_size", int), ("background_strength", float), ("artists", _words)):
        if name in options:
            chosen[name] = _value(options, name, convert)
    return EmojiScenes(_value({"number of scenes": path}, "number of scenes", int), _seed(options), **chosen)


def _seed(options: Options) -> int:
    return _value(options, "seed", int) if "seed" in options else 0


def _imagenet_s(path: str, options: Options, class_names: Sequence[str] | None) -> LabelledImages:
    from analyses.data.imagenet_s import ImageNetS

    _check_n_classes("ImageNet-S", 1000, class_names)
    chosen: dict[str, Any] = {}
    for name, convert in (("n", int), ("partition", str), ("masks", _yes), ("exclude", _words), ("listing", str)):
        if name in options:
            chosen[name] = _value(options, name, convert)
    return ImageNetS(path, **chosen)


def _folder(path: str, options: Options, class_names: Sequence[str] | None) -> LabelledImages:
    from analyses.data.image_folder import ImageFolder

    classes = options.pop("classes", None)
    return ImageFolder(path, class_names, classes if classes in (None, "sorted") else _lines(Path(classes)))


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"no file '{path}': expected classes=sorted, or a file with one folder name per line")
    return [line.strip() for line in path.read_text("utf-8").splitlines()]


def _cifar100(path: str, options: Options, class_names: Sequence[str] | None) -> LabelledImages:
    from analyses.data.cifar import Cifar100

    _check_n_classes("CIFAR-100", 100, class_names)
    n = _value(options, "n", int) if "n" in options else None
    train, download = (_value(options, name, _yes) if name in options else False for name in ("train", "download"))
    dataset = Cifar100(path, n, train=train, download=download)
    if class_names is not None and tuple(class_names) != numbered_class_names(100):
        own, shown = (
            {name.casefold().replace("_", " ") for name in names} for names in (class_names, dataset.class_names)
        )
        if not own & shown:
            raise ValueError("CIFAR-100 shows none of this model's 100 classes: give other data, such as folder:DIR")
    return dataset


def _check_n_classes(data: str, n_classes: int, class_names: Sequence[str] | None) -> None:
    """Class indices mean nothing to a model with another number of classes."""
    if class_names is not None and len(class_names) != n_classes:
        raise ValueError(
            f"{data} is labelled with {n_classes} classes, this model has {len(class_names)}: give other data, such as "
            "folder:DIR"
        )


KINDS: dict[str, Callable[[str, Options, Sequence[str] | None], LabelledImages]] = {
    "emoji-scenes": _emoji_scenes,
    "imagenet-s": _imagenet_s,
    "folder": _folder,
    "cifar100": _cifar100,
}
"""The function that opens each kind of dataset; it removes its options from the dict."""


_OPTIONS = {
    "emoji-scenes": ("seed", "objects", "image_size", "artists", "background_strength"),
    "imagenet-s": ("n", "partition", "exclude", "masks", "listing"),
    "folder": ("classes",),
    "cifar100": ("n", "train", "download"),
}


def _value(options: Options, name: str, convert: Callable[[str], Any]) -> Any:
    text = options.pop(name)
    try:
        return convert(text)
    except ValueError:
        kind = {int: "a whole number", float: "a number", _yes: "yes or no"}.get(convert, "a value")
        raise ValueError(f"{name}: expected {kind}, got '{text}'") from None


def _yes(text: str) -> bool:
    if text.lower() not in ("yes", "no", "true", "false", "1", "0"):
        raise ValueError
    return text.lower() in ("yes", "true", "1")


def _words(text: str) -> tuple[str, ...]:
    return () if text.lower() in ("", "none") else tuple(text.split(","))


def images_for(model: HookedViT, n: int, data: str | None = None, seed: int = 7) -> LabelledImages:
    """Labelled images for a model.

    Args:
        model: The model whose classes the labels are.
        n: Number of Emoji Scenes, if `data` is `None`.
        data: A dataset as for `open_dataset`, such as `imagenet-s:DIR?n=5`; by default Emoji Scenes.
        seed: Seed of the Emoji Scenes.

    Raises:
        ValueError: If the images are Emoji Scenes and the model has other classes; or as `open_dataset`.
        FileNotFoundError: If there is no dataset at the path in `data`.

    >>> len(images_for(HookedViT.from_pretrained("emoji-vit"), n=40))
    40
    """
    scenes = f"emoji-scenes:{n}?seed={seed}&image_size={model.cfg.image_size[0]}"
    return open_dataset(scenes if data is None else data, model.class_names)

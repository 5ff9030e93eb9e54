"""Class names: finding a class by its name, and timm's names for ImageNet heads."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache


def find_class(name: str, class_names: Sequence[str]) -> int:
    """Index of the class called `name`: its full name, or one of its comma-separated synonyms; case is ignored.

    Raises:
        ValueError: If no class or several have this name; similar names are suggested.

    >>> find_class("tabby cat", ["Egyptian cat", "tabby, tabby cat"])
    1
    """
    wanted = name.strip().casefold()
    synonyms = [(index, part.strip()) for index, full in enumerate(class_names) for part in full.split(",")]
    found = [index for index, full in enumerate(class_names) if full.casefold() == wanted]
    found = found or sorted({index for index, part in synonyms if part.casefold() == wanted})
    if len(found) == 1:
        return found[0]
    if found:
        options = ", ".join(f"{index} ({class_names[index]})" for index in found)
        raise ValueError(f"{len(found)} classes are called '{name}': {options}; give the index instead")
    by_folded = {part.casefold(): part for _, part in synonyms}
    near = [by_folded[match] for match in get_close_matches(wanted, by_folded, n=3)]
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"no class is called '{name}' among {len(class_names)} classes{hint}")


@cache
def imagenet_class_names(n_classes: int) -> tuple[str, ...] | None:
    """timm's descriptions for a head of ImageNet-1k, 12k, 21k or one of their subsets; `None` for another size.

    >>> imagenet_class_names(1000)[281]
    'tabby, tabby cat'
    """
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": n_classes})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(n_classes))


def numbered_class_names(n_classes: int) -> tuple[str, ...]:
    """Names for classes without known names.

    >>> numbered_class_names(2)
    ('class 0', 'class 1')
    """
    return tuple(f"class {index}" for index in range(n_classes))

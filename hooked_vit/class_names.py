"""Class names: finding a class by its name, and timm's names for ImageNet heads."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import TypeAlias

ClassNames: TypeAlias = Sequence[str] | Mapping[int, str]
"""One name per class: in the order of the classes, or by class index."""


def ordered_class_names(class_names: ClassNames) -> tuple[str, ...]:
    """Class names in the order of the classes.

    Raises:
        ValueError: If they are a single string, have no order, or are not strings; or if the keys of a dict are not
            the class indices from 0 on.

    >>> ordered_class_names({1: "dog", 0: "cat"})
    ('cat', 'dog')
    """
    if isinstance(class_names, str):
        raise ValueError(f"expected a list with one name per class, got the string {class_names!r}")
    if isinstance(class_names, Mapping):
        if set(class_names) != set(range(len(class_names))):
            raise ValueError(
                "expected a list with one name per class, or a dict from the class indices 0, 1, … to names, got a "
                f"dict with keys {_first(class_names)}"
            )
        class_names = [class_names[index] for index in range(len(class_names))]
    if isinstance(class_names, set | frozenset):
        raise ValueError(f"expected a list with one name per class, got {_first(class_names)} without an order")
    names = tuple(class_names)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"expected class names as strings, got {_first(wrong)}")
    return names


def _first(values: Iterable[object]) -> str:
    """The first few of the values, for a message."""
    shown = [repr(value) for value in values]
    return ", ".join(shown[:5]) + (", …" if len(shown) > 5 else "")


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

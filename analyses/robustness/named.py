"""Perturbations by name, as on the command line: `fog:5`, `occlusion:0.25`, `fgsm`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from analyses.analysis.base import AnalysisBatch
from analyses.data.dataset import LabelledImages
from analyses.robustness.adversarial import FGSM, PGD
from analyses.robustness.corruptions import CORRUPTIONS, corruption
from analyses.robustness.paired import FromDataset
from analyses.robustness.patches import Occlusion, PatchShuffle
from analyses.robustness.pictures import GaussianBlur, GaussianNoise, OnPictures

__all__ = ["DEFAULT", "InputPerturbation", "named_perturbations", "perturbation"]


@runtime_checkable
class InputPerturbation(Protocol):
    """A function from a batch to its perturbed images, each of which depends on that image and its index alone.

    An attribute `moves_pixels` that is true says that object masks do not fit the perturbed images; an attribute
    `passes`, about how many forward passes it takes per image.
    """

    def __call__(self, batch: AnalysisBatch, /) -> Float[Tensor, "batch channel height width"]: ...


DEFAULT = ("noise", "blur", "occlusion", "patch_shuffle")
"""The perturbations of `Robustness` unless others are given: those that need no other package."""

_BY_NUMBER: dict[str, tuple[Callable[[float], InputPerturbation], float]] = {
    "noise": (lambda deviation: OnPictures(GaussianNoise(deviation)), 0.2),
    "blur": (lambda pixels: OnPictures(GaussianBlur(pixels)), 2.0),
    "occlusion": (Occlusion, 0.5),
    "fgsm": (FGSM, 1.0),
    "pgd": (PGD, 1.0),
}


def named_perturbations(specs: Sequence[str], dataset: LabelledImages | None = None) -> Mapping[str, InputPerturbation]:
    """Several perturbations, by their specs as names.

    Raises:
        ValueError: As `perturbation`, or if two are the same.
        ImportError: If one needs a package that is not installed.
    """
    found = {spec.replace(":", "_"): perturbation(spec, dataset) for spec in specs}
    if len(found) < len(specs):
        raise ValueError(f"expected each perturbation once, got {', '.join(specs)}")
    return found


def perturbation(spec: str, dataset: LabelledImages | None = None) -> InputPerturbation:
    """A perturbation by name, with a number after a colon.

    | spec | perturbation | number |
    |---|---|---|
    | `fog:3` and the others of `CORRUPTIONS` | of ImageNet-C | severity, 1 to 5 |
    | `noise:0.2` | normal noise | standard deviation, of the range of values |
    | `blur:2` | Gaussian blur | standard deviation in pixels |
    | `occlusion:0.5` | patches hidden | share of patches |
    | `patch_shuffle`, `patch_shuffle:2` | pieces in another order | pieces per side; the patches by default |
    | `fgsm:1`, `pgd:1` | adversarial | largest change of a pixel, in steps of 8-bit values |
    | `background` | other backgrounds | only for Emoji Scenes |

    Args:
        spec: The name, or name and number.
        dataset: The dataset of the sweep, for `background`.

    Raises:
        ValueError: If the name is unknown, or the number is not one or out of range.
        ImportError: If it needs a package that is not installed; the message says how to install it.

    >>> perturbation("occlusion:0.25")
    Occlusion(share=0.25, seed=0)
    """
    name, colon, text = spec.partition(":")
    if name == "background" and not colon:
        if not hasattr(dataset, "swap_background"):
            kind = "no dataset" if dataset is None else type(dataset).__name__
            raise ValueError(f"backgrounds can be swapped in Emoji Scenes only, got {kind}")
        swapped: Any = dataset
        return FromDataset(swapped.swap_background())
    if name not in (*CORRUPTIONS, *_BY_NUMBER, "patch_shuffle"):
        known = ", ".join((*_BY_NUMBER, "patch_shuffle", "background", *CORRUPTIONS))
        raise ValueError(f"unknown perturbation '{spec}': expected NAME or NAME:NUMBER, with one of {known}")
    whole = name in CORRUPTIONS or name == "patch_shuffle"
    try:
        number = None if not colon else int(text) if whole else float(text)
    except ValueError:
        raise ValueError(f"'{spec}': expected a {'whole ' if whole else ''}number after the colon") from None
    if name in CORRUPTIONS:
        return corruption(name) if number is None else corruption(name, int(number))
    if name == "patch_shuffle":
        return PatchShuffle(None if number is None else (int(number), int(number)))
    make, default = _BY_NUMBER[name]
    return make(default if number is None else number)

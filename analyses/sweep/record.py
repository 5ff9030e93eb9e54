"""The record of a sweep: model, weights, data, analyses, options and versions; and whether two sweeps are the same."""

import inspect
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torchmetrics import Metric

from analyses.analysis.base import Analysis, analysis_name, snake_case
from analyses.data.dataset import LabelledImages
from analyses.sweep.describe import describe, differences, hash_tensors
from hooked_vit import HookedViT

__all__ = ["FORMAT", "analysis_options", "check_continues", "check_same", "make_record", "upgraded"]

FORMAT = 2
"""Version of the record's layout. `upgraded` reads format 1, which did not yet state its version."""

_SECTIONS = ("model", "preprocessing", "dataset", "analyses", "options")
# the division of the batches and the last bit of an activation depend on these too
_SECTIONS_TO_CONTINUE = (*_SECTIONS, "processes", "arithmetic")
_PACKAGES = (
    "hooked-vit", "torch", "torchvision", "timm", "transformer-lens", "torchmetrics", "accelerate", "pillow", "numpy",
    "pandas",
)  # fmt: skip


def make_record(
    model: HookedViT,
    dataset: LabelledImages,
    n_images: int,
    analyses: Mapping[str, Analysis],
    options: Mapping[str, Any],
    n_processes: int,
) -> dict[str, Any]:
    """Everything that determines a sweep's tables, as JSON."""
    weight = model.embed.weight
    cfg = {name: value for name, value in describe(model.cfg).items() if name != "device"}
    hooks = [
        [name, describe(getattr(handle, "user_hook", None))]
        for name, point in model.hook_dict.items()
        for handle in point.fwd_hooks
    ]
    return {
        "format": FORMAT,
        "model": {"cfg": cfg, "weights_sha256": hash_tensors(model.state_dict()), "hooks": hooks},
        "class_names": list(model.class_names),
        "preprocessing": describe(model.data_config),
        "dataset": {"n_images": n_images, "description": describe(dataset)},
        "analyses": {
            name: {"type": analysis_name(type(analysis)), "options": analysis_options(analysis)}
            for name, analysis in analyses.items()
        },
        "definitions": {name: inspect.getdoc(type(analysis)) for name, analysis in analyses.items()},
        "hook_points": {name: analysis.names(model.cfg) for name, analysis in analyses.items()},
        "options": dict(options),
        "processes": n_processes,
        "arithmetic": {"device": weight.device.type, "torch": torch.__version__},
        "machine": {"device": _device_name(weight.device), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }


def analysis_options(analysis: Analysis) -> Any:
    """The arguments an analysis was constructed with, read from its attributes of the same names.

    If an argument has no such attribute: all attributes but torchmetrics' own.
    """
    parameters = inspect.signature(type(analysis).__init__).parameters.values()
    arguments = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
    attributes = {name: next((a for a in (name, f"_{name}") if hasattr(analysis, a)), None) for name in arguments}
    if all(attributes.values()):
        return {name: describe(getattr(analysis, str(attribute))) for name, attribute in attributes.items()}
    torchmetrics_own = vars(_EmptyMetric()).keys() | analysis._defaults.keys()
    return {name: describe(value) for name, value in vars(analysis).items() if name not in torchmetrics_own}


def upgraded(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record in the current format.

    In format 1, names of this package's classes and functions began with their modules, which have moved since, and
    the numbers of a `Resampling` were options of their own.

    >>> upgraded({"analyses": {"mine": {"type": "analyses.ablation.AblationStudy"}}})["analyses"]
    {'mine': {'type': 'ablation_study'}}
    """
    if record.get("format") == FORMAT:
        return dict(record)
    result: dict[str, Any] = {section: _without_modules(content) for section, content in record.items()}
    for name, entry in result.get("analyses", {}).items():
        entry["type"] = snake_case(entry["type"].rpartition(".")[2])
        options = entry.get("options", {})
        if "n_resamples" in options and record["analyses"][name]["type"].startswith("analyses."):
            options["resampling"] = {
                "type": "Resampling",
                "n_resamples": options.pop("n_resamples"),
                "level": options.pop("level", 0.95),
                "seed": options.get("seed", 0),  # where the analysis draws with it too, it is still an option
            }
    return {"format": FORMAT, **result}


def _without_modules(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_modules(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_modules(entry) for entry in value]
    if isinstance(value, str) and re.fullmatch(r"(analyses|hooked_vit)(\.[\w<>]+)+", value):
        return _qualified_name(value.split("."))
    return value


def _qualified_name(parts: Sequence[str]) -> str:
    """What follows the modules: from the first class, or the function that others are local to, or the last part."""
    classes = [i for i, part in enumerate(parts) if re.match(r"_*[A-Z]", part)]
    enclosing_functions = [i - 1 for i, part in enumerate(parts) if part == "<locals>"]
    return ".".join(parts[min([*classes, *enclosing_functions, len(parts) - 1]) :])


def check_same(then: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """Check that a finished sweep is the same as this one.

    Raises:
        ValueError: If they differ; the message lists the differences.
    """
    _check(then, now, _SECTIONS, f"'{folder}' holds the tables of another sweep")


def check_continues(then: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """Check that this sweep can resume an interrupted one and end with the tables that that would have had.

    Raises:
        ValueError: If they differ; the message lists the differences.
    """
    _check(then, now, _SECTIONS_TO_CONTINUE, f"'{folder}' holds an interrupted sweep that this one cannot continue")


def _check(then: Mapping[str, Any], now: Mapping[str, Any], sections: Sequence[str], problem: str) -> None:
    earlier = ""
    if then.get("format") != FORMAT:
        earlier = "it was written by an earlier version of this package, and "
        then = _with_options_of(now, upgraded(then))
    found = [line for section in sections for line in differences(then.get(section), now.get(section), section)]
    if found:
        shown = "\n  ".join(found[:8]) + (f"\n  and {len(found) - 8} more" if len(found) > 8 else "")
        raise ValueError(
            f"{problem}; {earlier}they differ in\n  {shown}\n"
            "Choose another folder, use the earlier settings, or start over with resume=False, which deletes the files "
            "of the earlier sweep."
        )


def _with_options_of(now: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """`then` with those options of its analyses that `now` has too: format 1 also listed what follows from them."""
    analyses = {name: dict(entry) for name, entry in then.get("analyses", {}).items()}
    for name in analyses.keys() & now.get("analyses", {}).keys():
        options, kept = analyses[name]["options"], now["analyses"][name]["options"]
        analyses[name]["options"] = {option: value for option, value in options.items() if option in kept}
    return {**then, "analyses": analyses} if analyses else dict(then)


class _EmptyMetric(Metric):
    """A metric without states: its attributes are torchmetrics' own."""

    def update(self) -> None: ...

    def compute(self) -> None: ...


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

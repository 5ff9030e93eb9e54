"""The record of a sweep: model, weights, data, analyses, options and versions; and whether two sweeps are the same."""

import inspect
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torchmetrics import Metric

from analyses.analysis.base import Analysis, analysis_name
from analyses.data.dataset import LabelledImages
from analyses.sweep.describe import describe, differences, hash_tensors
from hooked_vit import HookedViT

__all__ = ["FORMAT", "analysis_options", "check_continues", "check_same", "current_format", "make_record"]

FORMAT = 2
"""Version of the record. Records of format 1, which had no version, named classes by their modules."""

_SAME = ("model", "preprocessing", "dataset", "analyses", "options")
# besides, what the last bit of an activation and the division of the batches depend on
_SAME_TO_CONTINUE = (*_SAME, "processes", "arithmetic")
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
    """All that a sweep's tables follow from, as JSON."""
    weight = model.embed.patch.weight
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
            name: {"type": analysis_name(type(one)), "options": analysis_options(one)} for name, one in analyses.items()
        },
        "definitions": {name: inspect.getdoc(type(one)) for name, one in analyses.items()},
        "hook_points": {name: one.names(model.cfg) for name, one in analyses.items()},
        "options": dict(options),
        "processes": n_processes,
        "arithmetic": {"device": weight.device.type, "torch": torch.__version__},
        "machine": {"device": _device_name(weight.device), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }


def analysis_options(analysis: Analysis) -> Any:
    """What an analysis was made with: its constructor's arguments, from the attributes of their names.

    Where an argument is kept under no such name, all attributes that torchmetrics does not keep itself.
    """
    parameters = inspect.signature(type(analysis).__init__).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
    kept = {name: next((a for a in (name, f"_{name}") if hasattr(analysis, a)), None) for name in named}
    if all(kept.values()):
        return {name: describe(getattr(analysis, str(attribute))) for name, attribute in kept.items()}
    metric_keeps = vars(_Bare()).keys() | analysis._defaults.keys()
    return {name: describe(value) for name, value in vars(analysis).items() if name not in metric_keeps}


def current_format(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as this version would have written it: classes and functions of our packages without their modules.

    >>> current_format({"analyses": {"mine": {"type": "analyses.ablation.AblationStudy"}}})["analyses"]
    {'mine': {'type': 'ablation_study'}}
    """
    if record.get("format") == FORMAT:
        return dict(record)
    converted: dict[str, Any] = {name: _without_modules(value) for name, value in record.items()}
    for entry in converted.get("analyses", {}).values():
        entry["type"] = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(entry["type"]).rpartition(".")[2]).lower()
        options = entry.get("options", {})
        if "n_resamples" in options:
            drawn = {"n_resamples": options.pop("n_resamples"), "level": options.pop("level", 0.95), "seed": 0}
            options["resampling"] = {"type": "Resampling", **drawn, "seed": options.pop("seed", 0)}
    return converted


def _without_modules(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_modules(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_modules(entry) for entry in value]
    if isinstance(value, str) and re.fullmatch(r"(analyses|hooked_vit)(\.[\w<>]+)+", value):
        return value.rpartition(".")[2]
    return value


def check_same(then: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Raise ValueError if a finished sweep is another one than this."""
    _check(then, now, _SAME, where, "holds the tables of another sweep")


def check_continues(then: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Raise ValueError if this sweep cannot go on where an interrupted one stopped, and end as that would have."""
    _check(then, now, _SAME_TO_CONTINUE, where, "holds an interrupted sweep that this one cannot continue")


def _check(then: Mapping[str, Any], now: Mapping[str, Any], sections: tuple[str, ...], where: str, what: str) -> None:
    earlier = "" if then.get("format") == FORMAT else "it was written by an earlier version of this package, and "
    then = current_format(then)
    found = [line for section in sections for line in differences(then.get(section), now.get(section), section)]
    if found:
        shown = "\n  ".join(found[:8]) + (f"\n  and {len(found) - 8} more" if len(found) > 8 else "")
        raise ValueError(
            f"'{where}' {what}; {earlier}they differ in\n  {shown}\n"
            "Choose another folder, run it as it was, or start over with resume=False, which deletes what is there."
        )


class _Bare(Metric):
    def update(self) -> None: ...

    def compute(self) -> None: ...


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

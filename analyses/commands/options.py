"""Options that commands share, in groups: a parameter that is a group becomes one option for each of its fields."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["LensFile", "ModelOptions", "RunOptions", "grouped", "parse_numbers", "parse_size"]


@dataclass(frozen=True)
class ModelOptions:
    """The options that select a model."""

    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="emoji-vit, which is bundled; a timm name with its tag, or hf-hub:…; hf:owner/model, of transformers; "
            "open_clip:architecture/weights; or a folder with config.json and weights.",
        ),
    ] = "emoji-vit"
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights for the model: .safetensors, .pt, .pth or .bin.")
    ] = None
    weights_key: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which state dict of FILE, if it holds several, such as teacher.")
    ] = None
    prefix: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What the model's keys in FILE begin with; other keys are left out."),
    ] = None
    ignore_keys: Annotated[
        str | None, typer.Option(metavar="KEY,…", help="Keys of FILE to leave out; * matches anything.")
    ] = None
    img_size: Annotated[
        str | None,
        typer.Option(
            metavar="H,W",
            help="Height and width of the model's input in pixels; positions are resampled. 224 is 224,224.",
        ),
    ] = None
    class_embeddings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Other classes, or classes for a model without any: .safetensors or .npy, one class embedding per "
            "row. hooked-vit prototypes makes such a file from pictures.",
        ),
    ] = None
    class_names_file: Annotated[
        Path | None,
        typer.Option(
            "--class-names", metavar="FILE", help="Names of the classes, one per line in their order, or a JSON list."
        ),
    ] = None
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="An untrained model, always initialised the same; needs no network."),
    ] = False
    two_classes: Annotated[
        bool,
        typer.Option(
            "--two-classes",
            help="For a model with a single logit: two classes, negative and positive, with the logits 0 and the "
            "model's. Their probabilities are the sigmoid of the logit.",
        ),
    ] = False
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, cuda:1, …. By default a GPU, if there is one.")
    ] = None

    @property
    def record(self) -> Mapping[str, Any]:
        """What a JSON document says of the model."""
        record: dict[str, Any] = {"model": self.model, "random_weights": self.random_weights}
        files = {"class_embeddings": self.class_embeddings, "class_names": self.class_names_file}
        record |= {name: str(path) for name, path in files.items() if path is not None}
        record |= {} if self.img_size is None else {"img_size": list(parse_size("--img-size", self.img_size))}
        return {**record, "two_classes": True} if self.two_classes else record


LensFile = Annotated[
    Path | None,
    typer.Option(
        "--lens",
        metavar="FILE",
        help="Project through this tuned lens, from hooked-vit tune, instead of directly: a .safetensors file.",
    ),
]
"""The option of commands that project."""


@dataclass(frozen=True)
class RunOptions:
    """The options of a run over a dataset."""

    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N images.")] = None
    resume: Annotated[
        bool,
        typer.Option(help="Resume an interrupted sweep in DIR; --no-resume deletes it and starts from the beginning."),
    ] = True
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images per forward pass.")] = 32
    workers: Annotated[int, typer.Option(metavar="N", min=0, help="Processes that read images ahead.")] = 0
    checkpoint_every: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="How often each process saves its progress; 0 for after each batch."
        ),
    ] = 30.0
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop at an image that cannot be read, instead of skipping and listing it.")
    ] = False

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The same as arguments of `analyses.sweep.sweep`."""
        return {
            "limit": self.limit,
            "resume": self.resume,
            "batch_size": self.batch_size,
            "num_workers": self.workers,
            "checkpoint_every": self.checkpoint_every,
            "on_error": "raise" if self.stop else "skip",
        }


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a dataclass by its fields, for typer to read.

    >>> def command(model: ModelOptions, out: str = "") -> None:
    ...     print(model.model, out)
    >>> list(inspect.signature(grouped(command)).parameters)[-3:]
    ['two_classes', 'device', 'out']
    >>> grouped(command)(model="test_vit", out="here")
    test_vit here
    """
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            parameters += [_parameter(field.name, field.type, field.default) for field in fields(parameter.annotation)]
        else:
            parameters.append(_parameter(parameter.name, parameter.annotation, parameter.default))

    @wraps(command)
    def run(**values: Any) -> None:
        collected = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group) if field.name in values})
            for name, group in groups.items()
        }
        command(**values, **collected)

    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def parse_numbers(option: str, text: str) -> list[int]:
    """Whole numbers from an option's text.

    Raises:
        ValueError: If the text is not numbers with commas between them.

    >>> parse_numbers("--blocks", "0,4,-1")
    [0, 4, -1]
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} takes numbers with commas between them, such as 0,4,8, got '{text}'") from None


def parse_size(option: str, text: str) -> tuple[int, int]:
    """Height and width from an option's text; a single number is both.

    Raises:
        ValueError: If the text is not one or two numbers above 0.

    >>> parse_size("--img-size", "224,336"), parse_size("--img-size", "224")
    ((224, 336), (224, 224))
    """
    numbers = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    if len(numbers) not in (1, 2) or len(numbers) != text.count(",") + 1 or min(numbers) < 1:
        raise ValueError(f"{option} takes height and width in pixels, such as 224,336, or one number, got '{text}'")
    return numbers[0], numbers[-1]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)

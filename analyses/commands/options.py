"""The options by which every command is told its model."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Device", "ModelName", "RandomWeights", "WeightsFile"]

ModelName = Annotated[
    str, typer.Option(metavar="NAME", help="emoji-vit, which comes along; a timm name with its tag; or hf-hub:…")
]
WeightsFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Weights for the model: .safetensors, .pt, .pth or .bin.")
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="An untrained model, initialised alike each time; needs no network.")
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda:1, …, in the place of a GPU where there is one.")
]

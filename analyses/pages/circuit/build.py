"""A circuit page from two pictures: which edges carry the difference of two classes' logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from analyses.circuits.attribution import Method, edge_attribution
from analyses.circuits.scores import EdgeScores
from analyses.pages.circuit.content import circuit_data
from analyses.pages.page import notebook_frame, picture_url, render_page, write_page
from analyses.patching.metrics import logit_difference
from hooked_vit import HookedViT
from hooked_vit.preprocessing import as_picture

__all__ = ["CircuitPage", "circuit_page"]


@dataclass(frozen=True)
class CircuitPage:
    """A circuit page in one file, without server or network. A notebook displays it inline.

    Attributes:
        html: The whole page.
        scores: The scores of all edges.
        names: The two classes.
        circuits: One row per circuit of the slider: the edges asked for, `n_edges`, `kept`, `left`, `random`.
        n_shown: The edges asked for of the circuit that the page shows first: the smallest that keeps 80 %, if any.
    """

    html: str
    scores: EdgeScores
    names: tuple[str, str]
    circuits: pd.DataFrame
    n_shown: int

    @property
    def summary(self) -> str:
        """What the circuit shown first keeps, in a sentence."""
        row = self.circuits.set_index("asked").loc[self.n_shown]
        return (
            f"{self.names[0]}, not {self.names[1]}: {int(row['n_edges'])} of {self.scores.graph.n_edges} edges keep "
            f"{row['kept']:.0%} of the difference between the pictures, all others {row['left']:.0%}, as many random "
            f"edges {row['random']:.0%}"
        )

    def save(self, path: str | Path) -> Path:
        """Write the page to a file; missing folders are created."""
        return write_page(self.html, path)

    def _repr_html_(self) -> str:
        return notebook_frame(self.html, "Circuit", 860)

    def __repr__(self) -> str:
        return f"CircuitPage({len(self.html) / 1e6:.1f} MB): .save(path) writes it, a notebook displays it"


def circuit_page(
    model: HookedViT,
    clean: Any,
    corrupt: Any,
    classes: Sequence[int | str | None] = (None, None),
    *,
    method: Method = "eap-ig",
    steps: int = 5,
    n_edges: int = 200,
    titles: Sequence[str] = ("picture", "other picture"),
    model_name: str | None = None,
) -> CircuitPage:
    """Find the edges that carry the difference between two pictures, and show them as a graph.

    The metric is the logit of the first class minus that of the second.

    Args:
        model: Any model with classes.
        clean: A picture, as `model.preprocess` accepts it.
        corrupt: Its counterpart: edges outside a circuit take their value in its run.
        classes: The two classes, by name or index; `None` for the class that the model predicts for the picture.
        method: The scores of edges, as for `edge_attribution`.
        steps: As there.
        n_edges: Number of edges of the largest circuit on the page.
        titles: The pictures' names.
        model_name: The model's name.

    Raises:
        ValueError: If a picture cannot be read, a class is unknown, or both classes are the same.

    >>> from analyses.data import sample_scenes
    >>> first, second = sample_scenes()[0].path, sample_scenes()[1].path
    >>> page = circuit_page(HookedViT.from_pretrained("emoji-vit"), first, second, method="eap", n_edges=12)
    >>> page.html[:15]
    '<!doctype html>'
    """
    model.require_several_classes("the difference of two classes' logits")
    images = [model.preprocess(as_picture(picture)) for picture in (clean, corrupt)]
    with torch.no_grad():
        chosen = [
            int(model(image)[0].argmax()) if name is None else model.class_index(name)
            for image, name in zip(images, classes, strict=True)
        ]
    names = [model.class_names[index].split(",")[0] for index in chosen]
    if chosen[0] == chosen[1]:
        raise ValueError(f"both pictures have the class '{names[0]}', predicted or named: name two classes")
    metric = logit_difference(chosen[0], against=chosen[1])
    scores = edge_attribution(model, images[0], images[1], metric, method, steps=steps, rule="midpoint")
    if n_edges < 1:
        raise ValueError(f"expected n_edges of at least 1, got {n_edges}")
    data = circuit_data(model, images[0], images[1], metric, scores, n_edges, steps)
    data |= {"classes": names, "titles": list(titles)}
    shown = [_picture(model.picture_of(image[0])) for image in images]
    page = render_page(
        "circuit/circuit.html",
        styles=["circuit/circuit.css"],
        script="circuit/main.js",
        data=data,
        title=f"{names[0]}, not {names[1]} – circuit",
        pictures=[picture_url(picture) for picture in shown],
        titles=list(titles),
        names=names,
        model_name=model_name,
        ratio=shown[0].width / shown[0].height,
        small=max(shown[0].size) <= 160,
    )
    rows = [{**step, "n_edges": len(step["edges"])} for step in data["circuits"]]
    circuits = pd.DataFrame(rows, columns=["asked", "n_edges", "kept", "left", "random"])
    return CircuitPage(page, scores, (names[0], names[1]), circuits, rows[data["start"]]["asked"])


def _picture(pixels: np.ndarray) -> Image.Image:
    eight_bits = (pixels[..., :3] * 255).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(eight_bits[..., 0] if eight_bits.shape[-1] == 1 else eight_bits)

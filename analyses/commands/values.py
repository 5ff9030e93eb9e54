"""`hooked-vit values`: the classes that memories of a block promote, and the pictures that activate them most."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analyses.commands.errors import USAGE, fail, user_errors
from analyses.commands.options import ModelOptions, grouped, parse_numbers
from analyses.commands.output import AsJson, Reporter

if TYPE_CHECKING:
    from hooked_vit import HookedViT

__all__ = ["MemoryOptions", "PictureOptions", "values"]


@dataclass(frozen=True)
class MemoryOptions:
    """The options that select memories of a block."""

    layer: Annotated[
        int, typer.Option(metavar="N", help="The block; negative ones count from the end.", show_default=False)
    ]
    neuron: Annotated[
        str | None,
        typer.Option(
            metavar="4,8,10", help="Neurons of the MLP; with --sublayer attn, head times d_head plus dimension."
        ),
    ] = None
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Instead: the memories that promote this class most."),
    ] = None
    sublayer: Annotated[str, typer.Option(metavar="mlp|attn", help="The sub-layer of the memories.")] = "mlp"
    top: Annotated[int, typer.Option(metavar="K", min=1, help="Classes per memory, or memories for --class.")] = 5
    unit_length: Annotated[
        bool, typer.Option("--unit-length", help="Cosines with the class embeddings instead of logits.")
    ] = False

    @property
    def side(self) -> Literal["mlp", "attn"]:
        """The sub-layer; ends the command if there is none of this name, or not exactly one way to select memories."""
        if (self.neuron is None) == (self.class_name is None):
            fail("say which memories: --neuron 4,8,10, or --class NAME for those that promote a class most", USAGE)
        if self.sublayer not in ("mlp", "attn"):
            fail(f"--sublayer is mlp or attn, not '{self.sublayer}'", USAGE)
        return "mlp" if self.sublayer == "mlp" else "attn"


@dataclass(frozen=True)
class PictureOptions:
    """The options of the search for pictures that activate memories."""

    data: Annotated[
        str | None,
        typer.Option(metavar="KIND:PATH", help="A dataset to find the pictures that activate them most, as for sweep."),
    ] = None
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N pictures.")] = None
    pictures: Annotated[int, typer.Option(metavar="N", min=1, help="Pictures per memory.")] = 8


@grouped
def values(
    *,
    memory: MemoryOptions,
    picture: PictureOptions,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the figure; created if missing.")] = Path(
        "values"
    ),
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Show which classes the memories of a block promote, and which pictures activate them most.

    A neuron of an MLP, or a dimension of an attention head, is a memory: it writes its value vector, which is
    projected onto the classes. Prints a table, and writes a figure values-LAYER.png; with --data, the figure shows the
    pictures with the largest coefficients, and the patch that has the largest.

    Example: hooked-vit values --layer -1 --class pizza --top 5 --data emoji-scenes:200
    """
    side = memory.side

    from analyses.commands.load_data import load_data
    from analyses.commands.load_model import load_model
    from analyses.commands.values_result import most_active, table_of_classes
    from analyses.plots.value_vectors import value_vectors_figure
    from analyses.value_vectors.vectors import top_classes

    report = Reporter("values", as_json)
    vit = load_model(model, report.progress)
    memories = _selected(vit, memory)
    k = min(memory.top, vit.cfg.n_classes)
    with user_errors(ValueError, status=USAGE):
        classes = top_classes(vit, memory.layer, memories, side, k, unit_length=memory.unit_length)
    label = "cosine" if memory.unit_length else "class logit"
    report.add(**model.record)
    report.show(table_of_classes(classes, label))
    report.add_table("top_classes", classes)
    activations, shown = None, {}
    if picture.data is not None:
        dataset = load_data(picture.data, vit.class_names)
        with user_errors(ValueError, TypeError, OSError):
            activations, shown = most_active(
                vit, dataset, memory.layer, memories, side, picture.pictures, picture.limit, report.progress
            )
        report.add_table("top_activations", activations)
    figure = value_vectors_figure(classes, activations, shown, vit.cfg.patch_size, label)
    report.save_figure(figure, out / f"values-{classes['layer'].iloc[0]}.png")
    report.close()


def _selected(model: "HookedViT", memory: MemoryOptions) -> list[int]:
    """The memories by index: those given by number, or those that promote a class most."""
    from analyses.commands.class_names import class_index
    from analyses.value_vectors.vectors import memory_indices, top_memories

    with user_errors(ValueError, status=USAGE):
        if memory.class_name is None:
            numbers = parse_numbers("--neuron", memory.neuron or "")
            return list(dict.fromkeys(memory_indices(model.cfg, memory.side, numbers)))
        chosen = class_index(model, memory.class_name)
        promoting = top_memories(model, memory.layer, [chosen], memory.side, memory.top, unit_length=memory.unit_length)
    return promoting["memory"].tolist()

"""`hooked-vit values`: what memories of a block speak for, and the pictures that call on them most."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyses.commands.errors import USAGE, fail, user_errors
from analyses.commands.options import Device, ModelName, RandomWeights, WeightsFile
from analyses.commands.output import AsJson, Reporter

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

__all__ = ["values"]


def values(
    layer: Annotated[
        int, typer.Option(metavar="N", help="The block; negative ones count from the end.", show_default=False)
    ],
    neuron: Annotated[
        str | None,
        typer.Option(
            metavar="4,8,10", help="Neurons of the MLP; with --sublayer attn, head times d_head plus dimension."
        ),
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Instead: the memories that speak most for this class."),
    ] = None,
    model: ModelName = "emoji-vit",
    sublayer: Annotated[str, typer.Option(metavar="mlp|attn", help="Whose memories.")] = "mlp",
    top: Annotated[int, typer.Option(metavar="K", min=1, help="Classes of a memory, or memories of --class.")] = 5,
    unit_length: Annotated[
        bool, typer.Option("--unit-length", help="Cosines with the class embeddings, in the place of logits.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(metavar="KIND:PATH", help="Where to look for the pictures that call on them, as for sweep."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N pictures.")] = None,
    pictures: Annotated[int, typer.Option(metavar="N", min=1, help="Pictures a memory.")] = 8,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the figure goes; made if need be.")] = Path("values"),
    weights: WeightsFile = None,
    random_weights: RandomWeights = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Which classes do the memories of a block speak for, and which pictures call on them most?

    A neuron of an MLP, or a dimension of an attention head, is a memory: it writes its value vector, which is
    projected onto the classes. Prints a table, and writes a figure values-LAYER.png; with --data, the figure shows the
    pictures with the largest coefficients, and the patch that has it.

    Example: hooked-vit values --layer -1 --class pizza --top 5 --data emoji-scenes:200
    """
    if (neuron is None) == (class_name is None):
        fail("say which memories: --neuron 4,8,10, or --class NAME for those that speak most for a class", USAGE)
    if sublayer not in ("mlp", "attn"):
        fail(f"--sublayer is mlp or attn, not '{sublayer}'", USAGE)

    from analyses.commands.load_model import load_model
    from analyses.plots.patch_maps import picture_of
    from analyses.plots.value_vectors import value_vectors_figure
    from analyses.value_vectors.vectors import memory_indices, top_classes, top_memories

    report = Reporter("values", as_json)
    vit = load_model(model, weights, random_weights, device, report.progress)
    how = {"unit_length": unit_length}
    label = "cosine" if unit_length else "class logit"
    with user_errors(ValueError, status=USAGE):
        if class_name is not None:
            chosen_class: str | int = int(class_name) if class_name.isdecimal() else class_name
            speaking = top_memories(vit, layer, [chosen_class], sublayer, top, **how)
            memories = speaking["memory"].tolist()
        else:
            memories = list(dict.fromkeys(memory_indices(vit.cfg, sublayer, _numbers(neuron or ""))))
        classes = top_classes(vit, layer, memories, sublayer, min(top, vit.cfg.n_classes), **how)
    report.add(model=model, random_weights=random_weights)
    report.show(_table(classes, label))
    report.add_table("top_classes", classes)
    activations, shown = None, {}
    if data is not None:
        from analyses.data.open import open_dataset
        from analyses.memory_pairs.top_activations import TopActivations, images_at
        from analyses.sweep.run import sweep

        with user_errors(ValueError, status=USAGE), user_errors(FileNotFoundError):
            dataset = open_dataset(data, vit.class_names)
        with user_errors(ValueError, TypeError, OSError):
            analysis = TopActivations(layer, memories, sublayer, k=pictures)
            tables = sweep(vit, dataset, [analysis], limit=limit, progress=report.progress)
            activations = tables["top_activations"]
            report.add_table("top_activations", activations)
            places = list(dict.fromkeys(activations["index"].tolist()))
            images = images_at(vit, dataset, places)
        shown = {place: picture_of(image, vit.data_config or {}) for place, image in zip(places, images, strict=True)}
    figure = value_vectors_figure(classes, activations, shown, vit.cfg.patch_size, label)
    with user_errors(OSError):
        out.mkdir(parents=True, exist_ok=True)
        target = out / f"values-{classes['layer'].iloc[0]}.png"
        figure.savefig(target)
    report.wrote(target)
    report.close()


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--neuron takes numbers with commas between them, such as 4,8,10, got '{text}'") from None


def _table(classes: "pd.DataFrame", label: str) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    first = classes.iloc[0]
    what = "head, dimension" if first["sublayer"] == "attn" else "neuron"
    table = Table(title=f"block {first['layer']}: top classes of value vectors, with their {label}",
                  title_justify="left", title_style="bold")  # fmt: skip
    table.add_column(what, justify="right")
    for place in range(1, 1 + len(set(classes["place"]))):
        table.add_column(f"{place}")
    for memory, rows in classes.groupby("memory", sort=False):
        name = f"{memory}" if what == "neuron" else f"{rows['head'].iloc[0]}, {rows['dimension'].iloc[0]}"
        pairs = zip(rows["class_name"], rows["logit"], strict=True)
        table.add_row(name, *(f"{escape(one.split(',')[0])} {value:.2f}" for one, value in pairs))
    return table

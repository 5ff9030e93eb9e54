"""`hooked-vit circuit`: the edges that carry the difference between two pictures, as one interactive page."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from analyses.commands.errors import USAGE, fail, user_errors
from analyses.commands.options import ModelOptions, grouped
from analyses.commands.output import AsJson, Reporter
from analyses.commands.pictures import read_picture, require_pictures

__all__ = ["circuit"]


@grouped
def circuit(
    *,
    clean: Annotated[Path, typer.Argument(help="A picture, in any format that PIL reads.", show_default=False)],
    corrupt: Annotated[Path, typer.Argument(help="Its counterpart, which differs in one thing.", show_default=False)],
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="NAME", help="The first picture's class, by name or index. By default the predicted one."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The other picture's class, by name or index. By default the predicted one."),
    ] = None,
    method: Annotated[
        Literal["eap", "eap-ig", "eap-gp"],
        typer.Option(help="How edges are scored: by one gradient, or by several along a path between the pictures."),
    ] = "eap-ig",
    edges: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of edges of the largest circuit on the page.")
    ] = 200,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page. By default NAME-OTHER-circuit.html in the current folder."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw the circuit that keeps 80 % as a figure.")
    ] = None,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Find the circuit that tells two pictures apart, in an interactive page for your browser.

    Scores every edge between the model's parts by how far the logit of the first picture's class, minus that of the
    other's, moves when the edge carries the other picture. The page shows circuits of growing size, what each keeps of
    the difference, and where in the picture each edge comes from. One file that needs no server and no network.

    Example: hooked-vit circuit photo.jpg other.jpg --class bus --out page.html
    """
    require_pictures(clean, corrupt)
    target = out or Path(f"{clean.stem}-{corrupt.stem}-circuit.html")
    for path, option in ((target, "--out"), (figure, "--figure")):
        if path is not None and path.is_dir():
            fail(f"{option} must be a file, '{path}' is a folder", USAGE)

    from analyses.circuits.search import greedy_circuit
    from analyses.commands.class_names import class_index
    from analyses.commands.load_model import load_model
    from analyses.pages.circuit.build import circuit_page
    from analyses.plots.circuit_graph import circuit_figure
    from analyses.progress import working

    report = Reporter("circuit", as_json)
    pictures = [read_picture(path) for path in (clean, corrupt)]
    vit = load_model(model, report.progress)
    classes = [None if name is None else class_index(vit, name) for name in (class_name, against)]
    name = f"{model.model}, random weights" if model.random_weights else model.model
    with user_errors(ValueError, OSError), working("finding the circuit", report.progress):
        page = circuit_page(
            vit, pictures[0], pictures[1], classes, method=method, n_edges=edges, titles=[clean.name, corrupt.name],
            model_name=name,
        )  # fmt: skip
        page.save(target)
    report.add(**model.record, clean=str(clean), corrupt=str(corrupt), names=list(page.names), method=method)
    report.add_table("edges", page.scores.table(edges))
    report.add_table("circuits", page.circuits)
    report.say(page.summary)
    report.wrote(target)
    if figure is not None:
        shown = greedy_circuit(page.scores, page.n_shown)
        title = f"{page.names[0]}, not {page.names[1]}: {shown.n_edges} edges"
        report.save_figure(circuit_figure(shown, page.scores, title=title), figure, dpi=150)
    report.close()

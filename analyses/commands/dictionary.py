"""`hooked-vit dictionary`: train a sparse dictionary, score it, or show its latents in one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from analyses.commands.errors import USAGE, fail, user_errors
from analyses.commands.options import ModelOptions, grouped
from analyses.commands.output import AsJson, Reporter, make_folder

if TYPE_CHECKING:
    from analyses.data.dataset import LabelledImages
    from analyses.dictionaries.dictionary import Dictionary
    from analyses.dictionaries.training.fitting import FitOptions
    from hooked_vit import HookedViT

__all__ = ["dictionary"]


@grouped
def dictionary(
    *,
    action: Annotated[
        Literal["train", "score", "page"],
        typer.Argument(help="Train one, score one, or show its latents in a page.", show_default=False),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="KIND:PATH",
            help="The pictures: emoji-scenes:1000, imagenet-s:DIR?n=5, folder:DIR, cifar100:DIR.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="train: the folder for the dictionary and its checkpoints. score: a folder for tables and figures. "
            "page: the page. By default NAME-dictionary, NAME-scores or NAME-latents.html in the current folder.",
        ),
    ] = None,
    dictionary_file: Annotated[
        str | None,
        typer.Option(
            "--dictionary",
            metavar="FILE",
            help="score, page: a .safetensors file that train wrote, or the name of an embedded one. By default the "
            "embedded one that fits the model.",
        ),
    ] = None,
    stream: Annotated[
        str, typer.Option(metavar="NAME", help="train: the activation, by its short name.")
    ] = "resid_post",
    writes: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="train: for a transcoder, the activation of the same block that is reconstructed: --stream mlp_in "
            "--writes mlp_out.",
        ),
    ] = None,
    layer: Annotated[
        int, typer.Option(metavar="N", help="train: the block; negative numbers count from the end.")
    ] = -1,
    kind: Annotated[
        Literal["relu", "topk", "batch_topk", "jump_relu", "matryoshka"],
        typer.Option(help="train: which latents are active."),
    ] = "topk",
    d_dict: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="train: number of latents. By default 16 times the width.")
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            metavar="N",
            min=1,
            help="train: active latents per token of topk, batch_topk and matryoshka. By default 32.",
        ),
    ] = None,
    penalty: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="train: weight of the sparsity penalty of relu and jump_relu, which sets how many latents are active. "
            "By default 0.01.",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="train: Adam's learning rate. By default 0.001.")
    ] = None,
    tokens: Annotated[str, typer.Option(metavar="any|patch|cls|…", help="train: the tokens that it is for.")] = "any",
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="train: passes over the pictures.")] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the training, and of the random dictionary.")] = 0,
    resume: Annotated[
        bool,
        typer.Option(
            help="train: resume an interrupted training in --out; --no-resume deletes it and starts from the beginning."
        ),
    ] = True,
    latents: Annotated[
        int, typer.Option(metavar="N", min=1, help="page: the most latents to show, the most frequent ones.")
    ] = 512,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="score, page: only the first N images.")] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images per forward pass.")] = 32,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Train a sparse dictionary on a model's activations, score it, or show its latents in an interactive page.

    train writes a .safetensors file; an interrupted training resumes. score measures how well the dictionary
    reconstructs, what the model keeps when it is spliced in, and how many true factors (of Emoji Scenes; of other
    data, classes) have a latent of their own, beside a random dictionary and the MLP's neurons. page writes one HTML
    file that needs no server and no network.

    Example: hooked-vit dictionary page --data emoji-scenes:2000 --out latents.html
    """
    if action == "train" and dictionary_file is not None:
        fail("--dictionary is for score and page: train makes a new one", USAGE)
    fitting = _fit_options(action, kind, k, penalty, learning_rate)
    default = {"train": "dictionary", "score": "scores", "page": "latents.html"}[action]
    target = out or Path(f"{model.model.replace('/', '-').replace(':', '-')}-{default}")
    if action == "page" and target.is_dir():
        fail(f"--out must be a file, '{target}' is a folder", USAGE)

    from analyses.commands.load_data import load_data
    from analyses.commands.load_model import load_model

    report = Reporter("dictionary", as_json)
    vit = load_model(model, report.progress)
    dataset = load_data(data, vit.class_names)
    report.add(**model.record, action=action, data=data)
    if action == "train":
        options = {"kind": kind, "d_dict": d_dict, "tokens": tokens, "epochs": epochs, "seed": seed}
        options |= {"writes": writes, "resume": resume}
        options |= {"options": fitting} if k is None else {"options": fitting, "k": k}
        _train(report, vit, dataset, target, stream, layer, batch_size, options)
    else:
        chosen, name = _loaded(vit, dictionary_file)
        run = {"limit": limit, "batch_size": batch_size, "progress": report.progress}
        with user_errors(ValueError, OSError, ImportError):
            if action == "score":
                _score(report, vit, dataset, chosen, target, seed, run)
            else:
                _page(report, vit, dataset, chosen, target, latents, {**run, "name": name, "model_name": model.model})
    report.close()


def _fit_options(
    action: str, kind: str, k: int | None, penalty: float | None, learning_rate: float | None
) -> "FitOptions":
    """The options of a training; an option that would do nothing is an error."""
    from analyses.dictionaries.training.fitting import FitOptions

    with_penalty = kind in ("relu", "jump_relu")
    if action == "train" and k is not None and with_penalty:
        fail(f"--k is for topk, batch_topk and matryoshka: how many latents of {kind} are active follows from "
             "--penalty", USAGE)  # fmt: skip
    if action == "train" and penalty is not None and not with_penalty:
        fail(f"--penalty is for relu and jump_relu: how many latents of {kind} are active follows from --k", USAGE)
    given: dict[str, Any] = {"penalty": penalty, "learning_rate": learning_rate}
    for name, value in given.items():
        if value is not None and not 0 < value < float("inf"):
            fail(f"--{name.replace('_', '-')} must be a positive number, got {value:g}", USAGE)
    return FitOptions(**{name: value for name, value in given.items() if value is not None})


def _loaded(model: "HookedViT", file: str | None) -> "tuple[Dictionary, str]":
    """The dictionary, and its name."""
    from analyses.dictionaries.loading import load_dictionary
    from analyses.dictionaries.scores.over_dataset import embedded_dictionary_for

    with user_errors(ValueError, OSError):
        name = file or embedded_dictionary_for(model.cfg.d_model)
        dictionary = load_dictionary(name, model.cfg.device)
        dictionary.check_fits(model)
    return dictionary, name


def _train(
    report: Reporter,
    model: "HookedViT",
    dataset: "LabelledImages",
    folder: Path,
    stream: str,
    layer: int,
    batch_size: int,
    options: dict[str, Any],
) -> None:
    import pandas as pd

    from analyses.dictionaries.training.training import train_dictionary
    from analyses.value_vectors.vectors import block_index

    before = set(folder.glob("*.safetensors")) if folder.is_dir() else set()
    with user_errors(ValueError, OSError):
        trained = train_dictionary(
            model,
            dataset,
            stream,
            block_index(model.cfg, layer),
            out=folder,
            batch_size=batch_size,
            progress=report.progress,
            **options,
        )
    config = trained.config
    file = folder / f"{config.writes}.safetensors"
    files = [file] if file.is_file() else sorted(set(folder.glob("*.safetensors")) - before)
    table = {
        "reads": config.reads,
        "writes": config.writes,
        "kind": config.kind,
        "d_dict": config.d_dict,
        "k": config.k,
    }
    report.add_table("dictionaries", pd.DataFrame([{**table, "tokens": config.tokens}]))
    point = f"{config.reads} to {config.writes}" if config.is_transcoder else config.writes
    report.say(f"{config.d_dict} latents of {point}, {config.kind.replace('_', ' ')}")
    report.wrote(*files)


def _score(
    report: Reporter,
    model: "HookedViT",
    dataset: "LabelledImages",
    dictionary: "Dictionary",
    folder: Path,
    seed: int,
    run: dict[str, Any],
) -> None:
    from analyses.dictionaries.null import random_dictionary
    from analyses.dictionaries.scores.features import latent_features, neuron_features
    from analyses.dictionaries.scores.measurable import MIN_IMAGES
    from analyses.dictionaries.scores.monosemanticity import compare_features, factor_scores
    from analyses.dictionaries.scores.over_dataset import DictionaryFidelity
    from analyses.dictionaries.scores.pooling import pool_features
    from analyses.pages.dictionary.content import true_factors
    from analyses.plots.dictionaries import dictionary_fidelity_figure, factor_figure
    from analyses.sweep.run import sweep

    fidelity = sweep(model, dataset, [DictionaryFidelity(dictionary, seed=seed)], **run)["dictionary_fidelity"]
    features = [latent_features(dictionary)]
    k = dictionary.config.k
    features += [] if k is None else [latent_features(random_dictionary(dictionary, seed), "random latents")]
    point = dictionary.config.writes.split(".")
    if point[0] == "blocks":
        features.append(neuron_features(model, int(point[1]), dictionary.config.tokens))
    pooled = pool_features(model, dataset, features, **run)
    factors = true_factors(model, dataset, pooled["latents"])
    summary = compare_features(pooled, factors, seed=seed)
    scores = factor_scores(pooled["latents"], factors, seed=seed)
    rows = fidelity.set_index(["dictionary", "metric"])["value"]
    report.say(
        f"explained variance {rows['given', 'explained_variance']:.3f}, {rows['given', 'l0']:.1f} active latents per "
        f"token, {rows['given', 'dead_percent']:.1f} % dead; {rows['given', 'loss_recovered']:.3f} of the loss "
        f"recovered (random: {rows['random', 'loss_recovered']:.3g}); accuracy {rows['plain', 'accuracy']:.1f} % "
        f"plain, {rows['given', 'accuracy']:.1f} % spliced"
    )
    own = (summary["features"] == "latents").to_numpy()
    counts = {name: summary[name].to_numpy()[own].sum() for name in ("n_found", "n_values", "n_left_out", "null_found")}
    report.say(
        f"{counts['n_found']} of {counts['n_values']} factor values have a latent (AUROC of at least 0.9 on held-out "
        f"pictures); with permuted factors, {counts['null_found']:.1f} have"
    )
    if counts["n_left_out"]:
        report.say(
            f"{counts['n_left_out']} values are left out: fewer than {MIN_IMAGES} pictures with or without them in one "
            "half"
        )
    make_folder(folder)
    for name, table in (("fidelity", fidelity), ("factors", summary), ("factor_scores", scores)):
        report.add_table(name, table)
        report.save_csv(table, folder / f"{name}.csv")
    report.save_figure(dictionary_fidelity_figure(fidelity, title=dictionary.config.writes), folder / "fidelity.png")
    report.save_figure(factor_figure(summary, title=dictionary.config.writes), folder / "factors.png")


def _page(
    report: Reporter,
    model: "HookedViT",
    dataset: "LabelledImages",
    dictionary: "Dictionary",
    target: Path,
    n_latents: int,
    options: dict[str, Any],
) -> None:
    from analyses.pages.dictionary.build import dictionary_page

    page = dictionary_page(model, dataset, dictionary, n_latents=n_latents, **options)
    page.save(target)
    report.add_table("latents", page.table())
    report.say(page.summary)
    report.wrote(target)

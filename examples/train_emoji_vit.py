"""How the embedded models were trained: timm's VisionTransformer on Emoji Scenes, on two CPU cores."""

# Three models are bundled with hooked_vit, and this script trains each of them:
#
#     python examples/train_emoji_vit.py emoji-vit            # CLS token; from nothing
#     python examples/train_emoji_vit.py emoji-vit-gap        # average pooling, four registers, no CLS, LayerScale
#     python examples/train_emoji_vit.py emoji-vit-context    # class-correlated backgrounds
#     python examples/train_emoji_vit.py emoji-vit --leave-out noto                  # never sees one artist
#     python examples/train_emoji_vit.py emoji-vit --start emoji-vit --rate 0.25     # starts from existing weights
#
# It leaves a weight file and a model card in out/. Stop it whenever you like, with kill -9 if you must: the same
# command resumes from the last checkpoint, with bit-identical weights at the end, on the same machine with the same
# number of threads.

# %%
import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Annotated, Any

import torch
import torch.nn.functional as F
import typer
from jaxtyping import Float
from measure_emoji_vit import answers, best_temperature, measure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from analyses.data import ARTISTS, EmojiScenes
from hooked_vit import keep_freed_memory

# %% The three models
# Small enough to carry along (1.6 million parameters, 3.3 MB in half precision), deep enough that a class is built up
# over blocks. The second differs from the first in everything that timm lets differ without a new kind of block, so
# that whoever writes an analysis for one of them finds out what they took for granted.

_SIZE: dict[str, Any] = {
    "img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 8, "num_heads": 4, "num_classes": 100, "qkv_bias": True,
}  # fmt: skip
_WITHOUT_CLS = {
    "class_token": False, "reg_tokens": 4, "no_embed_class": True, "global_pool": "avg", "init_values": 0.5,
}  # fmt: skip
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "emoji-vit": _SIZE,
    "emoji-vit-gap": {**_SIZE, **_WITHOUT_CLS},
    "emoji-vit-context": _SIZE,
}
PREPROCESSING = {
    "input_size": [3, 64, 64], "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center",
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training run: with the machine and its threads, all that its weights depend on.

    `pair_share` of a batch shows two objects, `hidden_share` one of which three quarters are hidden. `rate` scales
    both learning rates: 1 from nothing, less to start from weights. `drop` of the patches are left out in the first
    `drop_until` of the steps.
    """

    model: str
    steps: int = 6000
    batch: int = 128
    seed: int = 0
    rate: float = 1.0
    warm_up: float = 200.0
    pair_share: float = 0.5
    hidden_share: float = 0.0
    background_strength: float = 0.0
    drop: float = 0.4
    drop_until: float = 0.7
    artists: tuple[str, ...] = ARTISTS
    start_sha256: str | None = None
    depth: int | None = None

    @property
    def architecture(self) -> dict[str, Any]:
        """What timm's VisionTransformer is called with."""
        return ARCHITECTURES[self.model] | ({} if self.depth is None else {"depth": self.depth})


# %% What it sees
# No scene is ever seen twice: the batch of a step is a function of (seed, step) alone. That is also why a run can be
# resumed without remembering where the data were. Two objects are harder than one, and there is more to learn from
# them, so they are half of each batch. A background thread draws the next batch meanwhile (some 4,000 scenes a second:
# next to nothing compared with a training step).

TRAINING, CALIBRATING = 1_000_000, 3_000_000
_ENDLESS = 10**9


def training_batch(
    run: Run, step: int
) -> tuple[Float[Tensor, "batch channel height width"], Float[Tensor, "batch n_classes"]]:
    """Images and targets of a step. A target is 1 for the one object's class, or one half for each of two.

    >>> images, targets = training_batch(Run("emoji-vit", batch=8), step=3)
    >>> images.shape, targets.max(-1).values.tolist()
    (torch.Size([8, 3, 64, 64]), [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5])
    """
    n_pairs, n_hidden = round(run.batch * run.pair_share), round(run.batch * run.hidden_share)
    options: dict[str, Any] = {"artists": run.artists, "background_strength": run.background_strength}
    one = EmojiScenes(_ENDLESS, TRAINING + run.seed, **options)
    two = EmojiScenes(_ENDLESS, TRAINING + run.seed, objects=2, **options)
    kinds = [(one, run.batch - n_pairs - n_hidden, 0), (one.occlude(0.75), n_hidden, _ENDLESS // 2), (two, n_pairs, 0)]
    batches = [scenes.batch(range(first + n * step, first + n * (step + 1))) for scenes, n, first in kinds if n]
    targets = [F.one_hot(batch.labels, _SIZE["num_classes"]).float().mean(1) for batch in batches]
    return torch.cat([batch.images for batch in batches]), torch.cat(targets)


def training_batches(run: Run, first: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(step, images, targets) from a step on, each batch drawn while the one before is learnt."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(training_batch, run, first)
        for step in range(first, run.steps):
            images, targets = coming.result()
            if step + 1 < run.steps:
                coming = thread.submit(training_batch, run, step + 1)
            yield step, images, targets


# %% How it learns
# Muon, which makes every update of a matrix an orthogonal one, learns clearly more from each picture than AdamW does;
# it is meant for the matrices inside the blocks. AdamW takes the rest: embeddings, norms, biases, head. Both warm up
# and then, over the last 45 % of the steps, fall to zero in a straight line; after that an average of weights has
# nothing left to smooth. No label smoothing: it would spoil the confidence, which is to mean something.


Optimizers = tuple[torch.optim.Optimizer, ...]


def make_optimizers(model: nn.Module, rate: float) -> Optimizers:
    """Muon for the blocks' matrices, AdamW for all else."""
    matrices = [p for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
    rest = [p for name, p in model.named_parameters() if not (name.startswith("blocks.") and p.ndim == 2)]
    return (
        torch.optim.Muon(matrices, lr=0.02 * rate, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=0.0015 * rate, betas=(0.9, 0.98), weight_decay=0.01),
    )


def schedule(run: Run, step: int) -> float:
    """Share of the learning rate at a step: up, level, down to zero.

    >>> [round(schedule(Run("emoji-vit", steps=1000), step), 2) for step in (0, 99, 500, 550, 775, 999)]
    [0.01, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    return min(1.0, (step + 1) / run.warm_up, (run.steps - step) / (0.45 * run.steps))


# Background patches have little to say, and objects more than one patch. So for most of the run a random part of the
# patches is left out: what is left is learnt from in little more than half of the time, and the model gets used to
# objects of which it sees a part. The last steps show whole pictures again.


def dropped(run: Run, step: int) -> float:
    """Share of the patches that are left out at a step."""
    return run.drop if step < run.drop_until * run.steps else 0.0


def train_step(
    model: VisionTransformer, optimizers: Optimizers, run: Run, step: int,
    images: Float[Tensor, "batch channel height width"], targets: Float[Tensor, "batch n_classes"],
) -> float:  # fmt: skip
    """One update; the loss before it."""
    torch.manual_seed(run.seed * _ENDLESS + step)  # which patches are left out
    model.train()
    model.patch_drop.prob = dropped(run, step)  # pyright: ignore
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * schedule(run, step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    loss = F.cross_entropy(logits.float(), targets)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


# %% Where it starts
# From random weights; or, if time is short, from existing weights. Those of the model with a CLS token also fit
# the one without: its head reads patches through the same norm, each register begins as the CLS token was, and where
# LayerScale is to halve what a sub-layer says, the sub-layer says it twice as loud.


def warm_start(model: VisionTransformer, weights: dict[str, Tensor]) -> None:
    """Fill a model, in place, with the weights of another that has the same blocks.

    Raises:
        ValueError: If a part of the model has no weight of the right shape.
    """
    weights = {name: tensor.float() for name, tensor in weights.items()}
    n_patches = model.patch_embed.num_patches
    if "cls_token" in weights and model.cls_token is None:
        read_from = weights["cls_token"] + weights["pos_embed"][:, :1]
        noise = torch.randn(1, model.num_reg_tokens, model.embed_dim, generator=torch.Generator().manual_seed(0))
        weights["reg_token"] = read_from + 0.02 * noise
        weights["pos_embed"] = weights["pos_embed"][:, -n_patches:]
        weights["fc_norm.weight"], weights["fc_norm.bias"] = weights["norm.weight"], weights["norm.bias"]
        for name, gamma in model.state_dict().items():
            if name.endswith(".gamma"):
                last = name.replace("ls1.gamma", "attn.proj").replace("ls2.gamma", "mlp.fc2")
                weights[name] = gamma
                weights[f"{last}.weight"] = weights[f"{last}.weight"] / gamma[:, None]
                weights[f"{last}.bias"] = weights[f"{last}.bias"] / gamma
    wanted = model.state_dict()
    unfit = [name for name, tensor in wanted.items() if name not in weights or weights[name].shape != tensor.shape]
    if unfit:
        raise ValueError(f"the weights to start from have nothing that fits {', '.join(unfit)}: start from nothing")
    model.load_state_dict({name: weights[name] for name in wanted})


# For tokens as few as these, PyTorch's fused attention is slow on a CPU, backwards above all: with plain attention a
# step takes 1.1 seconds of processor time instead of 1.7.


def build(run: Run, weights: dict[str, Tensor] | None = None) -> VisionTransformer:
    """The model before its first step."""
    torch.manual_seed(run.seed)
    # any rate makes timm put its dropout of patches there; the steps say how many to drop
    model = VisionTransformer(**run.architecture, patch_drop_rate=0.5)
    for block in model.blocks:
        block.attn.fused_attn = False  # pyright: ignore
    if weights is not None:
        warm_start(model, weights)
    return model


# %% Checkpoints
# A checkpoint is written next to the last one and then renamed over it, so a complete one exists at any moment. Until
# the learning rate begins to fall, a run knows nothing of how long it will be; so a run that turns out too long for the
# evening can be stopped and repeated with fewer --steps, and continues as if that had been the plan.


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that is either complete or absent, even if the power fails."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def save_checkpoint(
    path: Path, run: Run, step: int, model: nn.Module, optimizers: Optimizers, losses: list[float]
) -> None:
    """Everything that the remaining steps depend on."""
    states = [optimizer.state_dict() for optimizer in optimizers]
    kept = {"run": asdict(run), "step": step, "model": model.state_dict(), "optimizers": states, "losses": losses}
    with written_whole(path) as file:
        torch.save(kept, file)


def load_checkpoint(path: Path, run: Run, model: nn.Module, optimizers: Optimizers) -> tuple[int, list[float]]:
    """Fill model and optimizers in place; the step to resume at, and the losses so far.

    Raises:
        ValueError: If the checkpoint is another run's.
    """
    kept = torch.load(path, weights_only=True)
    was, step = Run(**kept["run"]), kept["step"]
    same_so_far = all(
        schedule(run, i) == schedule(was, i) and dropped(run, i) == dropped(was, i) for i in range(step)
    ) and step <= run.steps  # fmt: skip
    changed = [name for name, value in asdict(run).items() if value != getattr(was, name)]
    if changed and not (changed == ["steps"] and same_so_far):
        differing = ", ".join(f"{name} {getattr(was, name)} instead of {getattr(run, name)}" for name in changed)
        raise ValueError(
            f"'{path}' is of another run ({differing}): repeat its options, or delete it, or choose another --out"
        )
    model.load_state_dict(kept["model"])
    for optimizer, state in zip(optimizers, kept["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    return step, kept["losses"]


def train(
    run: Run, folder: Path, weights: dict[str, Tensor] | None = None, checkpoint_every: int = 100,
    console: Console | None = None,
) -> tuple[VisionTransformer, list[float]]:  # fmt: skip
    """Train from the last checkpoint in a folder, or from the start; the model and the loss of every step."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, model = folder / "checkpoint.pt", build(run, weights)
    both = make_optimizers(model, run.rate)
    for optimizer in both:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    first, losses = load_checkpoint(checkpoint, run, model, both) if checkpoint.exists() else (0, [])
    columns = (
        TextColumn(run.model), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
        TextColumn("{task.fields[speed]:.0f} images/s"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, refresh_per_second=1) as progress:
        bar = progress.add_task(run.model, total=run.steps, completed=first, loss=float("nan"), speed=0.0)
        begun = time.perf_counter()
        for step, images, targets in training_batches(run, first):
            losses.append(train_step(model, both, run, step, images, targets))
            speed = run.batch * (step + 1 - first) / (time.perf_counter() - begun)
            progress.update(bar, advance=1, loss=sum(losses[-50:]) / len(losses[-50:]), speed=speed)
            if (step + 1) % checkpoint_every == 0 or step + 1 == run.steps:
                save_checkpoint(checkpoint, run, step + 1, model, both, losses)
    return model.eval(), losses


# %% The card
# A model that stops learning here is a little too modest; one number, a temperature found on scenes neither for
# training nor for testing and folded into the head, mends that and changes no answer. Then it is measured as it is
# kept, in half precision. What the card says is written from the numbers, so it cannot praise a model that they do not.

_BARS = {"emoji-vit": (0.99, 0.92), "emoji-vit-gap": (0.97, 0.88)}


def fold_temperature(model: VisionTransformer, temperature: float) -> None:
    """Divide the logits by the temperature, in place: head's weight and bias."""
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.div_(temperature)


def weaknesses(run: Run, measured: dict[str, Any]) -> list[str]:
    """The weaknesses to know before relying on a model."""
    by_class, by_artist = measured["single_top1_by_class"], measured["single_top1_by_artist"]
    worst = sorted(by_class, key=by_class.get)[:5]
    artist = min(by_artist, key=by_artist.get)
    sentences = [
        "Least often right on " + ", ".join(f"{name} ({by_class[name]:.1%})" for name in worst) + ".",
        f"Least often right on the emoji of {artist} ({by_artist[artist]:.1%})"
        + (", which it has never seen." if artist not in run.artists else "."),
        f"Right on {measured['single_top1_of_small_objects']:.1%} of objects smaller than half of the picture's side.",
        f"Of two objects it names both in {measured['two_objects_both_in_top2']:.1%} of scenes; its confidence is "
        "calibrated for one object only.",
        "It knows scenes of one or two whole emoji on noise, 64 x 64 pixels, and nothing else: three or more objects, "
        "photographs and other artists are outside what it has learnt.",
    ]
    backgrounds = measured["backgrounds"]
    own, other = backgrounds["top1_on_own_groups_colours"], backgrounds["top1_on_another_groups_colours"]
    if own - other > 0.01:
        sentences.append(
            f"Backgrounds mislead it: in another group's colours it is right in {other:.1%}, not {own:.1%}."
        )
    for name, bar, reached in zip(
        ("one-object top-1", "both objects in the top 2"),
        _BARS.get(run.model, ()),
        (measured["single_top1"], measured["two_objects_both_in_top2"]),
        strict=False,
    ):
        if reached < bar:
            sentences.insert(0, f"It misses what was aimed at in {name}: {reached:.1%} instead of {bar:.0%}.")
    return sentences


def recipe_in_words(run: Run, start_card: dict[str, Any] | None) -> str:
    """The recipe in one or two sentences, with that of the weights it started from."""
    text = (
        f"Emoji Scenes by {', '.join(run.artists)}: {run.steps:,} steps of {run.batch} scenes, {run.pair_share:.0%} "
        f"with two objects"
        + (f", {run.hidden_share:.0%} with an object three quarters hidden" if run.hidden_share else "")
        + (f", backgrounds of the group's colours with probability {run.background_strength}"
           if run.background_strength else "")
        + f"; bf16 autocast, Muon ({0.02 * run.rate:g}) on the blocks' matrices and AdamW ({0.0015 * run.rate:g}) on "
        f"the rest, linear decay over the last 45 %; {run.drop:.0%} of the patches left out in the first "
        f"{run.drop_until:.0%} of the steps. "
    )  # fmt: skip
    if run.start_sha256 is None:
        return text + "From nothing."
    before = f", which were trained so: {start_card['trained_on']}" if start_card else "."
    return text + f"Not from nothing: from weights that were there (SHA-256 {run.start_sha256[:16]}...){before}"


def finish(
    run: Run, model: VisionTransformer, losses: list[float], folder: Path, start_card: dict[str, Any] | None = None,
    n_scenes: int = 4000,
) -> dict[str, Any]:  # fmt: skip
    """Calibrate, round to half precision, measure, and write weights and card; the card."""
    logits, labels, _ = answers(model, EmojiScenes(n_scenes, CALIBRATING, artists=run.artists))
    temperature = best_temperature(logits, labels[:, 0])
    fold_temperature(model, temperature)
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    measured = measure(model, n_scenes)
    stretch = max(1, len(losses) // 20)
    card = {
        "architecture": run.architecture,
        "preprocessing": PREPROCESSING,
        "classes": "emoji_classes.json",
        "trained_on": recipe_in_words(run, start_card),
        "run": asdict(run) | {"torch": torch.__version__, "threads": torch.get_num_threads()},
        "loss": [round(sum(losses[i : i + stretch]) / len(losses[i : i + stretch]), 4)
                 for i in range(0, len(losses), stretch)],
        "temperature_folded_into_head": round(temperature, 4),
        "measured": measured,
        "weaknesses": weaknesses(run, measured),
    }  # fmt: skip
    with written_whole(folder / f"{run.model}.safetensors") as file:
        file.write(save(weights))
    with written_whole(folder / f"{run.model}.json") as file:
        file.write((json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())
    return card


# %% The command


def main(
    model: Annotated[str, typer.Argument(help=f"One of {', '.join(ARCHITECTURES)}.")] = "emoji-vit",
    out: Annotated[Path | None, typer.Option(help="For checkpoint, weights and card; by default out/MODEL.")] = None,
    steps: int = 6000,
    batch: int = 128,
    seed: int = 0,
    rate: Annotated[float, typer.Option(help="Scales the learning rates; less than 1 to start from weights.")] = 1.0,
    warm_up: Annotated[float, typer.Option(help="Steps until the learning rates are reached.")] = 200.0,
    pair_share: Annotated[float, typer.Option(help="Share of scenes with two objects.")] = 0.5,
    drop: Annotated[float, typer.Option(help="Share of patches left out in the first 70 % of the steps.")] = 0.4,
    start: Annotated[str | None, typer.Option(help="An embedded model, or a weight file, to start from.")] = None,
    leave_out: Annotated[str | None, typer.Option(help="An artist never to be seen, to be tested on.")] = None,
    threads: int = 2,
    checkpoint_every: int = 100,
    scenes: Annotated[int, typer.Option(help="To measure on; half as many with two objects.")] = 4000,
) -> None:
    """Train MODEL, measure it, and write weights and card."""
    if model not in ARCHITECTURES:
        raise typer.BadParameter(f"expected one of {', '.join(ARCHITECTURES)}, got '{model}'")
    if leave_out is not None and leave_out not in ARTISTS:
        raise typer.BadParameter(f"expected an artist out of {', '.join(ARTISTS)}, got '{leave_out}'")
    if leave_out is not None and start is not None:
        raise typer.BadParameter(f"weights to start from may have seen {leave_out}: leave out an artist from nothing")
    torch.set_num_threads(threads)
    keep_freed_memory()
    console, weights, start_card, sha256 = Console(), None, None, None
    if start is not None:
        path = Path(str(resources.files("hooked_vit") / "assets" / f"{start}.safetensors"))
        path = path if path.exists() else Path(start)
        weights, sha256 = load_file(path), hashlib.sha256(path.read_bytes()).hexdigest()
        if path.with_suffix(".json").exists():
            start_card = json.loads(path.with_suffix(".json").read_text("utf-8"))
    of_context: dict[str, Any] = (
        {"background_strength": 0.9, "hidden_share": 0.25} if model == "emoji-vit-context" else {}
    )
    artists = tuple(artist for artist in ARTISTS if artist != leave_out)
    run = Run(
        model,
        steps,
        batch,
        seed,
        rate,
        warm_up,
        pair_share,
        drop=drop,
        artists=artists,
        start_sha256=sha256,
        **of_context,
    )
    folder = out or Path("out") / (f"{model}-without-{leave_out}" if leave_out else model)
    trained, losses = train(run, folder, weights, checkpoint_every, console)
    card = finish(run, trained, losses, folder, start_card, scenes)
    whole = {name: value for name, value in card["measured"].items() if name != "single_top1_by_class"}
    console.print_json(data=whole | {"weaknesses": card["weaknesses"]})
    console.print(f"{model}.safetensors and {model}.json in {folder}/", highlight=False)


if __name__ == "__main__":
    typer.run(main)

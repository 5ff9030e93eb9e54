"""Running many patches: patches of a layer share batches, and each run resumes at its patch."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.patching.plan import PatchPlan, PatchStream
from analyses.patching.result import Direction, check_direction
from hooked_vit import HookedViT
from hooked_vit.input_checks import check_images
from hooked_vit.resuming import check_unhooked, resumable

__all__ = ["Run", "base_and_source", "check_pair", "patched_runs", "record", "rows_within"]

_DEFAULT_ON_CPU = 2**27  # bytes: enough for full speed, and small enough for the CPU's caches
_SHARE_OF_GPU = 0.25  # of its free memory


@dataclass(frozen=True)
class Run:
    """A recorded run: its logits, and the activations that patching a stream reads, by short name and layer.

    `needed` are the short names of the other activations that a run needs to resume at the stream.
    """

    logits: Float[Tensor, "batch n_classes"]
    activations: Mapping[tuple[str, int], Tensor]
    needed: tuple[str, ...] = ()

    def context(self, layer: int) -> dict[str, Tensor]:
        """The other activations that a run needs to resume at the stream."""
        return {name: self.activations[name, layer] for name in self.needed}


def record(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"],
    stream: PatchStream,
    layers: tuple[int, ...],
    context: bool = True,
) -> Run:
    """Run the model once; keep a stream and, with `context`, the other activations needed to resume at it."""
    needed = resumable(model.cfg)[stream] if context else ()
    wanted = [(name, layer) for layer in layers for name in (stream, *needed)]
    logits, cache = model.run_with_cache(images, names_filter=wanted)
    return Run(logits, {(name, layer): cache[name, layer] for name, layer in wanted}, needed)


def rows_within(model: HookedViT, stream: PatchStream, n_tokens: int, memory_limit: float | int | None) -> int:
    """How many patched images may run at once, so that a block's activations fit into `memory_limit` bytes.

    Raises:
        ValueError: If not even one fits.
    """
    cfg = model.cfg
    per_token = 8 * cfg.d_model + 4 * cfg.n_heads * cfg.d_head + (3 if cfg.gated_mlp else 2) * cfg.d_mlp
    n_elements = n_tokens * per_token
    if stream == "pattern" or not model.fused_attention:
        n_elements += 3 * cfg.n_heads * n_tokens**2
    needed = n_elements * cfg.dtype.itemsize
    if memory_limit is None:
        memory_limit = _DEFAULT_ON_CPU
        if cfg.device.type == "cuda":
            memory_limit = _SHARE_OF_GPU * torch.cuda.mem_get_info(cfg.device)[0]
        return max(1, int(memory_limit // needed))
    if memory_limit < needed:
        raise ValueError(f"memory_limit={memory_limit:.0f} bytes, but one patched image needs about {needed}: raise it")
    return int(memory_limit // needed)


def patched_runs(
    plan: PatchPlan,
    value: Float[Tensor, "batch *axes"],
    source: Float[Tensor, "#batch *axes"],
    context: Mapping[str, Tensor],
    finish: Callable[[Tensor, Mapping[str, Tensor]], Tensor],
    unchanged: Float[Tensor, "batch *out"],
    n_rows: int,
) -> Iterator[Float[Tensor, "cell batch *out"]]:
    """The outcomes of the cells of a layer, many at a time; a patch that changes nothing is not run.

    Args:
        plan: The cells.
        value: The activation of the run that is patched.
        source: The activation that patches come from.
        context: The other tensors that `finish` needs, one row per image.
        finish: From patched activations and their context to the outcome, such as logits.
        unchanged: The outcome of each image without a patch.
        n_rows: How many patched images run at once.
    """
    n_images, n_cells = len(value), plan.n_cells
    source = source.expand_as(value)

    def run(cells: range, images: slice) -> Tensor:
        rows = torch.arange(images.start, images.stop, device=value.device).repeat(len(cells))
        mask = plan.masks(cells, images).to(value.device)
        unpatched = value[rows]
        patched = torch.where(mask, source[rows], unpatched)
        # a NaN differs from itself, so a patch that brings one in counts as a change
        changed = (patched != unpatched).flatten(1).any(dim=1)
        out = unchanged[rows]
        if changed.any():
            some, all_changed = rows[changed], bool(changed.all())
            # the context of a single image broadcasts over all rows
            given = context if n_images == 1 else {name: kept[some] for name, kept in context.items()}
            out[changed] = finish(patched if all_changed else patched[changed], given)
        return out.unflatten(0, (len(cells), -1))

    cells_at_once = max(1, n_rows // n_images)
    for first in range(0, n_cells, cells_at_once):
        cells = range(first, min(first + cells_at_once, n_cells))
        at_once = [run(cells, slice(start, min(start + n_rows, n_images))) for start in range(0, n_images, n_rows)]
        yield at_once[0] if len(at_once) == 1 else torch.cat(at_once, dim=1)


def check_pair(model: HookedViT, clean: Tensor, corrupt: Tensor) -> None:
    """Raise ValueError unless the images are pairs that the model accepts, and the model has classes and no hooks."""
    for images in (clean, corrupt):
        check_images(images, model.cfg, model.embed.weight)
    if clean.shape != corrupt.shape:
        raise ValueError(
            f"expected a corrupt image for each clean one, of the same size, got clean {tuple(clean.shape)} and "
            f"corrupt {tuple(corrupt.shape)}"
        )
    model.require_classes()
    check_unhooked(model)


def base_and_source(
    model: HookedViT, clean: Tensor, corrupt: Tensor, direction: Direction
) -> tuple[Float[Tensor, "batch channel height width"], Float[Tensor, "batch channel height width"]]:
    """The images of the run that is patched, and of the run that patches come from.

    Raises:
        ValueError: As `check_pair`, or if there is no such direction.
    """
    check_pair(model, clean, corrupt)
    check_direction(direction)
    return (corrupt, clean) if direction == "denoising" else (clean, corrupt)

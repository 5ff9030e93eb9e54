"""Activations of a dataset, streamed from the forward pass through a shuffled buffer of bounded size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.data.dataset import LabelledImages
from analyses.data.reading import ItemReader
from hooked_vit import HookedViT
from hooked_vit.splicing import activation_width
from hooked_vit.token_layout import token_group

__all__ = ["ActivationStream", "Chunk"]

_MOST_PICTURES = 4096  # in a chunk, so that checkpoints and losses come often even with one token per picture


@dataclass(frozen=True)
class Chunk:
    """One filling of the buffer, in random order.

    Attributes:
        activations: By hook point, heads flattened; the same row everywhere is the same token of the same picture. The
            next chunk overwrites them.
        start: The position in the stream before it: pictures shown so far.
        end: The position after it.
        skipped: Indices and reasons of pictures that could not be read.
    """

    activations: dict[str, Float[Tensor, "activation width"]]
    start: int
    end: int
    skipped: tuple[tuple[int, str], ...]


class ActivationStream:
    """Passes over a dataset in a seeded order; each picture's activations are used once per pass.

    The buffer is filled with the activations of many pictures, shuffled, used up and filled again, so memory does not
    depend on the size of the dataset (except for its order, eight bytes per picture), and a stream that starts at the
    end of a chunk continues as if it had never stopped.

    Args:
        model: The model; it runs up to `last_layer`.
        dataset: Items are `(image, label)` or `(image, label, mask)`.
        points: Full names of the hook points.
        last_layer: The last block that is run.
        tokens: The tokens, a group such as `"patch"` or `"any"`.
        epochs: Passes over the dataset.
        batch_size: Pictures per forward pass.
        buffer_size: Activations in the buffer, per point; fewer where they are of more than 4096 pictures, or of more
            than one pass.
        seed: Seed of the orders.
        on_error: `"skip"` leaves out pictures that cannot be read.

    Raises:
        ValueError: If the buffer holds nothing, `on_error` is unknown, or the model has no such tokens.

    >>> from analyses.data import EmojiScenes
    >>> point, model = "blocks.2.hook_resid_post", HookedViT.from_pretrained("emoji-vit")
    >>> stream = ActivationStream(model, EmojiScenes(8, seed=0), [point], last_layer=2, buffer_size=256, batch_size=4)
    >>> [(chunk.end, tuple(chunk.activations[point].shape)) for chunk in stream.chunks()]
    [(3, (195, 128)), (6, (195, 128)), (8, (130, 128))]
    """

    def __init__(
        self,
        model: HookedViT,
        dataset: LabelledImages,
        points: Sequence[str],
        last_layer: int,
        tokens: str = "any",
        epochs: int = 1,
        batch_size: int = 64,
        buffer_size: int = 65536,
        seed: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
    ):
        if buffer_size < 1:
            raise ValueError(f"buffer_size must be at least 1, got {buffer_size}")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', got {on_error!r}")
        self._model, self._points, self._last_layer = model, list(points), last_layer
        self._chosen = token_group(model.token_layout, tokens)
        self._tokens, self._epochs, self._batch_size, self._seed = tokens, epochs, batch_size, seed
        self._reader = ItemReader(dataset, model.cfg, model.data_config, skip=on_error == "skip")
        self.n_pictures = epochs * len(dataset)
        per_picture = int(self._chosen.sum())
        self._per_chunk = max(1, min(buffer_size // per_picture, _MOST_PICTURES, len(dataset)))
        cfg, n_rows = model.cfg, self._per_chunk * per_picture
        self._buffers = {
            name: torch.empty(n_rows, activation_width(name, model), device=cfg.device) for name in self._points
        }

    def chunks(self, start: int = 0, advance: Callable[[int], object] = lambda n: None) -> Iterator[Chunk]:
        """The chunks from a position on, which is 0 or the end of an earlier chunk.

        Args:
            start: Pictures shown before.
            advance: Called with the number of pictures after each forward pass.
        """
        order: tuple[int, Tensor] | None = None
        n_items = len(self._reader)
        for first in range(start, self.n_pictures, self._per_chunk):
            end, n_rows = min(first + self._per_chunk, self.n_pictures), 0
            skipped: list[tuple[int, str]] = []
            for begin in range(first, end, self._batch_size):
                indices = []
                for position in range(begin, min(begin + self._batch_size, end)):
                    epoch, within = divmod(position, n_items)
                    if order is None or order[0] != epoch:
                        order = epoch, self._drawn(n_items, 2 * epoch)
                    indices.append(int(order[1][within]))
                read = self._reader.__getitems__(indices)
                skipped += read.failures
                if read.images is not None:
                    n_rows += self._fill(read.images, n_rows)
                advance(read.n_asked)
            mixed = self._drawn(n_rows, 2 * first + 1).to(self._model.cfg.device)
            yield Chunk({name: buffer[mixed] for name, buffer in self._buffers.items()}, first, end, tuple(skipped))

    def _drawn(self, n: int, number: int) -> Tensor:
        """A random order; orders of pictures have even numbers, those of buffers odd ones."""
        return torch.randperm(n, generator=torch.Generator().manual_seed(self._seed * 1_000_003 + number))

    @torch.no_grad()
    def _fill(self, images: Tensor, n_rows: int) -> int:
        """Put a batch's activations after the first `n_rows`; how many they are."""
        model = self._model
        images = images.to(device=model.cfg.device, dtype=model.cfg.dtype)
        _, cache = model.run_with_cache(
            images, names_filter=self._points, stop_at_layer=self._last_layer + 1, return_cache_object=False
        )
        n_new = 0
        for name, buffer in self._buffers.items():
            activations = cache[name]
            chosen = token_group(model.token_layout, self._tokens, activations.shape[1])
            vectors = activations.flatten(2)
            if not chosen.all():
                vectors = vectors[:, chosen.to(vectors.device)]
            vectors = vectors.flatten(0, 1)
            if n_rows + len(vectors) > len(buffer):
                raise ValueError("pictures of one size only: some have more tokens than the model's own image size")
            buffer[n_rows : n_rows + len(vectors)] = vectors
            n_new = len(vectors)
        return n_new

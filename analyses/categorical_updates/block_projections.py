"""Class-space projections of a block's input, of what its sub-layers add and of its output, each computed once."""

from collections.abc import Callable
from functools import cache as remember
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.analysis.base import AnalysisBatch
from analyses.projection import Lens, Projection, Stream, project, stream_names
from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache

__all__ = ["BlockProjections", "Reference", "Sublayer"]

Sublayer = Literal["attn", "mlp", "heads", "block"]
Reference = Literal["block_input", "layer_input"]

_OUTPUTS: dict[Sublayer, Stream] = {"attn": "attn_out", "mlp": "mlp_out", "heads": "result", "block": "resid_post"}


class BlockProjections:
    """What every block reads and writes, in class space.

    Made by `of_cache`, or by `of_batch` to share projections with a sweep's other analyses. A block's input is the
    previous block's output; it is projected again only for the first block and where a hook edited it in between.
    """

    def __init__(
        self,
        projected: Callable[..., Projection],
        cache: ViTActivationCache,
        cfg: HookedViTConfig,
        sublayer_norm: bool,
    ):
        self._projected, self._cache, self._cfg, self._sublayer_norm = projected, cache, cfg, sublayer_norm

    @classmethod
    def of_cache(
        cls,
        model: HookedViT,
        cache: ViTActivationCache,
        labels: Int[Tensor, "batch"] | None,
        sublayer_norm: bool = False,
        lens: Lens | None = None,
    ) -> "BlockProjections":
        """The projections of a cache; without labels, only their top classes."""

        @remember
        def projected(stream: Stream, layers: tuple[int, ...] | None = None, sublayer_norm: bool = False) -> Projection:
            return project(model, cache, stream, labels, k=1, layers=layers, sublayer_norm=sublayer_norm, lens=lens)

        return cls(projected, cache, model.cfg, sublayer_norm)

    @classmethod
    def of_batch(
        cls, batch: AnalysisBatch, sublayer_norm: bool = False, lens: Lens | None = None
    ) -> "BlockProjections":
        """The projections of a sweep's batch."""
        return cls(partial(batch.projection, lens=lens), batch.cache, batch.model.cfg, sublayer_norm)

    def increase(self, sublayer: Sublayer, reference: Reference) -> Float[Tensor, "layer batch token *head"]:
        """`p_c(output) - p_c(reference)`, for the correct class c.

        Raises:
            ValueError: If there is no such sub-layer or reference.
        """
        for name, value, known in (("sublayer", sublayer, Sublayer), ("reference", reference, Reference)):
            if value not in get_args(known):
                raise ValueError(f"expected {name} {', '.join(map(repr, get_args(known)))}, got {value!r}")
        output = self._output(sublayer).label_logit
        if reference == "layer_input" and sublayer == "mlp" and not self._cfg.parallel_attn_mlp:
            against = self._projected("resid_mid").label_logit
        else:
            against = self._input("label_logit")
        assert output is not None
        assert against is not None
        return output - (against[..., None] if sublayer == "heads" else against)

    def matches(self) -> Bool[Tensor, "source layer batch token"]:
        """Whether the top class after a block is its input's, attention's, the MLP's, or none of these."""
        after = self._output("block").top_classes
        parts = self._input("top_classes"), self._output("attn").top_classes, self._output("mlp").top_classes
        equal = torch.stack([after == part for part in parts])[..., 0]
        return torch.cat([equal, ~equal.any(dim=0, keepdim=True)])

    def _output(self, sublayer: Sublayer) -> Projection:
        if sublayer in ("attn", "mlp") and self._sublayer_norm:
            return self._projected(_OUTPUTS[sublayer], sublayer_norm=True)
        return self._projected(_OUTPUTS[sublayer])

    def _input(self, field: Literal["label_logit", "top_classes"]) -> Any:
        before, after = (
            [self._cache[name] for name in stream_names(self._cfg, stream)] for stream in ("resid_pre", "resid_post")
        )
        # a cache holds the stream between two blocks twice: the same tensor, unless a hook replaced it
        edited = tuple(b for b in range(len(before)) if b == 0 or before[b].data_ptr() != after[b - 1].data_ptr())
        edited_inputs = getattr(self._projected("resid_pre", edited), field)
        if len(edited) == len(before):
            return edited_inputs
        inputs = getattr(self._projected("resid_post"), field).roll(1, dims=0)
        inputs[list(edited)] = edited_inputs
        return inputs

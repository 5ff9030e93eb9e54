"""Probe order: patches ranked by how well linear probes read the class at their position."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.linear_probe.ridge import RidgeProbe
from analyses.projection import class_ranks, stream_names
from hooked_vit import HookedViT

__all__ = ["ProbeOrder"]


@dataclass(frozen=True)
class ProbeOrder:
    """The paper's probe order (section 7) as a method: minus the sum over blocks of the class's rank by each probe.

    A rank is the number of classes that the probe of that block and position scores above the image's class. Ranks are
    whole numbers, so patches may tie; ties are broken by the sum of the probes' scores.

    Attributes:
        probe: The probes of `resid_post`, fitted to `probe_features(...).features`: positions are the tokens, then the
            mean.
    """

    probe: RidgeProbe

    @torch.no_grad()
    def __call__(
        self,
        model: HookedViT,
        images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
        classes: Int[Tensor, "batch"],
        *,
        start_at_layer: Literal[0] | None = None,
    ) -> Float[Tensor, "batch patch"]:
        """The map of each image.

        Raises:
            ValueError: If the probes were not fitted for this model's layers and tokens.
        """
        layout, names = model.token_layout, stream_names(model.cfg, "resid_post")
        labels = model.class_indices(classes, len(images), several=True)[:, 0].expand(layout.n_patches, -1)
        if self.probe.bias.shape[:2] != (len(names), layout.n_tokens + 1):
            raise ValueError(
                f"expected probes of {len(names)} layers and {layout.n_tokens + 1} positions, got "
                f"{tuple(self.probe.bias.shape[:2])}: fit them to `probe_features(model, batches).features`"
            )
        _, cache = model.run_with_cache(images, names_filter=names, start_at_layer=start_at_layer)
        importance = torch.zeros(len(images), layout.n_patches, device=images.device, dtype=images.dtype)
        score = torch.zeros_like(importance)
        for layer, name in enumerate(names):
            class_logits = self.probe[layer, layout.patches].class_logits(
                cache[name][:, layout.patches].transpose(0, 1)
            )
            importance -= class_ranks(class_logits, labels).T
            score += class_logits.gather(-1, labels[..., None])[..., 0].T
        return importance + score.sigmoid()

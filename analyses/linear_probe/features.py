"""The features that probes are fitted to: the stream at every layer and token position, from one pass over images."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.projection import Stream, stream_names
from hooked_vit import HookedViT
from hooked_vit.input_checks import require_one_grid

__all__ = ["ProbeFeatures", "probe_features"]


@dataclass(frozen=True)
class ProbeFeatures:
    """A stream, for each layer, position, and image.

    Attributes:
        features: The vectors; the last position, after the tokens, is the mean over the patches.
        labels: The class of each image.
        token_types: The type of each position: `cls`, `dist`, `register`, `patch` or `pooled`.
    """

    features: Float[Tensor, "layer position image d_model"]
    labels: Int[Tensor, "image"]
    token_types: tuple[str, ...]

    def shots(self, k: int) -> "ProbeFeatures":
        """The first k images of each class.

        Raises:
            ValueError: If a class has fewer.

        >>> features = torch.arange(6.0).reshape(1, 1, 6, 1)
        >>> six = ProbeFeatures(features, torch.tensor([0, 1, 1, 0, 0, 1]), ("cls",))
        >>> six.shots(2).labels.tolist(), six.shots(2).features.flatten().tolist()
        ([0, 1, 1, 0], [0.0, 1.0, 2.0, 3.0])
        """
        seen = (self.labels[:, None] == self.labels[None]).tril(-1).sum(dim=1)
        chosen = seen < k
        fewest = int(self.labels[chosen].bincount()[self.labels.unique()].min())
        if fewest < k or k < 1:
            raise ValueError(f"{k} shots a class were asked for, and a class has {fewest} images: take more images")
        return ProbeFeatures(self.features[:, :, chosen], self.labels[chosen], self.token_types)

    def shuffled(self, seed: int = 0) -> "ProbeFeatures":
        """The same features with shuffled labels: the score of a probe that has nothing to learn."""
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))
        return ProbeFeatures(self.features, self.labels[order.to(self.labels.device)], self.token_types)

    @property
    def n_bytes(self) -> int:
        """Bytes needed to store the features."""
        return self.features.numel() * self.features.element_size()


@torch.no_grad()
def probe_features(
    model: HookedViT, batches: Iterable[tuple[Tensor, Tensor]], stream: Stream = "resid_post"
) -> ProbeFeatures:
    """Run batches of `(images, labels)` through the model once, and keep a stream at all layers and positions.

    That is `n_layers · (n_tokens + 1) · d_model` numbers per image, which probes need and a projection does not:
    1.9 MB for ViT-B/32, 7.3 MB for ViT-B/16, in single precision.

    Raises:
        ValueError: If there is no batch, or the stream is `result`.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> probe_features(model, [(torch.zeros(2, 3, 64, 64), torch.tensor([3, 14]))]).features.shape
    torch.Size([8, 66, 2, 128])
    """
    if stream == "result":
        raise ValueError("probes read the stream or what a sub-layer adds to it, not single heads: pass 'attn_out'")
    layout, names = model.token_layout, stream_names(model.cfg, stream)
    kept, labels = [], []
    for images, image_labels in batches:
        require_one_grid(images)
        _, cache = model.run_with_cache(images.to(model.embed.weight), names_filter=names)
        vectors = torch.stack([cache[name] for name in names])
        pooled = vectors[:, :, layout.patches].mean(dim=2, keepdim=True)
        kept.append(torch.cat([vectors, pooled], dim=2).transpose(1, 2))
        labels.append(image_labels)
    if not kept:
        raise ValueError("expected at least one batch of (images, labels), got none")
    return ProbeFeatures(torch.cat(kept, dim=2), torch.cat(labels).to(kept[0].device), (*layout.token_types, "pooled"))

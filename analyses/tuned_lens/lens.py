"""A tuned lens: an affine map from the stream at each block to the last residual stream."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from analyses.data.dataset import LabelledImages
from analyses.sweep.describe import hash_tensors
from analyses.sweep.held_out import refuse_fitted
from hooked_vit import HookedViT, HookedViTConfig

__all__ = ["TunedLens", "n_reads"]


@dataclass(frozen=True, eq=False)
class TunedLens:
    """An affine map per block to the last residual stream (Belrose et al. 2023, equation 7), for `project(lens=...)`.

    With h the stream at a block, the lens reads `class_logits(h + h A + b)`: `weight` holds A, the change to h, so that
    zeros are the identity and project as no lens does, to the bit. What comes after the last block is never changed.

    What a sub-layer or a head adds to the stream is a difference of two streams, so it passes a map without b:
    `d + d A`, with the A of the stream that results. For `attn_out` and `result` that is `resid_mid`'s (in parallel
    blocks, the next block's), for `mlp_out` the next block's, and after the last block none. The lens on the stream
    after a sub-layer is then the sum of the same map on the stream before it and on what is added, so that additions
    can be compared within one basis.

    Attributes:
        weight: A for the stream that enters each block and, in blocks that have a `resid_mid`, for that one.
        bias: b, for the same.
        record: How it was made, in plain values: model, data, seed, share of variance explained.
    """

    weight: Float[Tensor, "layer read d_model d_model"]
    bias: Float[Tensor, "layer read d_model"]
    record: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def identity(cls, cfg: HookedViTConfig) -> "TunedLens":
        """The lens that changes nothing.

        >>> lens = TunedLens.identity(HookedViT.from_pretrained("emoji-vit").cfg)
        >>> lens.weight.shape
        torch.Size([8, 2, 128, 128])
        """
        shape = (cfg.n_layers, n_reads(cfg), cfg.d_model)
        return cls(torch.zeros(*shape, cfg.d_model), torch.zeros(shape), {"method": "identity"})

    def check(self, model: HookedViT) -> None:
        """Check that the lens has the model's shape.

        Raises:
            ValueError: If it has not.
        """
        cfg = model.cfg
        expected = (cfg.n_layers, n_reads(cfg), cfg.d_model)
        if self.bias.shape != expected or self.weight.shape != (*expected, cfg.d_model):
            raise ValueError(
                f"the lens was made for another model: expected maps of {cfg.n_layers} blocks with {expected[1]} "
                f"streams of width {cfg.d_model} each, got {' × '.join(map(str, self.bias.shape))}"
            )

    def check_weights(self, model: HookedViT) -> None:
        """Check that the lens was fitted to this very model, as far as its record says.

        Raises:
            ValueError: If it was fitted to other weights, or has another shape.
        """
        self.check(model)
        recorded = self.record.get("model", {}).get("weights_sha256")
        if recorded not in (None, hash_tensors(model.state_dict())):
            raise ValueError(
                "the lens was fitted to a model of this shape with other weights: fit one to this model with "
                "`fit_tuned_lens`, or `hooked-vit tune`"
            )

    def check_sweep(self, model: HookedViT, dataset: LabelledImages, tokens: Literal["all", "read"] = "all") -> None:
        """Check that the lens can be measured: fitted to this model, to other images, and to these tokens.

        Raises:
            ValueError: If it cannot, as far as its record says.
        """
        self.check_weights(model)
        refuse_fitted(self.record.get("data"), dataset, "the lens")
        if tokens == "all":
            self.check_tokens(model)

    def check_tokens(self, model: HookedViT) -> None:
        """Check that the lens was fitted to patches and not to CLS alone, as far as its record says.

        Raises:
            ValueError: If it was fitted to `tokens="read"` of a model whose head reads no patches.
        """
        if self.record.get("tokens") == "read" and model.cfg.pool in ("cls", "cls_and_dist"):
            raise ValueError(
                "the lens was fitted to CLS alone (tokens 'read'), and its maps mean nothing for patches: fit one to "
                "tokens 'all'; early exit, which projects what the head reads, takes either"
            )

    def translate(
        self, vectors: Float[Tensor, "*axes d_model"], stream: str, layer: int
    ) -> Float[Tensor, "*axes d_model"]:
        """Vectors of a stream at a block, as they would stand in the last residual stream.

        Args:
            vectors: Any vectors of the stream.
            stream: As for `project`: `attn_out`, `mlp_out` and `result`, which are added to the stream, pass only the
                linear part of the map, that of the stream which results.
            layer: The block, from 0.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> x = torch.randn(2, 65, 128)
        >>> torch.equal(TunedLens.identity(model.cfg).translate(x, "resid_post", 3), x)
        True
        """
        n_layers, reads = self.bias.shape[:2]
        at = {
            "resid_pre": (layer, 0),
            "resid_mid": (layer, 1),
            "attn_out": (layer, 1) if reads == 2 else (layer + 1, 0),
            "result": (layer, 1) if reads == 2 else (layer + 1, 0),
        }.get(stream, (layer + 1, 0))
        if at[0] == n_layers:
            return vectors
        moved = vectors + vectors @ self.weight[at].to(vectors)
        return moved + self.bias[at].to(vectors) if stream.startswith("resid") else moved

    def to(self, device: torch.device | str) -> "TunedLens":
        """The same lens on another device, so that nothing is copied there for every batch."""
        return replace(self, weight=self.weight.to(device), bias=self.bias.to(device))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its maps. A sweep's record holds those of its tensors, and is not resumed with another lens."""
        return hash_tensors({"weight": self.weight, "bias": self.bias})

    def save(self, path: str | Path) -> None:
        """Write a `.safetensors` file for `read_tuned_lens` and `--lens`, and the record as JSON beside it.

        The record is also inside the file, so that the file can be moved alone.

        Raises:
            ValueError: If the file is called otherwise.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"a lens is written to a .safetensors file, got '{path}'")
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in ("weight", "bias")}
        record = json.dumps(dict(self.record), ensure_ascii=False)
        beside = {**self.record, "fingerprint": self.fingerprint}
        _write_whole(path, save(tensors, {"record": record}))
        _write_whole(path.with_suffix(".json"), (json.dumps(beside, indent=2, ensure_ascii=False) + "\n").encode())


def n_reads(cfg: HookedViTConfig) -> int:
    """Streams per block that have a map: the one that enters it and, unless its sub-layers are parallel, `resid_mid`.

    >>> n_reads(HookedViT.from_pretrained("emoji-vit").cfg)
    2
    """
    return 1 if cfg.parallel_attn_mlp else 2


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

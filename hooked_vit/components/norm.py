"""LayerNorm and RMSNorm with hook points at their scale and output."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hooked_vit.config import NormConfig
from hooked_vit.hook_point import HookPoint, is_only_read, is_watched


class Norm(nn.Module):
    """`weight * (x - mean) / scale + bias`, with `scale = sqrt(variance + eps)`; RMSNorm has no mean.

    `hook_scale` [... 1] is what the input is divided by; `hook_normalized` [... width] is the output.
    It is one fused call, unless a hook edits the scale or gradients flow through it. With `input_is_cached`, a cache of
    everything holds the input under another name, and computes the output from it.

    >>> norm = Norm(4, NormConfig())
    >>> norm(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().abs().item() < 1e-6
    True
    """

    def __init__(self, width: int, cfg: NormConfig, input_is_cached: bool = False):
        super().__init__()
        self.cfg, self.input_is_cached = cfg, input_is_cached
        self.width = (width,)
        self.weight = nn.Parameter(torch.ones(width)) if cfg.has_weight else None
        self.bias = nn.Parameter(torch.zeros(width)) if cfg.has_bias else None
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    def forward(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        """Normalise the last axis."""
        if not is_watched(self.hook_scale):
            return self._named(self.fused(x), x)
        if not is_only_read(self.hook_scale):
            return self.hook_normalized(self.divide(x, self.hook_scale(self.scale(x))))
        out, scale = self._fused_with_scale(x)
        self.hook_scale(scale)
        return self._named(out, x)

    def _named(self, out: Tensor, x: Tensor) -> Tensor:
        if self.input_is_cached and self.hook_normalized.offer(self._normalised, x, weights=(self.weight, self.bias)):
            return out
        return self.hook_normalized(out)

    def _fused_with_scale(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.cfg.kind == "layer" and not self.cfg.in_float32:
            # the fused kernel computes the scale anyway
            out, _, inverse = torch.native_layer_norm(x, self.width, self.weight, self.bias, self.cfg.eps)
            return out, inverse.reciprocal().to(x.dtype)
        return self.fused(x), self.scale(x)

    def fused(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        """The norm in one call, past the hook points."""
        return self._normalised(x, self.weight, self.bias)

    def _normalised(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        dtype = x.dtype
        if self.cfg.in_float32:
            x = x.float()
            weight = None if weight is None else weight.float()
            bias = None if bias is None else bias.float()
        if self.cfg.kind == "layer":
            out = F.layer_norm(x, self.width, weight, bias, self.cfg.eps)
        else:
            out = F.rms_norm(x, self.width, weight, self.cfg.eps)
        return out.to(dtype) if self.cfg.in_float32 else out

    def scale(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes 1"]:
        """What the centred input is divided by."""
        wide = _wide(x)
        if self.cfg.kind == "layer":
            square = wide.var(dim=-1, keepdim=True, correction=0)
        else:
            square = wide.square().mean(dim=-1, keepdim=True)
        return (square + self.cfg.eps).sqrt().to(x.dtype)

    def centre(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        """Subtract the mean; an RMSNorm subtracts nothing."""
        return x - x.mean(dim=-1, keepdim=True) if self.cfg.kind == "layer" else x

    def divide(
        self, x: Float[Tensor, "*#axes width"], scale: Float[Tensor, "*#axes 1"], bias: bool = True
    ) -> Float[Tensor, "*out_axes width"]:
        """The norm with a given scale: linear in `x` except for the bias."""
        out = self.centre(_wide(x)) / scale
        if self.weight is not None:
            out = out * self.weight
        if bias and self.bias is not None:
            out = out + self.bias
        return out.to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

"""OpenAI's CLIP vision tower, written from its definition, as the package `clip` would make it."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """In float32, whatever comes in."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float()).to(input.dtype)


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    def __init__(self, width: int, n_heads: int, d_mlp: int):
        super().__init__()
        self.attn, self.ln_1, self.ln_2 = nn.MultiheadAttention(width, n_heads), LayerNorm(width), LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, d_mlp)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(d_mlp, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, n_layers: int, n_heads: int, d_mlp: int):
        super().__init__()
        self.resblocks = nn.Sequential(*(ResidualAttentionBlock(width, n_heads, d_mlp) for _ in range(n_layers)))

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(x)


class VisionTransformer(nn.Module):
    def __init__(self, side: int, patch: int, width: int, n_layers: int, n_heads: int, d_mlp: int, d_out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = LayerNorm(width), LayerNorm(width)
        self.transformer = Transformer(width, n_layers, n_heads, d_mlp)
        self.proj = nn.Parameter(torch.randn(width, d_out))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        x = x + self.positional_embedding.to(x.dtype)
        x = self.transformer(self.ln_pre(x).transpose(0, 1)).transpose(0, 1)  # its blocks take [token batch width]
        return self.ln_post(x[:, 0]) @ self.proj


class CLIP(nn.Module):
    def __init__(self, visual: VisionTransformer):
        super().__init__()
        self.visual, self.token_embedding = visual, nn.Embedding(5, 3)


for _cls in (LayerNorm, QuickGELU, ResidualAttentionBlock, Transformer, VisionTransformer, CLIP):
    _cls.__module__ = "clip.model"

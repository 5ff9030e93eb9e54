"""The projection to queries, keys and values, in the order of sums of the model that it stands for."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hooked_vit.config import HookedViTConfig


class QKV(nn.Linear):
    """`x Wᵀ + b`, of which the first rows are queries, the next keys, the last values.

    The weight is stored whole. The product is one, or three if the original has three matrices; the sums differ in
    the last bit. Keys may have no bias, and biases may be added after the product.
    """

    def __init__(self, cfg: HookedViTConfig, layer: int):
        n_keys = cfg.n_key_value_heads_at(layer) * cfg.d_head
        self.widths = (cfg.n_heads * cfg.d_head, n_keys, n_keys)
        super().__init__(cfg.d_model, sum(self.widths), bias=cfg.qkv_bias and cfg.k_bias)
        self.separate, self.bias_after = cfg.separate_qkv, cfg.qkv_bias_separate
        without_k = cfg.qkv_bias and not cfg.k_bias
        self.q_bias = nn.Parameter(torch.zeros(self.widths[0])) if without_k else None
        self.v_bias = nn.Parameter(torch.zeros(self.widths[2])) if without_k else None

    def forward(self, input: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes rows"]:
        """Queries, keys and values, side by side."""
        if self.separate:
            parts = zip(self.weight.split(self.widths), self._part_biases(), strict=True)
            return torch.cat([F.linear(input, weight, bias) for weight, bias in parts], dim=-1)
        bias = self.full_bias()
        if bias is None or not self.bias_after:
            return F.linear(input, self.weight, bias)
        return F.linear(input, self.weight) + bias

    def _part_biases(self) -> tuple[Tensor | None, ...]:
        if self.bias is not None:
            return self.bias.split(self.widths)
        return self.q_bias, None, self.v_bias

    def full_bias(self) -> Float[Tensor, "rows"] | None:
        """The bias of all rows, zero at keys that have none; `None` if nothing has a bias."""
        if self.q_bias is None or self.v_bias is None:
            return self.bias
        return torch.cat([self.q_bias, self.q_bias.new_zeros(self.widths[1]), self.v_bias])


def made_qkv(cfg: HookedViTConfig, layer: int) -> nn.Linear:
    """The projection of a block: a plain linear layer where that computes the same to the bit."""
    own = cfg.separate_qkv or cfg.qkv_bias_separate or (cfg.qkv_bias and not cfg.k_bias)
    if own or cfg.n_key_value_heads_at(layer) != cfg.n_heads:
        return QKV(cfg, layer)
    return nn.Linear(cfg.d_model, 3 * cfg.n_heads * cfg.d_head, bias=cfg.qkv_bias)

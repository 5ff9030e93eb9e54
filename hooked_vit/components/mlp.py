"""The MLP of a block, plain or gated, with hook points at the coefficients of its key-value memories."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hooked_vit.components.norm import Norm
from hooked_vit.components.stored_weight import stored_weight
from hooked_vit.config import HookedViTConfig, MlpKind, NormConfig
from hooked_vit.hook_point import HookPoint


def quick_gelu(x: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """`x * sigmoid(1.702 x)`, OpenAI's approximation of the GELU."""
    return x * torch.sigmoid(1.702 * x)


def gelu_tanh(x: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """The tanh approximation of the GELU."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "silu": F.silu,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
}


def _activated(act: Callable[[Tensor], Tensor], pre: Tensor, linear: Tensor | None) -> Tensor:
    return act(pre) if linear is None else act(pre) * linear


class Mlp(nn.Module):
    """`act(x W_in + b_in) W_out + b_out`; gated: `(act(x W_gate + b_gate) * (x W_in + b_in)) W_out + b_out`.

    Hook points [batch token d_mlp]:
        hook_pre: the input of the activation function (in a gated MLP, the gate).
        hook_pre_linear: the other half of a gated MLP.
        hook_post: the input of W_out. With a norm inside the MLP this is the norm's output, and `hook_mid` is its
            input.

    With an input norm of its own (`ln_in`, ViTamin), the MLP norms what the block's norm gives it a second time.
    """

    def __init__(
        self,
        d_model: int,
        d_mlp: int,
        act_fn: str,
        kind: MlpKind = "plain",
        gate_last: bool = False,
        bias: tuple[bool, bool] = (True, True),
        inner_norm: NormConfig | None = None,
        input_norm: NormConfig | None = None,
    ):
        super().__init__()
        self.kind, self.d_mlp, self.gate_last = kind, d_mlp, gate_last
        self.act = ACTIVATIONS[act_fn]
        self.joint_product: Literal["bias", "no bias"] | None = None
        n_halves = 2 if kind == "glu_packed" else 1
        self.inp = nn.Linear(d_model, n_halves * d_mlp, bias=bias[0])
        self.gate = nn.Linear(d_model, d_mlp, bias=bias[0]) if kind == "glu_split" else None
        self.out = nn.Linear(d_mlp, d_model, bias=bias[1])
        self.ln_in = Norm(d_model, input_norm) if input_norm else None
        self.ln = Norm(d_mlp, inner_norm) if inner_norm else None
        self.hook_pre = HookPoint()
        self.hook_pre_linear = HookPoint() if kind != "plain" else None
        self.hook_mid = HookPoint() if self.ln is not None else None
        self.hook_post = HookPoint()

    @classmethod
    def from_config(cls, cfg: HookedViTConfig) -> "Mlp":
        """The MLP of a block."""
        norms = cfg.mlp_inner_norm, cfg.mlp_input_norm
        mlp = cls(cfg.d_model, cfg.d_mlp, cfg.act_fn, cfg.mlp_kind, cfg.gate_last, cfg.mlp_bias, *norms)
        mlp.joint_product = ("bias" if cfg.qkv_bias else "no bias") if cfg.parallel_attn_mlp else None
        return mlp

    def forward(self, x: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes d_model"]:
        """From the normed residual stream to the output before LayerScale or a post-norm."""
        return self.out(self.activations(x))

    def activations(self, x: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes d_mlp"]:
        """From the normed residual stream to the input of W_out, through the hook points."""
        pre, linear = self._halves(x if self.ln_in is None else self.ln_in(x))
        # both hook points come before the product: they may hold views of one tensor, which hooks may edit in place
        pre = self.hook_pre(pre)
        if linear is not None and self.hook_pre_linear is not None:
            linear = self.hook_pre_linear(linear)
        post, point = self._activate(pre, linear), self.hook_post if self.hook_mid is None else self.hook_mid
        if not point.offer(partial(_activated, self.act), pre, linear):
            post = point(post)
        if self.ln is not None:
            post = self.hook_post(self.ln(post))
        return post

    def neurons(self, x: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes d_mlp"]:
        """From the normed residual stream to what `hook_post` holds, past the hook points."""
        post = self._activate(*self._halves(x if self.ln_in is None else self.ln_in.fused(x)))
        return post if self.ln is None else self.ln.fused(post)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The input of the activation function, and the linear half of a gated MLP."""
        if self.kind == "plain":
            return (self.inp(x) if self.joint_product is None else self._of_joint_product(x)), None
        if self.gate is not None:
            return self.gate(x), self.inp(x)
        assert self.hook_pre_linear is not None
        first, second = self.inp(x).unflatten(-1, (2, self.d_mlp)).unbind(-2)
        return (second, first) if self.gate_last else (first, second)

    def _of_joint_product(self, x: Tensor) -> Tensor:
        """The input of the activation function to the bit, where the original makes it together with queries, keys and
        values."""
        if self.joint_product == "bias":
            # a slice of a wider tensor: of contiguous numbers, oneDNN's GELU has other last bits
            return F.pad(self.inp(x), (0, 1))[..., :-1]
        if type(self.inp) is not nn.Linear:
            return self.inp(x)  # an adapter
        return F.linear(x, self.inp.weight) + self.b_in  # queries, keys and values have no bias: it is added afterwards

    def _activate(self, pre: Tensor, linear: Tensor | None) -> Tensor:
        return _activated(self.act, pre, linear)

    def _half(self, stored: Tensor, gate: bool) -> Tensor:
        first, second = stored.chunk(2, dim=0)
        return second if gate == self.gate_last else first

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        """Input weights (in a gated MLP, of the linear half), a view of the stored weight; its columns are keys."""
        weight = stored_weight(self.inp)
        return (self._half(weight, gate=False) if self.kind == "glu_packed" else weight).T

    @property
    def W_gate(self) -> Float[Tensor, "d_model d_mlp"]:
        """Gate weights, a view of the stored weight. Raises AttributeError if the MLP has no gate."""
        if self.kind == "plain":
            raise AttributeError
        return (self._half(stored_weight(self.inp), gate=True) if self.gate is None else stored_weight(self.gate)).T

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        """Output weights, a view of the stored weight; its rows are value vectors."""
        return stored_weight(self.out).T

    @property
    def b_in(self) -> Float[Tensor, "d_mlp"]:
        """Input bias (in a gated MLP, of the linear half); zeros if the model has none."""
        if self.inp.bias is None:
            return self.inp.weight.new_zeros(self.d_mlp)
        return self._half(self.inp.bias, gate=False) if self.kind == "glu_packed" else self.inp.bias

    @property
    def b_gate(self) -> Float[Tensor, "d_mlp"]:
        """Gate bias; zeros if the model has none. Raises AttributeError if the MLP has no gate."""
        width = self.W_gate.shape[1]
        if self.inp.bias is None:
            return self.inp.weight.new_zeros(width)
        return self._half(self.inp.bias, gate=True) if self.gate is None else self.gate.bias

    @property
    def b_out(self) -> Float[Tensor, "d_model"]:
        """Output bias; zeros if the model has none."""
        if self.out.bias is None:
            return self.out.weight.new_zeros(self.out.out_features)
        return self.out.bias

"""Folding the weights of norms into the matrices that read them; always optional."""

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hooked_vit.config import HookedViTConfig
from hooked_vit.joining import check_joinable, joined


def fold(cfg: HookedViTConfig, weights: dict[str, Tensor]) -> tuple[HookedViTConfig, dict[str, Tensor]]:
    """Copies of all weights, with every norm that is read by linear maps alone folded into those maps.

    `W (w * x̂ + b) + c = (W w) x̂ + (W b + c)`: the norm is left with weight one and bias zero.
    Several attentions and MLPs of a block are then joined to one of each.
    """
    if cfg.n_parallel > 1:
        check_joinable(cfg)
    folded: dict[str, Tensor] = {
        name: nn.Parameter(tensor.detach().clone(), tensor.requires_grad) for name, tensor in weights.items()
    }
    readers: dict[str, list[str]] = {}
    if cfg.n_parallel > 1:
        for layer, branch in itertools.product(range(cfg.n_layers), range(cfg.n_parallel)):
            attn, mlp = f"blocks.{layer}.attns.{branch}", f"blocks.{layer}.mlps.{branch}"
            readers |= {f"{attn}.ln_in": [f"{attn}.qkv"], f"{mlp}.ln_in": [f"{mlp}.inp"]}
    elif not cfg.post_norm:
        for layer in range(cfg.n_layers):
            attn_gate = [f"blocks.{layer}.attn.gate"] if cfg.gated_attn else []
            readers[f"blocks.{layer}.ln1"] = [f"blocks.{layer}.attn.qkv", *attn_gate]
            gate = [f"blocks.{layer}.mlp.gate"] if cfg.mlp_kind == "glu_split" else []
            # a norm of the MLP's own comes between `ln2` and the matrices
            norm = "ln1" if cfg.parallel_attn_mlp else "ln2" if cfg.mlp_input_norm is None else "mlp.ln_in"
            readers.setdefault(f"blocks.{layer}.{norm}", []).extend([f"blocks.{layer}.mlp.inp", *gate])
    if cfg.pool == "attention" and not cfg.norm_after_pool:
        readers["ln_final"] = ["attn_pool.kv"]
    elif cfg.n_classes and cfg.pooled_norm is None and (cfg.norm_after_pool or cfg.pool not in ("max", "avgmax")):
        # a maximum over tokens does not commute with the norm's weight
        readers["ln_final"] = ["head", "head_dist"] if cfg.pool == "cls_and_dist" else ["head"]
    with torch.no_grad():
        for layer in range(cfg.n_layers) if cfg.block_norm.has_bias and not cfg.post_norm else ():
            _join_biases(folded, f"blocks.{layer}.attn.qkv")
        for norm, linears in readers.items():
            _fold_norm(folded, norm, linears)
    if cfg.n_parallel > 1:
        cfg, folded = joined(cfg, folded)
    return _with_biases(cfg, folded), folded


def _fold_norm(weights: dict[str, Tensor], norm: str, linears: Sequence[str]) -> None:
    scale, shift = weights.get(f"{norm}.weight"), weights.get(f"{norm}.bias")
    for linear in linears:
        weight = weights[f"{linear}.weight"]
        if shift is not None:
            # a head on CLS and the mean of the patches reads two normed vectors side by side
            constant, bias = weight @ shift.repeat(weight.shape[1] // len(shift)), weights.get(f"{linear}.bias")
            weights[f"{linear}.bias"] = nn.Parameter(constant if bias is None else constant + bias)
        if scale is not None:
            weight.mul_(scale.repeat(weight.shape[1] // len(scale)))
    if scale is not None:
        scale.fill_(1)
    if shift is not None:
        shift.zero_()


def _join_biases(weights: dict[str, Tensor], linear: str) -> None:
    """Give keys a bias, of zero, where only queries and values have one: the norm's bias will be added to it."""
    q, v = weights.pop(f"{linear}.q_bias", None), weights.pop(f"{linear}.v_bias", None)
    if q is not None and v is not None:
        n_keys = len(weights[f"{linear}.weight"]) - len(q) - len(v)
        weights[f"{linear}.bias"] = nn.Parameter(torch.cat([q, q.new_zeros(n_keys), v]))


def _with_biases(cfg: HookedViTConfig, weights: dict[str, Tensor]) -> HookedViTConfig:
    """The config of a model whose linear maps may have gained biases; adds zeros where only some of them did."""
    pool_bias = "attn_pool.kv.bias" in weights
    if pool_bias and "attn_pool.q.bias" not in weights:
        weights["attn_pool.q.bias"] = nn.Parameter(torch.zeros_like(weights["attn_pool.q.weight"][:, 0]))
    return dataclasses.replace(
        cfg,
        qkv_bias=any(f"blocks.0.attn.qkv.{name}" in weights for name in ("bias", "q_bias")),
        k_bias="blocks.0.attn.qkv.bias" in weights or cfg.k_bias,
        mlp_bias=("blocks.0.mlp.inp.bias" in weights, cfg.mlp_bias[1]),
        head_bias="head.bias" in weights or not cfg.n_classes,
        pool_qkv_bias=pool_bias or cfg.pool_qkv_bias,
    )

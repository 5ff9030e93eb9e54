"""Several attentions and MLPs of a block as one of each, after their norms are folded into them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from hooked_vit.config import HookedViTConfig


def joined(cfg: HookedViTConfig, folded: Mapping[str, Tensor]) -> tuple[HookedViTConfig, dict[str, Tensor]]:
    """The weights of a model of `n_parallel` attentions and MLPs per block as those of a plain model.

    `folded` has norms of weight one and bias zero in front of all of them, so all read the same. Their heads and
    neurons are put side by side, in order: head `h` of attention `i` becomes head `i * n_heads + h`. Each has a
    LayerScale `ls` of its own, which goes into the output matrices:
    `Σ ls_i (W_i z_i + b_i) = [ls_0 W_0, ls_1 W_1, ...] [z_0, z_1, ...] + Σ ls_i b_i`.

    Raises:
        ValueError: If the attentions or MLPs have norms inside, which do not commute with joining them.
    """
    check_joinable(cfg)
    weights = {name: tensor for name, tensor in folded.items() if ".attns." not in name and ".mlps." not in name}
    for layer in range(cfg.n_layers):
        for stacked, norm, sublayer in (("attns", "ln1", "attn"), ("mlps", "ln2", "mlp")):
            starts = [f"blocks.{layer}.{stacked}.{index}." for index in range(cfg.n_parallel)]
            parts = [
                {name.removeprefix(start): tensor for name, tensor in folded.items() if name.startswith(start)}
                for start in starts
            ]
            for name, tensor in _joined_sublayers(parts):
                is_norm = name.startswith("ln_in.")
                owner = norm if is_norm else sublayer
                weights[f"blocks.{layer}.{owner}.{name.removeprefix('ln_in.')}"] = tensor
    sizes = {"n_heads": cfg.n_parallel * cfg.n_heads, "d_mlp": cfg.n_parallel * cfg.d_mlp, "d_head": cfg.d_head}
    return dataclasses.replace(cfg, n_parallel=1, layer_scale=False, **sizes), weights


def check_joinable(cfg: HookedViTConfig) -> None:
    """Raise ValueError if the attentions or MLPs of a block have norms inside."""
    norms = {"qk_norm": "queries and keys", "attn_inner_norm": "heads", "mlp_inner_norm": "neurons"}
    inside = [of for name, of in norms.items() if getattr(cfg, name) is not None]
    if inside:
        raise ValueError(
            f"each of the {cfg.n_parallel} attentions and MLPs of a block has norms of its own inside (of "
            f"{', '.join(inside)}), so they cannot be joined to one attention and one MLP: read each at its own hook "
            "points, such as 'blocks.0.attns.1.hook_pattern'"
        )


def _joined_sublayers(parts: Sequence[Mapping[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one attention or MLP that does what several do together; their norms are equal."""
    scales = [part.get("ls") for part in parts]
    for name in parts[0]:
        tensors = [part[name].detach() for part in parts]
        if name.startswith("ln_in."):
            yield name, parts[0][name]
            continue
        if name == "ls":
            continue
        if name == "out.weight":
            found = torch.cat([_scaled(w.T, scale).T for w, scale in zip(tensors, scales, strict=True)], dim=1)
        elif name == "out.bias":
            found = torch.stack([_scaled(b, scale) for b, scale in zip(tensors, scales, strict=True)]).sum(dim=0)
        elif name.startswith("qkv."):
            # the queries of all, then the keys of all, then the values of all
            found = torch.cat([tensor.unflatten(0, (3, -1)) for tensor in tensors], dim=1).flatten(0, 1)
        else:
            found = torch.cat(tensors)
        yield name, nn.Parameter(found, any(part[name].requires_grad for part in parts))


def _scaled(rows: Tensor, scale: Tensor | None) -> Tensor:
    return rows if scale is None else rows * scale.detach()

"""timm's parallel blocks and differential attention: config fields, and their tensors under the names of a `Block`."""

from collections.abc import Iterable, Mapping
from typing import Any

from timm import layers
from timm.models.vision_transformer import DiffParallelScalingBlock, ParallelScalingBlock
from torch import Tensor, nn

from hooked_vit.config import DifferentialConfig
from hooked_vit.porting.parts import read_activation, read_norm, refuse

PARALLEL_BLOCKS = (ParallelScalingBlock, DiffParallelScalingBlock)
DIFFERENTIAL = (layers.DiffAttention, DiffParallelScalingBlock)
DIFFERENTIAL_RENAMES = [
    (r"blocks\.(\d+)\.attn\.sub_norm\.", r"blocks.\1.attn.head_ln."),
    (r"blocks\.(\d+)\.attn\.lambda_(\w+)$", r"blocks.\1.attn.lambdas.\2"),
]


def read_parallel_block(block: Any, where: str) -> dict[str, Any]:
    """The config fields of a block whose attention and MLP both read its input.

    LayerScale is read from the block's part, not its arguments: here `init_values=0.0` makes a real one.
    """
    fused_out, is_differential = block.out_proj is not None, type(block) is DiffParallelScalingBlock
    attn_out, mlp_out = (block.out_proj, None) if fused_out else (block.attn_out_proj, block.mlp_out_proj)
    return {
        "n_heads": block.num_heads,
        "d_head": block.head_dim * (1 + is_differential),
        "d_mlp": block.in_split[0],
        "act_fn": read_activation(block.mlp_act, where),
        "qkv_bias": block.in_proj.bias is not None,
        "attn_out_bias": attn_out.bias is not None,
        "mlp_bias": (True, mlp_out is not None and mlp_out.bias is not None),
        "qk_norm": read_norm(block.q_norm, f"q_norm of {where}"),
        "block_norm": read_norm(block.in_norm, f"in_norm of {where}") or refuse(f"a block without a norm, {where}"),
        "layer_scale": isinstance(block.ls, layers.LayerScale),
        "parallel_attn_mlp": True,
        "fused_out": fused_out,
    }


def read_differential(blocks: Iterable[nn.Module]) -> DifferentialConfig | None:
    """λ's constants of all layers; `None` if attention is not differential."""
    attentions: list[Any] = [part for block in blocks for part in block.modules() if isinstance(part, DIFFERENTIAL)]
    if not attentions:
        return None
    if len({attn.dual_lambda for attn in attentions}) > 1:
        refuse("differential attention with λ learnt in different ways")
    for attn in attentions:
        norm = read_norm(attn.sub_norm, "sub_norm")
        if norm is None or (norm.kind, norm.eps, norm.has_weight) != ("rms", 1e-5, True):
            refuse("differential attention with another norm of its heads than timm's")
    return DifferentialConfig(tuple(float(attn.lambda_init) for attn in attentions), bool(attentions[0].dual_lambda))


def as_block_tensors(tensors: Mapping[str, Tensor], blocks: Any) -> dict[str, Tensor]:
    """A state dict in which parallel blocks have the names of a `Block`: `norm1`, `attn.qkv`, `mlp.fc1`.

    The joint projections are split: their parts are views of the same tensors.
    """
    parallel = {f"blocks.{index}.": block for index, block in enumerate(blocks) if isinstance(block, PARALLEL_BLOCKS)}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in parallel if name.startswith(prefix)), None)
        if prefix is None:
            found[name] = tensor
            continue
        part = name.removeprefix(prefix)
        for renamed, view in _parts(part, tensor, parallel[prefix].in_split[0]).items():
            found[prefix + renamed] = view
    return found


def _parts(name: str, tensor: Tensor, d_mlp: int) -> dict[str, Tensor]:
    """A tensor of a parallel block, or its parts, under a `Block`'s names."""
    owner, _, kind = name.rpartition(".")
    if owner == "in_proj":
        return {f"mlp.fc1.{kind}": tensor[:d_mlp], f"attn.qkv.{kind}": tensor[d_mlp:]}
    if name == "out_proj.weight":
        return {"attn.proj.weight": tensor[:, :-d_mlp], "mlp.fc2.weight": tensor[:, -d_mlp:]}
    names = {"mlp_bias": "mlp.fc1.bias", "out_proj.bias": "attn.proj.bias", "ls.gamma": "ls1.gamma"}
    owners = {"in_norm": "norm1", "attn_out_proj": "attn.proj", "mlp_out_proj": "mlp.fc2"}
    if name in names:
        return {names[name]: tensor}
    return {f"{owners[owner]}.{kind}" if owner in owners else f"attn.{name}": tensor}

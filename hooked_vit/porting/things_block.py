"""timm's ParallelThingsBlock, several attentions and then several MLPs side by side: config fields and names."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from timm import layers

from hooked_vit.porting.parts import refuse

THINGS_RENAMES = [
    (r"blocks\.(\d+)\.attns\.(\d+)\.norm\.", r"blocks.\1.attns.\2.ln_in."),
    (r"blocks\.(\d+)\.attns\.(\d+)\.ls\.gamma$", r"blocks.\1.attns.\2.ls"),
    (r"blocks\.(\d+)\.attns\.(\d+)\.attn\.(qkv|q_norm|k_norm)\.", r"blocks.\1.attns.\2.\3."),
    (r"blocks\.(\d+)\.attns\.(\d+)\.attn\.norm\.", r"blocks.\1.attns.\2.ln."),
    (r"blocks\.(\d+)\.attns\.(\d+)\.attn\.proj\.", r"blocks.\1.attns.\2.out."),
    (r"blocks\.(\d+)\.ffns\.(\d+)\.norm\.", r"blocks.\1.mlps.\2.ln_in."),
    (r"blocks\.(\d+)\.ffns\.(\d+)\.ls\.gamma$", r"blocks.\1.mlps.\2.ls"),
    (r"blocks\.(\d+)\.ffns\.(\d+)\.mlp\.fc1\.", r"blocks.\1.mlps.\2.inp."),
    (r"blocks\.(\d+)\.ffns\.(\d+)\.mlp\.norm\.", r"blocks.\1.mlps.\2.ln."),
    (r"blocks\.(\d+)\.ffns\.(\d+)\.mlp\.fc2\.", r"blocks.\1.mlps.\2.out."),
]


def read_things_block(block: Any, where: str, read_sublayers: Callable[[Any, str], dict[str, Any]]) -> dict[str, Any]:
    """The config fields of a ParallelThingsBlock; `read_sublayers` reads those of one attention and one MLP.

    Raises:
        ValueError: If the pairs differ, or have a part that is not covered side by side.
    """
    if len(block.attns) != len(block.ffns):
        refuse(f"{len(block.attns)} attentions and {len(block.ffns)} MLPs in {where}")
    pairs = []
    for index, (attn, ffn) in enumerate(zip(block.attns, block.ffns, strict=True)):
        pair = f"pair {index} of {where}"
        for branch, part in ((attn, "attn"), (ffn, "mlp")):
            names = [name for name, _ in branch.named_children()]
            if names != ["norm", part, "ls", "drop_path"]:
                refuse(f"a branch of {', '.join(names)} in {pair}, in the place of norm, {part}, ls, drop_path")
        if type(attn.attn) is not layers.Attention or getattr(attn.attn, "gate", None) is not None:
            refuse(f"several attentions side by side that are not plain ones, {pair}")
        if type(ffn.mlp) is not layers.Mlp:
            refuse(f"several MLPs side by side that are gated, {pair}")
        parts = {"attn": attn.attn, "norm1": attn.norm, "ls1": attn.ls}
        pairs.append(read_sublayers(SimpleNamespace(**parts, mlp=ffn.mlp, norm2=ffn.norm, ls2=ffn.ls), pair))
    if not pairs:
        refuse(f"no attention in {where}")
    if any(fields != pairs[0] for fields in pairs):
        refuse(f"pairs of attention and MLP of different kinds in {where}")
    return {**pairs[0], "n_parallel": len(pairs)}

"""Every covered timm entrypoint held against timm's own module: the tables behind `covered_models` and docs/models.md.

Each entrypoint is built with random weights, at its full width with two blocks where timm can, and compared at a small
image size where timm can. The table states for plain attention the largest difference of the logits (or features),
divided by the largest of them, in float32 and bfloat16, and in float32 for fused attention; 0 is equal to the bit.

    python benchmarks/family.py              # all, about ten minutes; rewrites the two tables in hooked_vit/assets
    python benchmarks/family.py "*dinov3*"   # only print some
"""

import argparse
import fnmatch
import sys
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from torch import nn

from hooked_vit import HookedViT
from hooked_vit.covered_models import PLAIN_VIT_MODULES, describe_architecture, why_not_covered
from hooked_vit.loading import EMBEDDED

_MOST_PARAMETERS = 10**9
_GRID = (4, 3)  # rows and columns of patches, where the image size is free


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="*", help="which entrypoints; * matches anything")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="only each N-th entrypoint, from I")
    parser.add_argument("--out", type=Path, help="write the two tables here instead of into the package")
    options = parser.parse_args()
    names = [name for module in PLAIN_VIT_MODULES for name in timm.list_models(module=module)]
    index, count = map(int, options.shard.split("/"))
    chosen = fnmatch.filter(sorted(set(names)), options.pattern)[index::count]
    architectures, measured = [], []
    for name in chosen:
        reason = why_not_covered(name)
        if reason is None:
            try:
                measured.append(measure(name))
                architectures.append(describe_architecture(name))
                line = ", ".join(f"{key} {value:.1e}" if isinstance(value, float) else str(value)
                                 for key, value in measured[-1].items() if key != "timm")  # fmt: skip
            except Exception as error:
                line = f"{name}: FAILED {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        else:
            line = f"{name}: not covered: {reason}"
        print(line, flush=True)
    if options.pattern == "*":
        folder = options.out or Path(str(files("hooked_vit").joinpath("assets")))
        embedded = [describe_architecture(name) for name in EMBEDDED] if index == 0 else []
        pd.DataFrame([*embedded, *architectures]).to_csv(folder / "covered_models.csv", index=False)
        pd.DataFrame(measured).to_csv(folder / "exactness.csv", index=False)


def measure(name: str) -> dict[str, Any]:
    """A row of the table of exactness."""
    module, two_blocks = small(name)
    part: Any
    row: dict[str, Any] = {"architecture": name, "timm_class": type(module).__name__}
    model = HookedViT.from_timm(module)
    height, width = model.cfg.image_size
    images = torch.randn(2, model.cfg.n_channels, height, width, generator=torch.Generator().manual_seed(1))
    row["fp32_fused"] = model.verify(module, images).relative
    model.fused_attention = False
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
    row["fp32"] = model.verify(module, images).relative
    half = torch.bfloat16
    row["bf16"] = model.to(half).verify(module.to(half), images.to(half)).relative
    return {**row, "two_blocks": two_blocks, "timm": timm.__version__}


def small(name: str) -> tuple[nn.Module, bool]:
    """The entrypoint with random weights, as small as timm builds it without changing its widths; whether it has two
    blocks."""
    with torch.device("meta"):
        own: Any = timm.create_model(name, pretrained=False)
    embed: Any = getattr(own, "patch_embed", None)
    ratio = embed.feat_ratio(as_scalar=False) if hasattr(embed, "feat_ratio") else None
    arguments: dict[str, Any]
    size = {} if ratio is None else {"img_size": (_GRID[0] * ratio[0], _GRID[1] * ratio[1])}
    attention = getattr(own.blocks[-1], "attn", None) if hasattr(own, "blocks") else None
    heads = getattr(attention, "num_kv_heads", None)
    grouped = {} if heads is None else {"num_kv_heads": heads}  # where the number differs from block to block
    for arguments in ({"depth": 2, **size}, {"depth": 2, **grouped, **size}, {"depth": 2}, {}):
        if not arguments and sum(parameter.numel() for parameter in own.parameters()) > _MOST_PARAMETERS:
            raise ValueError(f"timm cannot build {name} with two blocks, and all of it is too large")
        try:
            module = timm.create_model(name, pretrained=False, **arguments)
            break
        except (TypeError, ValueError, AssertionError, RuntimeError, AttributeError):
            continue
    else:
        raise ValueError(f"timm cannot build {name}")
    return perturbed(module), "depth" in arguments


@torch.no_grad()
def perturbed(module: nn.Module) -> nn.Module:
    """The module with no bias, norm or LayerScale at zero or one."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_((0.02 if parameter.ndim > 1 else 0.1) * noise)
    return module.eval()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())

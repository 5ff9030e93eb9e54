"""Memory coefficients: how strongly each token calls on each memory of a sub-layer."""

from collections.abc import Sequence
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from analyses.value_vectors.vectors import MemorySublayer, block_index, check_sublayer
from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache

__all__ = ["Coefficients", "coefficient_names", "memory_coefficients"]

Coefficients = Literal["pre", "post"]


def coefficient_names(
    cfg: HookedViTConfig,
    sublayer: MemorySublayer = "mlp",
    coefficients: Coefficients = "pre",
    layers: Sequence[int] | None = None,
) -> list[str]:
    """The hook points that `memory_coefficients` reads: a `names_filter` for `run_with_cache`.

    Raises:
        ValueError: If there is no such sub-layer, kind of coefficient or block.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> coefficient_names(model.cfg, "mlp", "post", layers=[0, -1])
    ['blocks.0.mlp.hook_post', 'blocks.7.mlp.hook_post']
    """
    check_sublayer(sublayer)
    if coefficients not in get_args(Coefficients):
        raise ValueError(f"expected coefficients 'pre' or 'post', got {coefficients!r}")
    chosen = range(cfg.n_layers) if layers is None else [block_index(cfg, layer) for layer in layers]
    if sublayer == "attn":
        points = ["attn.hook_z"]
    elif coefficients == "post":
        points = ["mlp.hook_post"]
    else:
        points = ["mlp.hook_pre", "mlp.hook_pre_linear"] if cfg.gated_mlp else ["mlp.hook_pre"]
    return [f"blocks.{layer}.{point}" for layer in chosen for point in points]


def memory_coefficients(
    model: HookedViT,
    cache: ViTActivationCache,
    layer: int,
    sublayer: MemorySublayer = "mlp",
    coefficients: Coefficients = "pre",
) -> Float[Tensor, "batch token memory"]:
    """The coefficient of every memory at every token (paper, section 5.2).

    | sub-layer | `"post"`, the paper's equation | `"pre"`, the published code |
    |---|---|---|
    | MLP | `f(x W_in + b_in)` (`hook_post`) | `x W_in + b_in` (`hook_pre`), which may be negative where f is not |
    | gated MLP | `f(gate) * linear` (`hook_post`) | `gate * linear` (`hook_pre * hook_pre_linear`): without f |
    | attention | z with the heads flattened (`hook_z`) | the same: nothing stands between key and value |

    The two halves of a gated MLP's memory vote together: a large gate with a negative linear half calls for the
    opposite of the value vector, so the gate alone would not be a coefficient. A norm within the MLP is part of
    `"post"` and not of `"pre"`, which ends where the activation function begins; one within the attention is part
    of z. `sum_i post_i v_i + b` is what the sub-layer computes, exactly, for all of these.

    Args:
        model: The model that the cache comes from.
        cache: With the hook points of `coefficient_names`. A cache without batch axis is a batch of one.
        layer: Which block; negative ones count from the end.
        sublayer: `mlp` or `attn`.
        coefficients: `pre` or `post`.

    Raises:
        ValueError: If an argument is none of these, or the cache lacks a hook point.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64))
    >>> memory_coefficients(model, cache, layer=6).shape
    torch.Size([2, 65, 512])
    """
    names = coefficient_names(model.cfg, sublayer, coefficients, [layer])
    missing = [name for name in names if name not in cache.cache_dict]
    if missing:
        raise ValueError(
            f"the cache lacks '{missing[0]}', which the coefficients of '{sublayer}' are read from: run "
            f"`model.run_with_cache(images, names_filter=coefficient_names(model.cfg, '{sublayer}', '{coefficients}'))`"
        )
    parts = [cache[name] if cache.has_batch_dim else cache[name][None] for name in names]
    if sublayer == "attn":
        return parts[0].flatten(-2)
    return parts[0] if len(parts) == 1 else parts[0] * parts[1]

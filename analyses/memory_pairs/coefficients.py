"""Memory coefficients: how strongly each token activates each memory of a sub-layer."""

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
    | MLP | `f(x W_in + b_in)` (`hook_post`) | `x W_in + b_in` (`hook_pre`), which may be negative even where f is not |
    | gated MLP | `f(gate) * linear` (`hook_post`) | `gate * linear` (`hook_pre * hook_pre_linear`): without f |
    | attention | z with the heads flattened (`hook_z`) | the same: there is nothing between key and value |

    A gated MLP's coefficient is a product: a large gate with a negative linear half writes the negative of the value
    vector, so the gate alone would not be a coefficient. A norm within the MLP is part of `"post"` but not of `"pre"`,
    which ends before the activation function; a norm within attention is part of z. In all these cases the sub-layer
    computes exactly `sum_i post_i v_i + b`.

    Args:
        model: The model that the cache comes from.
        cache: A cache with the hook points of `coefficient_names`. Without a batch axis, it is a batch of one image.
        layer: Index of the block; negative indices count from the end.
        sublayer: `mlp` or `attn`.
        coefficients: `pre` or `post`.

    Raises:
        ValueError: If an argument is invalid, or the cache lacks a hook point.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64))
    >>> memory_coefficients(model, cache, layer=6).shape
    torch.Size([2, 65, 512])
    """
    names = coefficient_names(model.cfg, sublayer, coefficients, [layer])
    cache.require(names, how=f"coefficient_names(model.cfg, '{sublayer}', '{coefficients}')")
    parts = [cache[name] if cache.has_batch_dim else cache[name][None] for name in names]
    if sublayer == "attn":
        return parts[0].flatten(-2)
    return parts[0] if len(parts) == 1 else parts[0] * parts[1]

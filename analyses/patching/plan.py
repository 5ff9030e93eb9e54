"""The plan of a patching sweep: which layers, tokens or groups of tokens, heads or neurons are patched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooked_vit import HookedViTConfig
from hooked_vit.absent_points import refuse_absent
from hooked_vit.interventions.selection import select_indices, select_tokens

__all__ = ["PATCH_STREAMS", "PatchPlan", "PatchStream", "plan_patches"]

PatchStream = Literal[
    "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern", "post"
]
PATCH_STREAMS: tuple[PatchStream, ...] = get_args(PatchStream)

_HEADS = ("z", "q", "k", "v", "pattern")


@dataclass(frozen=True)
class PatchPlan:
    """The cells of a sweep, the same at each layer: each is a choice of tokens and a head or neuron.

    Attributes:
        stream: The patched activation.
        layers: Indices of the blocks.
        axes: The names of the cells' axes, `layer` first.
        labels: The labels along each axis: indices of tokens, heads or neurons, or names of groups.
        token_masks: The tokens of each choice, with a batch axis of length one if they are the same in all images.
        components: The heads or neurons; `None` where the stream has neither.
        n_components: How many heads or neurons the stream has.
    """

    stream: PatchStream
    layers: tuple[int, ...]
    axes: tuple[str, ...]
    labels: Mapping[str, tuple[Any, ...]]
    token_masks: Bool[Tensor, "choice #batch token"]
    components: Int[Tensor, "component"] | None
    n_components: int

    @property
    def n_cells(self) -> int:
        """Number of patches per layer."""
        return len(self.token_masks) * (1 if self.components is None else len(self.components))

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(len(self.labels[axis]) for axis in self.axes)

    def masks(self, cells: Sequence[int] | range, images: slice) -> Bool[Tensor, "row *axes"]:
        """The entries that some cells patch in some images; rows run over cells, then over images."""
        index = torch.tensor(cells, device=self.token_masks.device)
        n_images = images.stop - images.start
        # cells run over components, and within each over tokens
        tokens, component = index % len(self.token_masks), index // len(self.token_masks)
        token_mask = self.token_masks[tokens]
        token_mask = token_mask[:, images] if token_mask.shape[1] > 1 else token_mask.expand(-1, n_images, -1)
        token_mask = token_mask.flatten(0, 1)
        if self.components is None:
            return token_mask[:, :, None]
        one_hot = torch.arange(self.n_components, device=index.device) == self.components[component, None]
        component_mask = one_hot.repeat_interleave(n_images, dim=0)
        if self.stream == "pattern":
            return (component_mask[:, :, None] & token_mask[:, None, :])[..., None]
        mask = token_mask[:, :, None] & component_mask[:, None, :]
        return mask if self.stream == "post" else mask[..., None]


def plan_patches(
    cfg: HookedViTConfig,
    stream: str,
    n_tokens: int,
    n_images: int,
    *,
    layers: Sequence[int] | None = None,
    tokens: Any = None,
    heads: Any = None,
    neurons: Any = None,
    groups: Mapping[str, Any] | None = None,
) -> PatchPlan:
    """Lay out a sweep; its arguments are those of `activation_patching`.

    Raises:
        ValueError: If the stream, or a layer, token, head or neuron does not exist, or the choices exclude each other.

    >>> cfg = HookedViTConfig(2, 12, 3, 20, 7, (16, 24), (8, 8))
    >>> plan = plan_patches(cfg, "z", n_tokens=7, n_images=1, heads=[0, 2])
    >>> plan.axes, plan.shape, plan.n_cells
    (('layer', 'head'), (2, 2), 2)
    """
    if stream not in PATCH_STREAMS:
        raise ValueError(f"expected a stream out of {', '.join(map(repr, PATCH_STREAMS))}, got {stream!r}")
    refuse_absent([f"hook_{stream}"], cfg)
    has_heads, has_neurons = stream in _HEADS, stream == "post"
    if heads is not None and not has_heads:
        raise ValueError(f"'{stream}' has no heads: patch them in {', '.join(map(repr, _HEADS))}")
    if neurons is not None and not has_neurons:
        raise ValueError(f"'{stream}' has no neurons: patch them in 'post'")
    if groups is not None and tokens is not None:
        raise ValueError("pass tokens, one patch for each of them, or groups, one patch for each group, and not both")
    chosen = range(cfg.n_layers) if layers is None else layers
    at_layers = tuple(int(layer) for layer in select_indices(list(chosen), cfg.n_layers, "layers").nonzero()[:, 0])
    labels: dict[str, tuple[Any, ...]] = {"layer": at_layers}
    components, n_components = None, 0
    if has_heads or has_neurons:
        axis, n_components = ("head", _n_heads(cfg, stream, at_layers)) if has_heads else ("neuron", cfg.d_mlp)
        selected = heads if has_heads else neurons
        mask = select_indices(slice(None) if selected is None else selected, n_components, f"{axis}s")
        components = mask.nonzero()[:, 0]
        labels[axis] = tuple(components.tolist())
    masks = torch.ones(1, 1, n_tokens, dtype=torch.bool)
    axis = "query" if stream == "pattern" else "token"
    if groups is not None:
        labels["group"] = tuple(groups)
        masks = _group_masks(groups, cfg, n_tokens, n_images)
    elif tokens is not None or components is None:
        each = select_tokens("any" if tokens is None else tokens, cfg.token_layout, n_tokens, n_images=n_images).cpu()
        per_image = each if each.ndim == 2 else each[None]
        in_some_image = per_image.any(dim=0)
        if not in_some_image.any():
            raise ValueError("expected at least one token to patch, got a mask without any")
        labels[axis] = tuple(in_some_image.nonzero()[:, 0].tolist())
        # a token is patched in the images whose mask holds it
        masks = torch.eye(n_tokens, dtype=torch.bool)[in_some_image][:, None] & per_image
    return PatchPlan(stream, at_layers, tuple(labels), labels, masks, components, n_components)


def _n_heads(cfg: HookedViTConfig, stream: str, layers: Sequence[int]) -> int:
    """How many heads a stream has; keys and values may have fewer than queries, which share them."""
    if stream not in ("k", "v"):
        return cfg.n_heads
    counts = {cfg.n_key_value_heads_at(layer) for layer in layers}
    if len(counts) > 1:
        raise ValueError(
            f"'{stream}' has {' or '.join(map(str, sorted(counts)))} heads, depending on the layer: pass layers= with "
            "the same number (`model.cfg.per_layer_num_key_value_heads`)"
        )
    return counts.pop()


def _group_masks(groups: Mapping[str, Any], cfg: HookedViTConfig, n_tokens: int, n_images: int) -> Tensor:
    if not groups:
        raise ValueError("expected at least one group of tokens, got none")
    masks = []
    for name, members in groups.items():
        mask = select_tokens(members, cfg.token_layout, n_tokens, f"group '{name}'", n_images)
        masks.append((mask if mask.ndim == 2 else mask[None]).cpu())
    n_rows = max(len(mask) for mask in masks)
    return torch.stack([mask.expand(n_rows, -1) for mask in masks])

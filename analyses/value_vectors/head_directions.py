"""Singular directions in class space: the classes that a head's OV, or an MLP's W_out, raises and lowers together."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import FactoredMatrix

from analyses.value_vectors.vectors import block_index, value_vectors
from hooked_vit import HookedViT

__all__ = ["ClassDirections", "head_class_directions", "mlp_class_directions"]


@dataclass(frozen=True)
class ClassDirections:
    """A singular value decomposition, strongest component first: `inputs diag(singular_values) classesᵀ`.

    Attributes:
        layer: Index of the block.
        singular_values: The strength of each component, in logits for an input of unit length.
        inputs: For a head, the direction in the normed stream that activates the component; for an MLP, the weights of
            the memories that form the component. Unit length.
        classes: How the component moves each class. Unit length; the sign is chosen so that the class with the largest
            change is raised.
    """

    layer: int
    singular_values: Float[Tensor, "*head component"]
    inputs: Float[Tensor, "*head component d_in"]
    classes: Float[Tensor, "*head component n_classes"]


@torch.no_grad()
def head_class_directions(
    model: HookedViT, layer: int, *, centre: bool = True, layer_scale: bool = False
) -> ClassDirections:
    """Decompose `W_V W_O W_U` of each head of a block: what it reads, and the classes that it then promotes.

    Args:
        model: The model; it is not changed. Fold its norms with `model.fold_layer_norm()` to include their weights in
            the inputs.
        layer: Index of the block; negative indices count from the end.
        centre: Whether to subtract the mean class embedding: what raises all classes alike predicts nothing.
        layer_scale: Whether to apply the block's LayerScale to the outputs, if it has one.

    Raises:
        ValueError: If there is no such block, or the head of the model reads the stream through an attention pool.

    >>> directions = head_class_directions(HookedViT.from_pretrained("emoji-vit"), layer=6)
    >>> directions.singular_values.shape, directions.classes.shape
    (torch.Size([4, 32]), torch.Size([4, 32, 100]))
    """
    cfg = model.cfg
    W_O = value_vectors(model, layer, "attn", layer_scale=layer_scale).unflatten(0, (cfg.n_heads, cfg.d_head))
    return _decompose(model, layer, model.blocks[block_index(cfg, layer)].attn.W_V.detach(), W_O, centre)


@torch.no_grad()
def mlp_class_directions(
    model: HookedViT, layer: int, *, centre: bool = True, layer_scale: bool = False
) -> ClassDirections:
    """Decompose `W_out W_U` of a block: groups of memories that promote the same classes.

    Arguments and errors are those of `head_class_directions`.

    >>> directions = mlp_class_directions(HookedViT.from_pretrained("emoji-vit"), layer=6)
    >>> directions.inputs.shape  # no more components than classes or dimensions
    torch.Size([100, 512])
    """
    W_out = value_vectors(model, layer, "mlp", layer_scale=layer_scale)
    return _decompose(model, layer, W_out, torch.eye(model.cfg.d_model).to(W_out), centre)


def _decompose(model: HookedViT, layer: int, left: Tensor, right: Tensor, centre: bool) -> ClassDirections:
    """The singular directions of `left right W_U`."""
    if model.cfg.pool == "attention":
        raise ValueError(
            "with an attention pool, a vector's class logits are not linear in it, so there are no singular "
            "directions: project single value vectors with `value_logits`"
        )
    W_U = model.W_U.detach()
    if centre:
        # the difference to the mean of a single class embedding is zero
        model.require_several_classes("a centred class direction (centre=False gives the others)")
    to_classes = right @ (W_U - W_U.mean(dim=1, keepdim=True) if centre else W_U)
    inputs, singular_values, classes = FactoredMatrix(left, to_classes).svd()
    n = min(left.shape[-2], to_classes.shape[-1], singular_values.shape[-1])
    inputs, classes = inputs.mT[..., :n, :], classes.mT[..., :n, :]
    signs = classes.gather(-1, classes.abs().argmax(dim=-1, keepdim=True)).sign()
    return ClassDirections(block_index(model.cfg, layer), singular_values[..., :n], inputs * signs, classes * signs)

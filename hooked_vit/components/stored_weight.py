"""The weight of a linear layer where the weight is the whole layer; adapters are refused, not read past."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hooked_vit.components.qkv import QKV


def stored_weight(layer: nn.Module) -> Float[Tensor, "out_features in_features"]:
    """The weight that a layer multiplies its input with.

    Raises:
        ValueError: If the layer is no plain `nn.Linear`: an adapter, such as LoRA, adds to what its weight computes,
            so a matrix read from it would not be the model's.

    >>> stored_weight(nn.Linear(3, 2)).shape
    torch.Size([2, 3])
    """
    # our own kind of linear layer differs in its biases alone
    if type(layer) not in (nn.Linear, QKV) and not parametrize.is_parametrized(layer):
        kind = type(layer)
        raise ValueError(
            f"expected a plain nn.Linear, got {kind.__module__}.{kind.__qualname__}: its weight is not all that it "
            "computes. Merge the adapter first (with PEFT: `model.merge_and_unload()`)"
        )
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight

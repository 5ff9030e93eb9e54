"""A port refuses by name what it would silently lose; a HookedViT refuses adapters that it would read past."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import KINDS, make_timm
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from hooked_vit import HookedViT
from hooked_vit.porting import read_config
from hooked_vit.porting.hidden_computation import refuse_hidden_computation


class LowRank(nn.Linear):
    """An adapter that inherits: a linear layer whose weight is not all that it computes."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


class Wrapped(nn.Module):
    """An adapter that wraps, as PEFT's do: it shows the layer's weight as its own."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base_layer = base

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base_layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + torch.linspace(0, 1, self.base_layer.out_features)


class Active(nn.Dropout):
    """Something that is on in evaluation mode, where a dropout is expected."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * input


def hooked(module: Any) -> None:
    module.blocks[1].register_forward_hook(lambda module, args, output: 2 * output)


def pre_hooked(module: Any) -> None:
    module.blocks[1].mlp.register_forward_pre_hook(lambda module, args: (2 * args[0],))


def own_forward(module: Any) -> None:
    module.blocks[1].attn.forward = lambda x, **kwargs: x


def subclass(module: Any) -> None:
    module.blocks[1].attn.qkv = LowRank(24, 72)


def wrapped(module: Any) -> None:
    module.blocks[0].mlp.fc2 = Wrapped(module.blocks[0].mlp.fc2)


def scaled(module: Any) -> None:
    module.blocks[2].attn.scale = 1.0


def dropped(module: Any) -> None:
    module.blocks[2].drop_path1 = Active()


def in_the_head(module: Any) -> None:
    module.head_drop = Active()


def pruned(module: Any) -> None:
    prune.random_unstructured(module.blocks[1].attn.proj, "weight", 0.5)


def normed(module: Any) -> None:
    parametrizations.weight_norm(module.blocks[1].attn.qkv)


def old_weight_norm(module: Any) -> None:
    nn.utils.weight_norm(module.blocks[1].attn.qkv)


CASES = [
    (hooked, "a forward hook on 'blocks.1'"),
    (pre_hooked, "a forward hook on 'blocks.1.mlp'"),
    (own_forward, "a `forward` that was set on the instance 'blocks.1.attn'"),
    (subclass, "LowRank as 'blocks.1.attn.qkv': merge or remove it first"),
    (wrapped, "Wrapped as 'blocks.0.mlp.fc2': merge or remove it first"),
    (scaled, "the scale 1.0 of the attention scores in 'blocks.2.attn'"),
    (dropped, "Active as the place of a dropout, 'blocks.2.drop_path1'"),
    (in_the_head, "Active as the place of a dropout, 'head_drop'"),
    (pruned, "a reparametrised weight .* in 'blocks.1.attn.proj': merge or remove it first"),
    (normed, "a reparametrised weight .* in 'blocks.1.attn.qkv"),
    (old_weight_norm, "a reparametrised weight .* in 'blocks.1.attn.qkv"),
]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(("change", "message"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_hidden_computation_is_refused(change: Callable[[Any], None], message: str) -> None:
    module = make_timm("cls", drop_path_rate=0.1, proj_drop_rate=0.1)
    HookedViT.from_timm(module)
    change(module)
    with pytest.raises(ValueError, match=message):
        HookedViT.from_timm(module)


@pytest.mark.parametrize("kind_name", KINDS)
def test_timms_own_modules_have_none(kind_name: str) -> None:
    refuse_hidden_computation(make_timm(kind_name))
    read_config(make_timm(kind_name))


@pytest.mark.parametrize("layer", ["qkv", "out"])
def test_an_adapter_in_a_hooked_model_is_followed_or_refused(layer: str, images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    plain, attn = model(images), model.blocks[1].attn
    setattr(attn, layer, Wrapped(getattr(attn, layer)))
    assert not torch.allclose(model(images), plain), "the forward pass follows it"

    def edited(name: str) -> Tensor:
        return model.run_with_hooks(images, fwd_hooks=[((name, 1), lambda a, hook: a)])

    readings: dict[str, list[Callable[[], Any]]] = {
        "qkv": [lambda: attn.W_Q, lambda: attn.QK, lambda: model.W_V, lambda: edited("q_input")],
        "out": [lambda: attn.W_O, lambda: attn.OV, lambda: edited("result")],
    }
    for reading in readings[layer]:
        with pytest.raises(ValueError, match=r"expected a plain nn.Linear, got .*Wrapped.*Merge the adapter first"):
            reading()


def test_a_parametrised_layer_of_a_hooked_model_shows_its_effective_weight() -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    W_O = model.blocks[0].attn.W_O.clone()
    parametrizations.weight_norm(model.blocks[0].attn.out)
    torch.testing.assert_close(model.blocks[0].attn.W_O, W_O)

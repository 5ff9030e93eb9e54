"""A model's architecture with weights as before training: the null control for claims about what was learned."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from timm import layers
from timm.layers.pos_embed_sincos import init_random_2d_freqs
from torch import Tensor, nn

from hooked_vit.components.block import Block
from hooked_vit.components.differential_attention import DifferentialAttention
from hooked_vit.components.embed import Embed
from hooked_vit.components.flexible_embed import FlexibleEmbed
from hooked_vit.components.mlp import Mlp
from hooked_vit.components.norm import Norm
from hooked_vit.components.pool import AttentionPool
from hooked_vit.components.qkv import QKV
from hooked_vit.components.several_block import AttentionBranch, MlpBranch
from hooked_vit.model import HookedViT

__all__ = ["freshly_initialised"]


@torch.no_grad()
def freshly_initialised(model: HookedViT, seed: int | torch.Generator, layer_scale: float = 1e-5) -> HookedViT:
    """A model of the same architecture with weights drawn as timm draws them before training.

    The default scheme of timm's VisionTransformer (`weight_init=""`), for every family: matrices, head included, and
    positions from a normal distribution of standard deviation 0.02, biases zero; norms one and zero; CLS and registers
    of standard deviation 1e-6, the distillation token 0.02; the patch projection as PyTorch initialises convolutions;
    a gated MLP's second half near zero with bias one; an attention pool's query `d_model ** -0.5`, cut off at two
    deviations; the convolutions of a stem after He et al. (normal, by the fan out), its norms one and zero; tables of
    relative positions 0.02, learnt rotary frequencies in random directions. The published comparisons with a random
    model use this scheme too.

    Two initial values cannot be read from a trained model: LayerScale's (by default timm's default; DeiT-III: 1e-6),
    and a weight other than one of the norms of post-norm blocks.

    Args:
        model: The trained model; it is left unchanged.
        seed: A seed, or a generator, which is advanced. The draws are the same on every device.
        layer_scale: The initial value of LayerScale, in models that have it.

    Returns:
        A model with the same device, dtype, class names and preprocessing, which shares no weights.

    Raises:
        ValueError: If a generator is not on the CPU.

    >>> trained = HookedViT.from_pretrained("emoji-vit")
    >>> null = freshly_initialised(trained, seed=0)
    >>> bool(null.W_Q.std().sub(0.02).abs() < 1e-3), bool(null.b_Q.any())
    (True, False)
    """
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    if generator.device.type != "cpu":
        raise ValueError(
            f"expected a generator on the CPU, whose draws do not depend on the device, got {generator.device}"
        )
    weights = dict(model.named_parameters())
    if model.embed.stem is not None:
        weights |= model.embed.stem.statistics("embed.stem.")
    null = model.with_weights(
        {name: torch.empty_like(tensor, requires_grad=tensor.requires_grad) for name, tensor in weights.items()}
    )
    stem = null.embed.stem
    in_stem = [] if stem is None else list(stem.modules())
    drawn: set[Tensor] = set()
    # children first: a gated MLP then draws half of its first matrix again
    for module in reversed(list(null.modules())):
        values = (
            _stem_values(module, generator) if module in in_stem else _initial_values(module, generator, layer_scale)
        )
        for parameter, initial in values:
            parameter.copy_(initial)
            drawn.add(parameter)
    missed = [name for name, parameter in null.named_parameters() if parameter not in drawn]
    assert not missed, f"nothing initialises {missed}"
    return null


def _initial_values(
    module: nn.Module, generator: torch.Generator, layer_scale: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """A module's own parameters, or views of them, with their initial values."""
    if isinstance(module, nn.Linear):
        yield module.weight, _normal(module.weight, 0.02, generator)
        for bias in (module.bias, *((module.q_bias, module.v_bias) if isinstance(module, QKV) else ())):
            if bias is not None:
                yield bias, torch.zeros(bias.shape)
    elif isinstance(module, nn.Conv2d):
        bound = 1 / math.sqrt(module.weight[0].numel())
        yield module.weight, _uniform(module.weight, bound, generator)
        if module.bias is not None:
            yield module.bias, _uniform(module.bias, bound, generator)
    elif isinstance(module, Norm):
        if module.weight is not None:
            yield module.weight, torch.ones(module.weight.shape)
        if module.bias is not None:
            yield module.bias, torch.zeros(module.bias.shape)
    elif isinstance(module, DifferentialAttention):
        for name, parameter in module.lambdas.items():
            yield parameter, torch.zeros(()) if name in ("a", "b") else _normal(parameter, 0.1, generator)
    elif isinstance(module, Block):
        for scale in (module.ls1, module.ls2):
            if scale is not None:
                yield scale, torch.full(scale.shape, layer_scale)
    elif isinstance(module, AttentionBranch | MlpBranch):
        if module.ls is not None:
            yield module.ls, torch.full(module.ls.shape, layer_scale)
    elif isinstance(module, Mlp) and module.kind != "plain" and module.ln_in is None:
        # timm takes the second half for the gate, even if `gate_last` is off and the gate is the first
        linear, start = (module.inp, module.d_mlp) if module.gate is None else (module.gate, 0)
        yield linear.weight[start:], _normal(linear.weight[start:], 1e-6, generator)
        if linear.bias is not None:
            yield linear.bias[start:], torch.ones(linear.bias[start:].shape)
    elif isinstance(module, layers.RelPosBias):
        table = module.relative_position_bias_table
        yield table, _normal(table, 0.02, generator)
    elif isinstance(module, layers.RotaryEmbeddingMixed):
        yield module.freqs, _frequencies(module, generator)
    elif isinstance(module, AttentionPool):
        cut = nn.init.trunc_normal_(torch.empty(module.latent.shape), a=-2, b=2, generator=generator)
        yield module.latent, cut * module.latent.shape[-1] ** -0.5
    elif isinstance(module, Embed):
        tokens = [(module.cls, 1e-6), (module.dist, 0.02), (module.registers, 1e-6), (module.pos, 0.02)]
        if isinstance(module, FlexibleEmbed):
            tokens += [(module.pos_rows, 0.02), (module.pos_columns, 0.02)]
        for parameter, std in tokens:
            if parameter is not None:
                yield parameter, _normal(parameter, std, generator)


def _frequencies(rope: layers.RotaryEmbeddingMixed, generator: torch.Generator) -> Float[Tensor, "..."]:
    """timm's initial frequencies: in a random direction for each layer and head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        d_head = rope.dim // rope.num_heads
        return init_random_2d_freqs(d_head, rope.depth, rope.num_heads, temperature=rope.temperature)


def _stem_values(module: nn.Module, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """The same for a module inside a stem, which is one of timm's or the user's own."""
    if isinstance(module, nn.modules.batchnorm._NormBase):
        module.reset_running_stats()
    for name, parameter in module.named_parameters(recurse=False):
        if name == "weight" and isinstance(module, nn.Conv2d | nn.Linear):
            fan_out = parameter.shape[0] * parameter[0, :1].numel() / getattr(module, "groups", 1)
            yield parameter, _normal(parameter, math.sqrt(2 / fan_out), generator)
        else:
            yield parameter, torch.zeros(parameter.shape) if "bias" in name else torch.ones(parameter.shape)


def _normal(like: Tensor, std: float, generator: torch.Generator) -> Float[Tensor, "..."]:
    return torch.empty(like.shape).normal_(std=std, generator=generator)


def _uniform(like: Tensor, bound: float, generator: torch.Generator) -> Float[Tensor, "..."]:
    return torch.empty(like.shape).uniform_(-bound, bound, generator=generator)

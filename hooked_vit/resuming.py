"""Resume a run in the middle of a block from a given activation, and compute of the rest only what the head reads."""

from collections.abc import Mapping
from types import MappingProxyType

from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hooked_vit.components.block import Block
from hooked_vit.config import HookedViTConfig
from hooked_vit.hook_point import is_watched
from hooked_vit.model import HookedViT

RESUMABLE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "resid_pre": (),
        "q": ("resid_pre", "k", "v"),
        "k": ("resid_pre", "q", "v"),
        "v": ("resid_pre", "q", "k"),
        "pattern": ("resid_pre", "v"),
        "z": ("resid_pre",),
        "attn_out": ("resid_pre",),
        "resid_mid": (),
        "post": ("resid_mid",),
        "mlp_out": ("resid_mid",),
        "resid_post": (),
    }
)
"""Activations of a block at which a run can resume, and what it needs besides: what came before them in the block."""


def read_tokens(cfg: HookedViTConfig) -> slice:
    """The tokens of the last residual stream that the head reads.

    >>> read_tokens(HookedViT.from_pretrained("emoji-vit").cfg)
    slice(0, 1, None)
    """
    return {"cls": slice(0, 1), "cls_and_dist": slice(0, 2)}.get(cfg.pool, slice(None))


def resume(
    model: HookedViT,
    stream: str,
    layer: int,
    value: Float[Tensor, "batch *axes"],
    context: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "batch n_classes"]:
    """Logits of a run of which one activation is given, and with it all that comes before it.

    Equal to a whole run with the activation put in by a hook. Nothing in front of it is computed; and where the head
    reads CLS alone, in the last block nothing of the other tokens but their keys and values.

    Args:
        model: Nobody may hook it: the parts that run are not those that a hook would expect.
        stream: Which activation: one of `RESUMABLE`, by TransformerLens's short names (`"post"` are the neurons).
        layer: Of which block.
        value: The activation, as its hook point has it.
        context: The activations that `RESUMABLE` names for it, by those names. A batch axis of one stands for all.

    Raises:
        ValueError: If a run cannot resume there, or the model has hooks on.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> images = torch.zeros(1, 3, 64, 64)
    >>> logits, cache = model.run_with_cache(images, names_filter=["z", "resid_pre"])
    >>> found = resume(model, "z", 5, cache["z", 5], {"resid_pre": cache["resid_pre", 5]})
    >>> torch.allclose(found, logits, atol=1e-5)
    True
    """
    check_unhooked(model)
    given = _given(stream, value, context)
    if stream == "resid_post":
        return _finish(model, value, layer + 1)
    if stream == "resid_pre":
        return _finish(model, value, layer)
    kept = read_tokens(model.cfg) if layer == model.cfg.n_layers - 1 else slice(None)
    return _finish(model, _rest_of_block(model.blocks[layer], stream, given, kept), layer + 1)


def resume_stream(
    model: HookedViT,
    stream: str,
    layer: int,
    value: Float[Tensor, "batch *axes"],
    context: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "batch token d_model"]:
    """As `resume`, up to the last residual stream, with all of its tokens."""
    check_unhooked(model)
    given = _given(stream, value, context)
    if stream not in ("resid_pre", "resid_post"):
        value = _rest_of_block(model.blocks[layer], stream, given, slice(None))
    after = layer if stream == "resid_pre" else layer + 1
    return model(value, start_at_layer=after, stop_at_layer=model.cfg.n_layers)


def _given(stream: str, value: Tensor, context: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    if stream not in RESUMABLE:
        raise ValueError(f"expected one of {', '.join(map(repr, RESUMABLE))}, got {stream!r}")
    given = {**(context or {}), stream: value}
    missing = [name for name in RESUMABLE[stream] if name not in given]
    if missing:
        raise ValueError(f"to resume at '{stream}', pass {', '.join(RESUMABLE[stream])} too; missing: {missing[0]}")
    return given


def check_unhooked(model: HookedViT) -> None:
    """Raise ValueError if anybody has a hook on the model."""
    watched = next((point for point in model.hook_points() if is_watched(point)), None)
    if watched is not None:
        raise ValueError(
            f"the model has a hook on '{watched.name}', which a run that resumes in the middle would not follow: take "
            "it off with `model.reset_hooks()`, or leave the `with model.hooks(...)` block"
        )


def _finish(model: HookedViT, residual: Tensor, layer: int) -> Tensor:
    """From the stream that enters a layer; in front of the head, of the tokens that it reads."""
    kept, n_layers = read_tokens(model.cfg), model.cfg.n_layers
    if layer < n_layers:
        if kept == slice(None):
            return model(residual, start_at_layer=layer)
        if layer < n_layers - 1:
            residual = model(residual, start_at_layer=layer, stop_at_layer=n_layers - 1)
        block = model.blocks[-1]
        q, k, v = _queries_of_some(block, residual, kept)
        given = {"resid_pre": residual, "z": _after_inner_norm(block, block.attn.attend(q, k, v, None))}
        residual = _rest_of_block(block, "z", given, kept)
    elif residual.shape[1] != (kept.stop or residual.shape[1]):
        residual = residual[:, kept]
    return model._head_logits(residual, None)


def _queries_of_some(block: Block, residual: Tensor, kept: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the kept tokens, keys and values of all."""
    attn = block.attn
    normed = residual if block.post_norm else block.ln1(residual)
    weight, bias, width = attn.qkv.weight, attn.qkv.bias, attn.n_heads * attn.d_head
    q = F.linear(normed[:, kept], weight[:width], None if bias is None else bias[:width])
    kv = F.linear(normed, weight[width:], None if bias is None else bias[width:])
    heads = (attn.n_heads, attn.d_head)
    k, v = kv.unflatten(-1, (2, *heads)).unbind(2)
    return q.unflatten(-1, heads), k, v


def _rest_of_block(block: Block, stream: str, given: Mapping[str, Tensor], kept: slice) -> Tensor:
    """The stream behind a block at the kept tokens; values of tokens may come narrowed to these already."""
    if stream in ("q", "k", "v"):
        n_rows = len(given[stream])
        q, k, v = (given[name].expand(n_rows, -1, -1, -1) for name in "qkv")
        z = _after_inner_norm(block, block.attn.attend(q[:, kept], k, v, None))
    elif stream == "pattern":
        mixed = given["pattern"][:, :, kept] @ given["v"].transpose(1, 2)
        z = _after_inner_norm(block, rearrange(mixed, "batch head token d_head -> batch token head d_head"))
    else:
        z = given.get("z")
    if "resid_pre" in given:
        attn_out = given["attn_out"][:, kept] if z is None else block._attn_out(_narrowed(z, kept))
        middle = given["resid_pre"][:, kept] + attn_out
    else:
        middle = given["resid_mid"][:, kept]
    if stream == "mlp_out":
        return middle + given["mlp_out"][:, kept]
    if stream == "post":
        out = block.mlp.out(given["post"][:, kept])
        if block.post_norm:
            return middle + block.ln2(out)
        return middle + (out if block.ls2 is None else out * block.ls2)
    return middle + block._mlp_out(middle)


def _after_inner_norm(block: Block, mixed: Tensor) -> Tensor:
    """From the heads' mix of values to `z`."""
    norm = block.attn.ln
    return mixed if norm is None else norm(mixed.flatten(-2)).unflatten(-1, mixed.shape[-2:])


def _narrowed(z: Tensor, kept: slice) -> Tensor:
    return z if kept.stop is not None and z.shape[1] == kept.stop else z[:, kept]

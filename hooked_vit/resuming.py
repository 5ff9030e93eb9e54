"""Resume a run in the middle of a block from a given activation, and compute only what the head then reads."""

from collections.abc import Mapping
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor

from hooked_vit.absent_points import refuse_absent
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
"""The activations of a block from which a run can resume, and for each the other activations that are needed."""

_PARALLEL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        stream: (*needed, "mlp_out") if needed else needed
        for stream, needed in RESUMABLE.items()
        if stream not in ("resid_mid", "post", "mlp_out")
    }
    | {"post": ("resid_pre", "attn_out"), "mlp_out": ("resid_pre", "attn_out")}
)


_SEVERAL = MappingProxyType(
    {stream: RESUMABLE[stream] for stream in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")}
)


def resumable(cfg: HookedViTConfig) -> Mapping[str, tuple[str, ...]]:
    """`RESUMABLE` for a kind of model: parallel blocks have no `resid_mid`, and their sub-layers do not feed each
    other. A block of several attentions and MLPs has no one `z` or `post`.

    >>> cfg = HookedViTConfig(2, 12, 3, 20, 7, (16, 24), (8, 8), parallel_attn_mlp=True)
    >>> resumable(cfg)["z"], "resid_mid" in resumable(cfg)
    (('resid_pre', 'mlp_out'), False)
    """
    if cfg.n_parallel > 1:
        return _SEVERAL
    return _PARALLEL if cfg.parallel_attn_mlp else RESUMABLE


def resume(
    model: HookedViT,
    stream: str,
    layer: int,
    value: Float[Tensor, "batch *axes"],
    context: Mapping[str, Tensor] | None = None,
    *,
    image_size: tuple[int, int] | None = None,
) -> Float[Tensor, "batch n_classes"]:
    """The logits of a run in which one activation, and everything before it, is given.

    Equal to a whole run in which a hook replaces the activation. Nothing before it is computed; if the head reads CLS
    alone, the last block computes only keys and values for the other tokens.

    Args:
        model: A model without hooks: the rest of the block is computed past the hook points.
        stream: One of `resumable(model.cfg)`, by TransformerLens's short names (`"post"` are the neurons).
        layer: The block.
        value: The activation, in the shape of its hook point.
        context: The activations that `resumable(model.cfg)` lists for it, by those names. A batch axis of length one is
            broadcast.
        image_size: Height and width of the images of the run; the model's own by default. Only models with rotary
            positions need it, and only at other sizes.

    Raises:
        ValueError: If a run cannot resume there, or the model has hooks.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> images = torch.zeros(1, 3, 64, 64)
    >>> logits, cache = model.run_with_cache(images, names_filter=["z", "resid_pre"])
    >>> found = resume(model, "z", 5, cache["z", 5], {"resid_pre": cache["resid_pre", 5]})
    >>> torch.allclose(found, logits, atol=1e-5)
    True
    """
    check_unhooked(model)
    given = _given(model.cfg, stream, value, context)
    if stream == "resid_post":
        return _finish(model, value, layer + 1, image_size)
    if stream == "resid_pre":
        return _finish(model, value, layer, image_size)
    computed = _computed_tokens(model.cfg) if layer == model.cfg.n_layers - 1 else slice(None)
    terms = model.attention_terms(image_size).at(layer)
    return _finish(model, model.blocks[layer].resume(stream, given, computed, terms), layer + 1, image_size)


def resume_stream(
    model: HookedViT,
    stream: str,
    layer: int,
    value: Float[Tensor, "batch *axes"],
    context: Mapping[str, Tensor] | None = None,
    *,
    image_size: tuple[int, int] | None = None,
) -> Float[Tensor, "batch token d_model"]:
    """As `resume`, but up to the last residual stream, with all of its tokens."""
    check_unhooked(model)
    given = _given(model.cfg, stream, value, context)
    if stream not in ("resid_pre", "resid_post"):
        value = model.blocks[layer].resume(stream, given, terms=model.attention_terms(image_size).at(layer))
    next_layer = layer if stream == "resid_pre" else layer + 1
    return model(value, start_at_layer=next_layer, stop_at_layer=model.cfg.n_layers, image_size=image_size)


def check_unhooked(model: HookedViT) -> None:
    """Raise ValueError if the model has a hook."""
    watched = next((point for point in model.hook_points() if is_watched(point)), None)
    if watched is not None:
        raise ValueError(
            f"the model has a hook on '{watched.name}', which a run that resumes in the middle would not follow: "
            "remove it with `model.reset_hooks()`, or leave the `with model.hooks(...)` block"
        )


def _given(cfg: HookedViTConfig, stream: str, value: Tensor, context: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    known = resumable(cfg)
    if stream not in known:
        refuse_absent([f"hook_{stream}"], cfg)
        raise ValueError(f"expected one of {', '.join(map(repr, known))}, got {stream!r}")
    available = {**(context or {}), stream: value}
    missing = [name for name in known[stream] if name not in available]
    if missing:
        raise ValueError(f"to resume at '{stream}', pass {', '.join(known[stream])} too; missing: {missing[0]}")
    return {name: available[name] for name in (stream, *known[stream])}


def _computed_tokens(cfg: HookedViTConfig) -> slice:
    """The tokens to compute in the last block: those of the head if they are a fixed few, all where the head pools."""
    read = cfg.read_tokens
    return slice(None) if read.stop is None else read


def _finish(model: HookedViT, residual: Tensor, layer: int, image_size: tuple[int, int] | None) -> Tensor:
    """Logits of the stream that enters a layer."""
    computed, n_layers = _computed_tokens(model.cfg), model.cfg.n_layers
    if layer < n_layers:
        if computed == slice(None):
            return model(residual, start_at_layer=layer, image_size=image_size)
        if layer < n_layers - 1:
            last = n_layers - 1
            residual = model(residual, start_at_layer=layer, stop_at_layer=last, image_size=image_size)
        terms = model.attention_terms(image_size).at(n_layers - 1)
        residual = model.blocks[-1].resume("resid_pre", {"resid_pre": residual}, computed, terms)
    return model.head_logits(residual[:, computed])

"""The axes of every hook point of every kind of model, compared with the activation itself."""

import torch
from conftest import ported
from torch import Tensor

from hooked_vit.hook_axes import hook_axes


def test_every_activation_has_the_named_axes(kind: str, images: Tensor) -> None:
    model = ported(kind)
    cfg = model.cfg
    with torch.no_grad():
        _, cache = model.run_with_cache(images, names_filter=lambda name: True)
    layout = cfg.token_layout
    sizes = {
        "batch": {2}, "token": {layout.n_tokens}, "patch": {layout.n_patches}, "query": {layout.n_tokens},
        "key": {layout.n_tokens}, "head": {cfg.n_heads}, "key_value_head": {cfg.n_key_value_heads},
        "d_head": {cfg.d_head, cfg.d_model // max(cfg.pool_n_heads, 1)},
        "d_model": {cfg.d_model}, "neuron": {cfg.d_mlp}, "n_classes": {cfg.n_classes}, "1": {1},
        "d_head_all": {cfg.n_heads * cfg.d_head}, "pool_head": {cfg.pool_n_heads},
        "pooled": {layout.n_tokens if cfg.pool_includes_prefix else layout.n_patches},
        "pool_neuron": {cfg.pool_d_mlp, cfg.d_model},
    }  # fmt: skip
    assert len(cache) > 60
    for name, activation in cache.items():
        axes = hook_axes(name, cfg)
        assert len(axes) == activation.ndim, name
        assert all(size in sizes[axis] for axis, size in zip(axes, activation.shape, strict=True)), (name, axes)


def test_axes_of_spliced_dictionaries() -> None:
    cfg = ported("cls").cfg
    point = "blocks.1.attn.hook_z.dictionary"
    assert hook_axes(f"{point}.hook_latents", cfg) == ("batch", "token", "latent")
    assert hook_axes(f"{point}.hook_error", cfg) == ("batch", "token", "head", "d_head")
    assert hook_axes("hook_pooled.dictionary.hook_latents", cfg) == ("batch", "latent")

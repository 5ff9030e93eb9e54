"""Reading patch embeddings, heads and pools of timm modules, which the families share."""

from typing import Any

from timm import layers
from torch import nn

from hooked_vit.config import Pool
from hooked_vit.porting.parts import read_activation, read_mlp, read_norm, refuse, tiles


def read_patch_embedding(embed: Any) -> dict[str, Any]:
    """The config fields of a convolutional patch embedding.

    Raises:
        ValueError: If it is of another kind.
    """
    if type(embed) is not layers.PatchEmbed:
        refuse(f"a patch embedding by {type(embed).__name__}")
    refuse_other_projections(embed)
    conv = embed.proj
    return {
        "image_size": layers.to_2tuple(embed.img_size),
        "patch_size": layers.to_2tuple(embed.patch_size),
        "n_channels": conv.in_channels,
        "pad_to_patches": embed.dynamic_img_pad,
        "patch_bias": conv.bias is not None,
        "patch_norm": read_norm(embed.norm, "the norm of the patch embedding"),
    }


def refuse_other_projections(embed: Any) -> None:
    """Raise ValueError unless a patch embedding has an image size and patches that tile the image."""
    conv = embed.proj
    if isinstance(conv, nn.Conv2d) and not tiles(conv):
        refuse("a patch embedding whose patches overlap, are padded, grouped or dilated")
    if embed.img_size is None:
        refuse("a patch embedding without an image size (img_size=None)")


def read_head(module: Any, has_cls: bool | None = None) -> dict[str, Any]:
    """The config fields of the final norm, the pooling and the head of a module with one head.

    `has_cls` is read off `module.cls_token` unless it is given.

    Raises:
        ValueError: If one of them is not covered.
    """
    before, after = read_norm(module.norm, "norm"), read_norm(module.fc_norm, "fc_norm")
    if after is not None and before is not None:
        refuse("fc_norm together with another final norm")
    refuse_other_heads(module.head)
    pools: dict[str, Pool] = {"token": "cls", "avg": "avg", "max": "max", "avgmax": "avgmax"}
    fields: dict[str, Any] = {}
    if getattr(module, "attn_pool", None) is not None:
        pool, fields = "attention", read_attention_pool(module.attn_pool)
    elif module.global_pool in pools:
        pool = pools[module.global_pool]
    else:
        refuse(f"global_pool={module.global_pool!r}, features that are not pooled; create it with global_pool='avg'")
    if pool == "cls" and not (module.cls_token is not None if has_cls is None else has_cls):
        refuse("token pooling without a CLS token")
    return {
        **read_linear_head(module.head),
        "final_norm": after if before is None else before,
        "norm_after_pool": after is not None,
        "pool": pool,
        **fields,
    }


def refuse_other_heads(*heads: nn.Module) -> None:
    """Raise ValueError unless heads are linear layers, or nothing."""
    for head in heads:
        if not isinstance(head, nn.Linear | nn.Identity):
            refuse(
                f"a {type(head).__name__} as the head (replace it by torch.nn.Identity(), port, and use "
                "`with_class_embeddings` for a linear readout)"
            )


def read_linear_head(head: nn.Module) -> dict[str, Any]:
    """The config fields of a head that is a linear layer, or nothing."""
    return {
        "n_classes": head.out_features if isinstance(head, nn.Linear) else 0,
        "head_bias": not isinstance(head, nn.Linear) or head.bias is not None,
    }


def read_attention_pool(pool: Any) -> dict[str, Any]:
    """The config fields of pooling by attention.

    Raises:
        ValueError: If it is of another kind.
    """
    if type(pool) is not layers.AttentionPoolLatent:
        refuse(f"pooling by {type(pool).__name__}")
    if pool.latent_len != 1 or pool.pos_embed is not None or not isinstance(pool.q, nn.Linear) or pool.mlp is None:
        refuse("an attention pool with several queries, positions, a query without projection, or no MLP")
    if pool.pool != "token" or pool.latent_dim != pool.kv.in_features or pool.out_features != pool.kv.in_features:
        refuse("an attention pool of another width than the model's, or that averages")
    mlp = read_mlp(pool.mlp, "the attention pool")
    if mlp["mlp_kind"] != "plain" or mlp["mlp_inner_norm"] is not None or mlp["mlp_bias"] != (True, True):
        refuse("a gated or normed MLP, or one without bias, in the attention pool")
    return {
        "pool_n_heads": pool.num_heads,
        "pool_d_mlp": mlp["d_mlp"],
        "pool_act_fn": read_activation(pool.mlp.act, "the attention pool"),
        "pool_qkv_bias": pool.kv.bias is not None,
        "pool_norm": read_norm(pool.norm, "the norm of the attention pool"),
        "pool_qk_norm": read_norm(pool.q_norm, "q_norm of the attention pool"),
    }

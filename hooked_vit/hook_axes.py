"""The names of an activation's axes (tokens, heads, neurons, queries, keys), by the name of its hook point."""

from hooked_vit.config import HookedViTConfig

_PER_HEAD = ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_z", "hook_z_pre", "hook_gate",
             "hook_result", "hook_q_input", "hook_k_input", "hook_v_input", "hook_v_pre")  # fmt: skip
_OF_KEYS_AND_VALUES = ("hook_v_pre", "hook_k", "hook_v", "hook_rot_k", "hook_k_input", "hook_v_input")
_WIDTHS = {"hook_result": "d_model", "hook_q_input": "d_model", "hook_k_input": "d_model", "hook_v_input": "d_model"}


def hook_axes(name: str, cfg: HookedViTConfig) -> tuple[str, ...]:
    """The axes of a hook point's activation, by its full name.

    An axis of length one is called `"1"`. Where several query heads share their keys and values, the axis of the fewer
    heads is `key_value_head`. The attention pool has heads, neurons and tokens of its own: `pool_head`,
    `pool_neuron` and `pooled`. `cls_and_mean` is CLS, then the mean of the patches, each of width `d_model`.
    Where a dictionary is spliced in, the axis of its latents is `latent`, and its error has the axes of its point.

    >>> cfg = HookedViTConfig(2, 12, 3, 20, 7, (16, 24), (8, 8))
    >>> hook_axes("blocks.0.attn.hook_z", cfg), hook_axes("blocks.1.mlp.hook_post", cfg)
    (('batch', 'token', 'head', 'd_head'), ('batch', 'token', 'neuron'))
    >>> hook_axes("blocks.0.attn.hook_pattern", cfg), hook_axes("blocks.0.ln1.hook_scale", cfg)
    (('batch', 'head', 'query', 'key'), ('batch', 'token', '1'))
    """
    *path, last = name.split(".")
    if path[-1:] == ["dictionary"]:
        axes = hook_axes(".".join(path[:-1]), cfg)
        return axes if last == "hook_error" else (*vector_axes(axes)[0], "latent")
    pool = "pool_" if path[:1] == ["attn_pool"] else ""
    if name in ("hook_pooled", "hook_pooled_dist"):
        return ("batch", "d_model" if cfg.n_read == 1 else "cls_and_mean")
    if name == "hook_stem":
        return ("batch", "channel", "height", "width")
    if name.startswith("hook_logits"):
        return ("batch", "n_classes")
    if last == "hook_lambda":
        return ("batch",)
    if last.startswith(("hook_attn_scores", "hook_pattern")):
        return ("batch", "pool_head", "1", "pooled") if pool else ("batch", "head", "query", "key")
    tokens = "patch" if name == "hook_patch_embed" or path[:1] == ["embed"] else "token"
    if pool:
        tokens = "pooled" if last in ("hook_k", "hook_v") or path[-1] == "k_norm" else "1"
    elif path[:1] == ["ln_pooled"] or (path[:1] == ["ln_final"] and cfg.norm_after_pool):
        tokens = "1"
    heads = f"{pool}head"
    if path[:1] == ["blocks"] and (last in _OF_KEYS_AND_VALUES or path[-1] in ("k_norm", "v_norm")):
        heads = "head" if cfg.n_key_value_heads_at(int(path[1])) == cfg.n_heads else "key_value_head"
    if path[-1:] == ["head_ln"]:
        return ("batch", tokens, "head", "1" if last == "hook_scale" else "d_head")
    if path[-1:] in (["q_norm"], ["k_norm"]):
        heads = "half_head" if cfg.differential is not None and not pool else heads
        return ("batch", heads, tokens, "1" if last == "hook_scale" else "d_head")
    if path[-1:] == ["v_norm"]:
        return ("batch", tokens, heads, "1" if last == "hook_scale" else "d_head")
    if last in _PER_HEAD:
        return ("batch", tokens, heads, _WIDTHS.get(last, "d_head"))
    if last == "hook_scale":
        return ("batch", tokens, "1")
    if ("mlp" in path or "mlps" in path) and path[-1] != "ln_in" and last != "hook_out":
        return ("batch", tokens, f"{pool}neuron")
    return ("batch", tokens, "d_head_all" if path[-1:] == ["ln"] else "d_model")


def vector_axes(axes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The axes of an activation that count vectors (images, tokens), and those that make up a vector.

    >>> vector_axes(("batch", "token", "head", "d_head")), vector_axes(("batch", "d_model"))
    ((('batch', 'token'), ('head', 'd_head')), (('batch',), ('d_model',)))
    """
    n_leading = 2 if axes[1:2] in (("token",), ("patch",)) else 1
    return axes[:n_leading], axes[n_leading:]

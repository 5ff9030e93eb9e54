"""Hook points that some kinds of model do not have, and what to use instead."""

from collections.abc import Iterable, Mapping

from hooked_vit.components.several_block import several_sublayers
from hooked_vit.config import HookedViTConfig

_OF_ONE_SUBLAYER = (
    "attn", "mlp", "ln1", "ln2", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in", "hook_q", "hook_k",
    "hook_v", "hook_attn_scores", "hook_pattern", "hook_z", "hook_result", "hook_pre", "hook_post",
)  # fmt: skip
_PARALLEL = "attention and MLP of a block both read its input, 'resid_pre'"


def absent_points(cfg: HookedViTConfig) -> Mapping[str, str]:
    """Parts of hook points' names that other models have and this one lacks, each with the reason.

    >>> cfg = HookedViTConfig(2, 12, 3, 20, 7, (16, 24), (8, 8), parallel_attn_mlp=True)
    >>> sorted(absent_points(cfg))
    ['hook_resid_mid', 'ln2']
    """
    absent: dict[str, str] = {}
    if cfg.parallel_attn_mlp:
        absent["hook_resid_mid"] = f"{_PARALLEL}, so there is no stream between them"
        absent["ln2"] = f"{_PARALLEL}, through one norm, 'ln1'"
    if cfg.differential is not None:
        absent["hook_attn_scores"] = (
            "a differential head has two patterns, whose scores are 'hook_attn_scores_1' and 'hook_attn_scores_2'"
        )
    if cfg.n_parallel > 1:
        absent |= dict.fromkeys(_OF_ONE_SUBLAYER, several_sublayers(cfg.n_parallel))
    return absent


def why_absent(name: str, cfg: HookedViTConfig) -> str | None:
    """Why this model has no hook point of that full name; `None` if it has one, or no model has.

    >>> cfg = HookedViTConfig(2, 12, 3, 20, 7, (16, 24), (8, 8), parallel_attn_mlp=True)
    >>> why_absent("blocks.0.hook_resid_mid", cfg)[:47]
    "this model has no 'hook_resid_mid': attention a"
    """
    parts = name.split(".")
    if parts[-2:-1] == ["dictionary"]:
        point = ".".join(parts[:-2])
        where = f"within `with model.spliced({{'{point}': dictionary}})`"
        return f"'{name}' exists only {where}, and hook_error only with error='keep'"
    if parts[0] == "attn_pool" or "attns" in parts or "mlps" in parts:
        return None  # the pool is of one kind, and one of several sub-layers has the usual points
    absent = absent_points(cfg)
    return next((f"this model has no '{part}': {absent[part]}" for part in parts if part in absent), None)


def refuse_absent(names: Iterable[str], cfg: HookedViTConfig) -> None:
    """Raise ValueError if one of the full names belongs to a hook point that this kind of model does not have."""
    for name in names:
        reason = why_absent(name, cfg)
        if reason is not None:
            raise ValueError(reason)

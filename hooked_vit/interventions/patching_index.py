"""The index that TransformerLens's patching sweeps over positions need: one row per patch."""

from collections.abc import Sequence
from functools import partial
from itertools import product

import pandas as pd

from hooked_vit.model import HookedViT


def patching_index(
    model: HookedViT, axes: Sequence[str] | partial, image_size: tuple[int, int] | None = None
) -> pd.DataFrame:
    """The `index_df` of a sweep of `transformer_lens.patching` over all positions: every token of every layer.

    Without it these sweeps take the last axis of their input for the tokens. For images that is the width: they leave
    out the last patches without a warning where there are more tokens than columns of pixels, and end in an IndexError
    where there are fewer. `analyses.patching.activation_patching` computes the same numbers faster.

    Args:
        model: The model.
        axes: The sweep, such as `patching.get_act_patch_resid_pre`, or its axes: `layer` first, then any of `pos`,
            `src_pos`, `dest_pos` (tokens), `head` and `head_index`, in the order of the sweep's patch setter.
        image_size: Height and width of the images, for models of any image size; the model's own by default.

    Returns:
        One row per patch. Pass it as `index_df`, with `index_axis_names=None`; the sweep then returns one number per
        row, and `.reshape(*index.nunique())` gives the axes back.

    Raises:
        ValueError: If an axis is unknown, or the first is not the layer.

    >>> from transformer_lens import patching
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> index = patching_index(model, patching.get_act_patch_resid_pre)
    >>> index.columns.tolist(), index.nunique().tolist()
    (['layer', 'pos'], [8, 65])
    """
    names = list(axes.keywords.get("index_axis_names") or ()) if isinstance(axes, partial) else list(axes)
    n_tokens = model.cfg.token_layout_at(*(image_size or model.cfg.image_size)).n_tokens
    sizes = {
        "layer": model.cfg.n_layers,
        "head": model.cfg.n_heads,
        "head_index": model.cfg.n_heads,
        **dict.fromkeys(("pos", "src_pos", "dest_pos"), n_tokens),
    }
    unknown = [name for name in names if name not in sizes]
    if unknown or names[:1] != ["layer"]:
        raise ValueError(f"expected axes out of {', '.join(sizes)}, the layer first, got {', '.join(names) or 'none'}")
    return pd.DataFrame(list(product(*(range(sizes[name]) for name in names))), columns=pd.Index(names))

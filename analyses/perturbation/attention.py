"""The paper's interventions on attention (section 4)."""

from collections.abc import Sequence

from hooked_vit import HookedViT
from hooked_vit.interventions import Intervention, block_attention

__all__ = ["no_cls", "self_only"]


def self_only(model: HookedViT, blocks: Sequence[int] | None = None) -> Intervention:
    """Each patch token attends only to itself; prefix tokens are unchanged (paper, section 4).

    Args:
        model: The model to intervene on.
        blocks: The blocks to intervene in, all by default.

    Returns:
        An intervention: a list of hooks, which adds up with others.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> with model.hooks(fwd_hooks=self_only(model)):
    ...     _, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64), names_filter=("pattern", 0))
    >>> patches = model.token_layout.patches
    >>> bool((cache["pattern", 0][0, 0, patches, patches] == torch.eye(64)).all())
    True
    """
    return block_attention(model, [("patch", "others")], blocks)


def no_cls(model: HookedViT, blocks: Sequence[int] | None = None) -> Intervention:
    """Patch tokens' attention to the CLS token is set to zero and not renormalised (paper, section 4).

    Raises:
        ValueError: If the model has no CLS token.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> model.run_with_hooks(torch.zeros(1, 3, 64, 64), fwd_hooks=no_cls(model, blocks=[6, 7])).shape
    torch.Size([1, 100])
    """
    return block_attention(model, [("patch", "cls")], blocks, renormalise=False)

"""The tuned lens that a command's options select."""

from pathlib import Path

from analyses.commands.errors import user_errors
from analyses.tuned_lens.files import read_tuned_lens
from analyses.tuned_lens.lens import TunedLens
from hooked_vit import HookedViT

__all__ = ["load_lens"]


def load_lens(path: Path | None, model: HookedViT, *, patches: bool = False) -> TunedLens | None:
    """Read a lens that was fitted to the model, or end the command with a line that says why it cannot be used.

    Args:
        path: The file; `None` for no lens.
        model: The model that it must have been fitted to.
        patches: Whether patches are projected, so that a lens for CLS alone is refused.

    >>> load_lens(None, HookedViT.from_pretrained("emoji-vit"))
    """
    if path is None:
        return None
    with user_errors(ValueError, FileNotFoundError):
        lens = read_tuned_lens(path, model)
        if patches:
            lens.check_tokens(model)
        return lens

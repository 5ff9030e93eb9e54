"""The tuned lens that a command's options select."""

from pathlib import Path

from analyses.commands.errors import user_errors
from analyses.tuned_lens.files import read_tuned_lens
from analyses.tuned_lens.lens import TunedLens
from hooked_vit import HookedViT

__all__ = ["load_lens"]


def load_lens(path: Path | None, model: HookedViT) -> TunedLens | None:
    """Read a lens that was fitted to the model, or end the command with a line that says why it cannot be used.

    >>> load_lens(None, HookedViT.from_pretrained("emoji-vit"))
    """
    if path is None:
        return None
    with user_errors(ValueError, FileNotFoundError):
        return read_tuned_lens(path, model)

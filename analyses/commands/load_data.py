"""The dataset that a command's options select."""

from collections.abc import Sequence

from analyses.commands.errors import USAGE, user_errors
from analyses.data.dataset import LabelledImages
from analyses.data.open import open_dataset

__all__ = ["load_data"]


def load_data(data: str, class_names: Sequence[str]) -> LabelledImages:
    """Open a dataset, or end the command with a line that says why it cannot be opened.

    Args:
        data: As for `open_dataset`.
        class_names: The model's.
    """
    with user_errors(ValueError, status=USAGE), user_errors(FileNotFoundError):
        return open_dataset(data, class_names)

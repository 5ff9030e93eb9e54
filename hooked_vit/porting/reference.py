"""The module that a port was made from, as something to compare with: its output for images, and its blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Reference:
    """What `verify` runs.

    Attributes:
        run: From images, or a dict of patches, to the logits, or to the features of a model without a head.
        blocks: The blocks in order; the first tensor that a block returns is the stream after it.
        source: Whose module it is, for messages.
        batch_first: Whether the blocks' streams are [batch token d_model], or [token batch d_model].
    """

    run: Callable[[Any], Tensor]
    blocks: Sequence[nn.Module]
    source: str
    batch_first: bool = True

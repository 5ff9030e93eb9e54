"""Former names of what is in `hooked_vit.interventions.selection`."""

from hooked_vit.interventions.selection import select_indices as chosen_mask
from hooked_vit.interventions.selection import select_tokens as token_choice

__all__ = ["chosen_mask", "token_choice"]

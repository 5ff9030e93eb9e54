"""A learnt bias of the attention scores for each distance between two patches, by timm's own modules."""

import torch
from jaxtyping import Float
from timm import layers
from torch import Tensor, nn

from hooked_vit.config import HookedViTConfig


def made_relative_bias(cfg: HookedViTConfig) -> nn.Module:
    """timm's module for the relative position bias of a model, on the CPU in float32.

    Raises:
        ValueError: If the model has no such bias.
    """
    relative = cfg.relative_bias
    if relative is None:
        raise ValueError("the model has no relative position bias: cfg.relative_bias is None")
    shared = {"window_size": cfg.position_grid, "num_heads": cfg.n_heads, "prefix_tokens": cfg.n_trained_prefix}
    # real buffers even where the model is made without storage; they are no weights, which would be loaded later
    with torch.device("cpu"), torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        if relative.kind == "table":
            return layers.RelPosBias(**shared)
        return layers.RelPosMlp(
            **shared,
            hidden_dim=relative.d_hidden,
            mode=relative.mode,
            pretrained_window_size=relative.pretrained_grid,
        )


class RelativeBias(nn.Module):
    """One number per head and distance: from a table, or from a small MLP of the distance."""

    def __init__(self, cfg: HookedViTConfig):
        super().__init__()
        self.rel_pos = made_relative_bias(cfg)
        self.n_trained_prefix, self.n_added = cfg.n_trained_prefix, cfg.n_added_registers

    def forward(self) -> Float[Tensor, "1 head token token"]:
        """The bias of every score, at the model's own image size. With a table, CLS has entries of its own.

        Added registers have none: zeros as queries and as keys.
        """
        bias: Tensor = self.rel_pos.get_bias()  # pyright: ignore[reportCallIssue]
        if not self.n_added:
            return bias
        is_trained = torch.ones(bias.shape[-1] + self.n_added, dtype=torch.bool, device=bias.device)
        is_trained[self.n_trained_prefix : self.n_trained_prefix + self.n_added] = False
        wider = bias.new_zeros(*bias.shape[:2], len(is_trained), len(is_trained))
        wider[..., is_trained[:, None] & is_trained] = bias.flatten(-2)
        return wider

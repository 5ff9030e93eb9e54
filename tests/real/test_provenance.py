"""What the weights show about where they come from: they cannot be compared with the published ones offline."""

from itertools import combinations
from pathlib import Path

import torch
import torch.nn.functional as F
from real_dinov2 import photographs, timm_weights
from real_models import pictures

from hooked_vit import HookedViT


def test_positions_are_those_of_dinov2s_recipe(source: Path) -> None:
    """Trained on 16 × 16 patches, interpolated to 37 × 37 for a short last phase: nearly an interpolation still."""
    weights = timm_weights(source)
    assert sum(weight.numel() for weight in weights.values()) == 22_056_576 - 384  # without the mask token
    grid = weights["pos_embed"][0, 1:].unflatten(0, (37, 37)).double()

    def unexplained(n: int) -> float:
        """The share of the positions that no n × n grid, interpolated to 37 × 37, can make."""
        corners = torch.eye(n, dtype=torch.double)[:, None, :, None]
        upwards = F.interpolate(corners, size=(37, 1), mode="bicubic", align_corners=False)[:, 0, :, 0].T
        explained = upwards @ torch.linalg.pinv(upwards)
        rest = grid - torch.einsum("ij,jkd,lk->ild", explained, grid, explained)
        return float(rest.norm() / (grid - grid.mean(dim=(0, 1))).norm())

    assert unexplained(16) < 0.25
    assert unexplained(14) > 1.5 * unexplained(16)  # a grid slightly coarser loses much more
    assert unexplained(20) > 0.8 * unexplained(16)  # a finer one gains little


@torch.no_grad()
def test_cls_has_been_trained_away_from_dinov2s_objective(model: HookedViT) -> None:
    """DINOv2's KoLeo loss spreads the CLS features of different pictures apart; those of six photographs are alike.

    The saliency decoder reads patches alone. So the backbone was probably trained on with it, and CLS drifted.
    """
    features = F.normalize(model(pictures(model, *photographs())), dim=1)
    cosines = [float(features[a] @ features[b]) for a, b in combinations(range(len(features)), 2)]
    assert 0.3 < sum(cosines) / len(cosines) < 0.7

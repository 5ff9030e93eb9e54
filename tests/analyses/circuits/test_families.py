"""Circuits on rotary positions, shared keys and values, gated attention and score biases."""

import pytest
import torch
from conftest import perturb
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from torch import Tensor

from analyses.circuits import Circuit, circuit_graph, edge_attribution, edge_patching
from hooked_vit import HookedViT

CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(4))
FAMILIES = {
    "rotary": {"rope_type": "axial", "reg_tokens": 2, "pos_embed": "none", "global_pool": "avg"},
    "shared_keys": {
        "rope_type": "mrope", "rope_mrope_section": (2, 1, 1), "num_heads": 4, "embed_dim": 32, "num_kv_heads": (4, 2),
        "qkv_fused": False, "qk_norm": True, "global_pool": "avg",
    },
    "gated": {"rope_type": "mixed", "attn_gated": True, "qkv_bias": False, "global_pool": "avg"},
}  # fmt: skip


def metric(logits: Tensor) -> Tensor:
    return (logits[:, 0] - logits[:, 4]).mean()


def made(name: str) -> HookedViT:
    """A small model of a family."""
    options = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2.5, **FAMILIES[name]}
    torch.manual_seed(0)
    module = NaFlexVit(NaFlexVitCfg(**options), num_classes=7, img_size=(32, 24))
    return HookedViT.from_timm(perturb(module))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("grouped", [False, True])
def test_runs_and_scores(name: str, grouped: bool) -> None:
    model = made(name)
    n_tokens = model.cfg.token_layout_at(32, 24).n_tokens
    groups = {"a": [0, 3], "b": [token for token in range(n_tokens) if token not in (0, 3)]} if grouped else None
    graph = circuit_graph(model, tuple(groups or ()))
    whole = Circuit.whole(graph)
    with torch.no_grad():
        expected = model(CLEAN), model(CORRUPT)
    assert torch.equal(whole.run(model, CLEAN, CORRUPT, groups), expected[0])
    assert torch.equal(whole.complement().run(model, CLEAN, CORRUPT, groups), expected[1])
    # near the clean run, attribution is exact: gates, rotations and shared keys are all in the gradient
    near = CLEAN + 1e-2 * (CORRUPT - CLEAN)
    found = edge_attribution(model, CLEAN, near, metric, groups=groups)
    some = list(graph.edges(graph.valid & (torch.rand(graph.valid.shape) < 40 / graph.n_edges)))
    exact = edge_patching(model, CLEAN, near, metric, some, groups=groups)
    estimated = torch.stack([found.at(edge) for edge in some])
    measured = torch.stack([exact.at(edge) for edge in some])
    torch.testing.assert_close(estimated, measured, rtol=0.1, atol=float(measured.abs().max()) * 0.03)

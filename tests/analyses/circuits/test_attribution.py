"""Edge attribution against its definition, edge by edge; integrals that converge; maps; chunks of images."""

import pytest
import torch
from circuits_by_hand import eap_by_hand, writes_of
from conftest import ported
from torch import Tensor

from analyses.circuits import circuit_graph, edge_attribution, edge_maps, mean_recording, record
from analyses.circuits.groups import group_members
from analyses.patching import logit_difference

CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(4))


def metric(logits: Tensor) -> Tensor:
    return (logits[:, 0] - logits[:, 4]).mean()


def test_eap_is_a_product_per_edge(kind: str) -> None:
    model = ported(kind)
    found = edge_attribution(model, CLEAN, CORRUPT, metric)
    expected = eap_by_hand(model, circuit_graph(model), CLEAN, CORRUPT, metric)
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.clean, metric(model(CLEAN)))
    torch.testing.assert_close(found.corrupt, metric(model(CORRUPT)))
    assert not model.list_hooks()


@pytest.mark.parametrize("rule", ["right", "left", "midpoint"])
@pytest.mark.parametrize("name", ["cls", "swiglu_rms"])
def test_eap_ig_is_a_mean_over_runs_between_the_embeddings(name: str, rule: str) -> None:
    model = ported(name)
    here, there = (writes_of(model, images)["embed",] for images in (CLEAN, CORRUPT))
    shift = {"right": 1, "left": 0, "midpoint": 0.5}[rule]
    points = [there + (step + shift) / 3 * (here - there) for step in range(3)]
    found = edge_attribution(model, CLEAN, CORRUPT, metric, "eap-ig", steps=3, rule=rule)
    expected = eap_by_hand(model, circuit_graph(model), CLEAN, CORRUPT, metric, points)
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-6)
    assert found.per_step is not None
    assert len(found.per_step) == 3
    torch.testing.assert_close(found.per_step[-1], expected[0].sum())


def test_integrated_steps_converge_and_say_by_how_much() -> None:
    model = ported("cls")
    gaps = []
    for steps in (1, 2, 16):
        found = edge_attribution(model, CLEAN, CORRUPT, metric, "eap-ig", steps=steps, rule="midpoint")
        gaps.append(float((found.completeness - 1).abs()))
    assert gaps[2] < 2e-3 < gaps[0]
    assert gaps[2] < gaps[1]


def test_eap_gp_steps_down_the_distance_to_the_corrupt_logits() -> None:
    """The path, written out: steps of length 1 down the squared distance between the logits, image by image."""
    model = ported("cls")
    points, point = [], writes_of(model, CLEAN)["embed",]
    for _ in range(4):
        moved = []
        for image in range(2):
            tokens = point[image : image + 1].clone().requires_grad_()
            distance = (model(tokens, start_at_layer=0) - model(CORRUPT[image : image + 1])).square().sum()
            gradient = torch.autograd.grad(distance, tokens)[0][0]
            moved.append(point[image] - gradient / gradient.norm())
        point = torch.stack(moved)
        points.append(point)
    found = edge_attribution(model, CLEAN, CORRUPT, metric, "eap-gp", steps=4)
    expected = eap_by_hand(model, circuit_graph(model), CLEAN, CORRUPT, metric, points)
    torch.testing.assert_close(found.values, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["cls", "post_norm", "inner_norms", "qk_norm"])
def test_groups_divide_the_scores(name: str) -> None:
    """Summed over groups, scores are those of all tokens; the queries' groups by a gradient with the others masked."""
    model = ported(name)
    tokens = range(model.cfg.n_ctx)
    groups = {"a": [0, 3], "b": [token for token in tokens if token not in (0, 3)]}
    whole = edge_attribution(model, CLEAN, CORRUPT, metric)
    found = edge_attribution(model, CLEAN, CORRUPT, metric, groups=groups)
    graph, total = found.graph, torch.zeros_like(whole.values)
    for j, reader in enumerate(graph.readers):
        alone = reader[: {"q": 3, "k": 3, "v": 3, "mlp": 2, "logits": 1}[reader[0]]]
        total[:, whole.graph.readers.index(alone)] += found.values[:, j]
    torch.testing.assert_close(total, whole.values, rtol=1e-4, atol=1e-6)
    # one edge by hand: the embedding at b through the values of head 1.2 to the queries in a
    members = group_members(groups, model.token_layout, model.cfg.n_ctx, 1)[0]
    here, there = (writes_of(model, images)["embed",] for images in (CLEAN, CORRUPT))
    point = "blocks.1.attn.hook_z_pre" if name == "inner_norms" else "blocks.1.attn.hook_z"

    def only_a(activation: Tensor, hook: object) -> Tensor:
        return torch.where(members[0][:, None, None], activation, activation.detach())

    _, _, gradients = model.run_with_gradients(CLEAN, metric, "blocks.1.hook_v_input", fwd_hooks=[(point, only_a)])
    gradient = gradients["blocks.1.hook_v_input"][:, :, 2]
    expected = ((there - here) * gradient * members[1][:, None]).sum()
    torch.testing.assert_close(found.at((("embed", "b"), ("v", 1, 2, "b", "a"))), expected, rtol=1e-4, atol=1e-6)


def test_one_score_per_image_and_little_memory() -> None:
    model, measure = ported("gap_registers_layerscale"), logit_difference(torch.tensor([0, 3]), against=4)
    each = logit_difference(torch.tensor([0, 3]), against=4, per_image=True)
    whole = edge_attribution(model, CLEAN, CORRUPT, measure, "eap-ig", steps=2)
    for memory_limit in (None, 1.5e5):
        found = edge_attribution(
            model, CLEAN, CORRUPT, each, "eap-ig", steps=2, per_image=True, memory_limit=memory_limit
        )
        assert found.values.shape[0] == 2
        assert found.per_step is not None
        assert found.per_step.shape == (2, 2)
        torch.testing.assert_close(found.mean, whole.values, rtol=1e-4, atol=1e-6)
    chunked = edge_attribution(model, CLEAN, CORRUPT, measure, "eap-ig", steps=2, memory_limit=1.5e5)
    torch.testing.assert_close(chunked.values, whole.values, rtol=1e-4, atol=1e-6)
    assert chunked.clean.shape == ()
    with pytest.raises(ValueError, match=r"do not fit into memory at once, .* per_image=True"):
        edge_attribution(model, CLEAN, CORRUPT, metric, memory_limit=1.5e5)


@pytest.mark.parametrize("method", ["eap", "eap-ig"])
def test_maps_sum_to_scores(method: str) -> None:
    model = ported("post_norm")
    scores = edge_attribution(model, CLEAN, CORRUPT, metric, method, steps=2)
    maps = edge_maps(model, CLEAN, CORRUPT, metric, scores.graph.valid, method, steps=2)
    torch.testing.assert_close(maps.sum(dim=(1, 2)), scores.of_edges(), rtol=1e-4, atol=1e-6)


def test_the_mean_as_corrupt_value() -> None:
    model = ported("cls")
    mean = mean_recording(model, [CORRUPT])
    found = edge_attribution(model, CLEAN, mean, metric)
    same = edge_attribution(model, CLEAN, record(model, CORRUPT), metric)
    # the mean of the differences, for readers that see each token alone: products with one gradient per image
    one = mean_recording(model, [CORRUPT[:1]])
    torch.testing.assert_close(
        edge_attribution(model, CLEAN[:1], one, metric).values,
        edge_attribution(model, CLEAN[:1], CORRUPT[:1], metric).values, rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    assert found.values.abs().max() > 0
    assert not torch.allclose(found.values, same.values)


def test_the_table_has_the_largest_first() -> None:
    scores = edge_attribution(ported("cls"), CLEAN, CORRUPT, metric)
    table = scores.table(5)
    assert len(scores.table()) == scores.graph.n_edges == 172
    assert table["score"].abs().is_monotonic_decreasing
    row = table.iloc[0]
    assert scores.values.abs().max() == pytest.approx(abs(row["score"]))


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    model = ported("cls")
    with pytest.raises(ValueError, match="of the same size, got clean"):
        edge_attribution(model, CLEAN, CORRUPT[:1], metric)
    with pytest.raises(ValueError, match="metric returned a constant"):
        edge_attribution(model, CLEAN, CORRUPT, lambda logits: torch.tensor(1.0))
    with pytest.raises(ValueError, match="a method out of 'eap', 'eap-ig', 'eap-gp', got 'ig'"):
        edge_attribution(model, CLEAN, CORRUPT, metric, "ig")
    with pytest.raises(ValueError, match="expected steps of at least 1"):
        edge_attribution(model, CLEAN, CORRUPT, metric, "eap-ig", steps=0)
    with pytest.raises(ValueError, match="metric must return one number"):
        edge_attribution(model, CLEAN, CORRUPT, lambda logits: logits[:, 0])
    with pytest.raises(ValueError, match=r"memory_limit=5 bytes, but a graph of 172 edges needs"):
        edge_attribution(model, CLEAN, CORRUPT, metric, memory_limit=5)

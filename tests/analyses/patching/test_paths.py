"""Path patching against frozen runs written out, and against total effects, the sum of all paths."""

import pytest
import torch
from conftest import make_timm, ported
from torch import Tensor

from analyses.patching.activation import activation_patching
from analyses.patching.paths import all_receivers, all_senders, path_patching
from hooked_vit import HookedViT
from hooked_vit.interventions import replace_from

CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(4))


def metric(logits: Tensor) -> Tensor:
    return (logits[:, 0] - logits[:, 4]).mean()


@torch.no_grad()
def slow(model: HookedViT, sender: tuple, receiver: tuple) -> Tensor:
    """By definition: patch the sender with all else frozen, record what the receiver computes, and patch that in."""
    n_layers = model.cfg.n_layers
    _, base = model.run_with_cache(CORRUPT)
    _, source = model.run_with_cache(CLEAN)
    kind, layer, *head = sender
    if kind == "head":
        patch = replace_from(model, ("z", layer), source, heads=head)
    else:
        patch = replace_from(model, (f"{kind}_out", layer), source)
    frozen = [("mlp_out", at) for at in range(layer + (kind == "mlp"), n_layers)]
    frozen += [("attn_out", at) for at in range(layer + 1, n_layers)]
    hooks = patch + (replace_from(model, frozen, base) if frozen else [])

    if receiver == ("logits",):
        return metric(model.run_with_hooks(CORRUPT, fwd_hooks=hooks))
    receiver_kind, at, *receiver_head = receiver
    recorded: dict[str, Tensor] = {}

    def store(activation: Tensor, hook: object) -> None:
        recorded[hook.name] = activation.clone()

    # what the receiver computes is recorded before anything is frozen there
    read = model.hook_names([("mlp_out", at)] if receiver_kind == "mlp" else [(name, at) for name in "qkv"])
    with model.hooks(fwd_hooks=[(name, store) for name in read]):
        model.run_with_hooks(CORRUPT, fwd_hooks=hooks)
    points = {"head": "qkv"}.get(receiver_kind, receiver_kind)
    if receiver_kind == "mlp":
        put = replace_from(model, ("mlp_out", at), recorded)
    else:
        put = replace_from(model, [(name, at) for name in points], recorded, heads=receiver_head)
    return metric(model.run_with_hooks(CORRUPT, fwd_hooks=put))


PATHS = [
    (("head", 0, 1), ("logits",)), (("mlp", 0), ("logits",)), (("attn", 2), ("logits",)), (("mlp", 2), ("logits",)),
    (("head", 0, 1), ("q", 2, 0)), (("head", 0, 2), ("k", 1, 1)), (("mlp", 0), ("v", 2, 2)),
    (("head", 1, 0), ("mlp", 1)), (("attn", 0), ("mlp", 2)), (("mlp", 1), ("head", 2, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("sender", "receiver"), PATHS, ids=str)
def test_one_path_matches_its_definition(kind: str, sender: tuple, receiver: tuple) -> None:
    model = ported(kind)
    if model.cfg.parallel_attn_mlp and (sender, receiver) == (("head", 1, 0), ("mlp", 1)):
        with pytest.raises(ValueError, match=r"no receiver comes after the sender \('head', 1, 0\)"):
            path_patching(model, CLEAN, CORRUPT, metric, [receiver], [sender])
        return
    if kind == "rotary" and receiver[0] in ("v", "head"):
        receiver = (*receiver[:2], 1) if receiver[0] == "v" else ("q", *receiver[1:])
    found = path_patching(model, CLEAN, CORRUPT, metric, [receiver], [sender])
    torch.testing.assert_close(found.values[0], slow(model, sender, receiver), rtol=1e-5, atol=1e-5)


def test_heads_that_share_keys_are_received_together() -> None:
    model = ported("rotary")
    group = [("head", 2, head) for head in (3, 4, 5)]
    found = path_patching(model, CLEAN, CORRUPT, metric, group, [("mlp", 1)]).values[0]
    parts = [("q", 2, head) for head in (3, 4, 5)] + [("k", 2, 1), ("v", 2, 1)]
    assert torch.equal(found, path_patching(model, CLEAN, CORRUPT, metric, parts, [("mlp", 1)]).values[0])
    message = r"heads 3 to 5 of layer 2 share their keys and values, which reach head 4 too: name all .*\('q', 2, 3\)"
    with pytest.raises(ValueError, match=message):
        path_patching(model, CLEAN, CORRUPT, metric, [("head", 2, 3), ("head", 2, 5)], [("mlp", 1)])
    with pytest.raises(ValueError, match="no head 2 for the receiver"):
        path_patching(model, CLEAN, CORRUPT, metric, [("k", 2, 2)], [("mlp", 1)])


def test_heads_of_a_gated_attention_are_refused_as_receivers() -> None:
    module = make_timm("cls")
    for block in module.blocks:
        block.attn.gate = torch.nn.Linear(24, 24)
    model = HookedViT.from_timm(module)
    with pytest.raises(ValueError, match="its gate reads the stream too"):
        path_patching(model, CLEAN, CORRUPT, metric, [("q", 2, 1)], [("mlp", 1)])
    assert path_patching(model, CLEAN, CORRUPT, metric, [("logits",)], [("mlp", 2)]).effect.abs().max() > 0


def test_through_all_receivers_the_effect_is_the_total_effect(kind: str) -> None:
    model = ported(kind)
    found = path_patching(model, CLEAN, CORRUPT, metric, all_receivers(model.cfg), memory_limit=2e6).values
    heads = activation_patching(model, CLEAN, CORRUPT, metric, "z").values
    mlps = activation_patching(model, CLEAN, CORRUPT, metric, "mlp_out", groups={"all": "any"}).values
    torch.testing.assert_close(found, torch.cat([heads, mlps], dim=1).flatten(), rtol=1e-5, atol=1e-5)


def test_direct_effects_of_the_last_mlp_are_total_effects() -> None:
    model = ported("cls")
    direct = path_patching(model, CLEAN, CORRUPT, metric, [("logits",)], [("mlp", 2)])
    total = activation_patching(model, CLEAN, CORRUPT, metric, "mlp_out", groups={"all": "any"}, layers=[2])
    torch.testing.assert_close(direct.values[0], total.values[0, 0], rtol=1e-5, atol=1e-6)


def test_the_embedding_is_a_sender() -> None:
    model = ported("cls")
    found = path_patching(model, CLEAN, CORRUPT, metric, all_receivers(model.cfg), [("embed",)])
    torch.testing.assert_close(found.recovered[0], torch.tensor(1.0), rtol=1e-3, atol=1e-3)


def test_the_same_image_and_unread_tokens_have_no_effect() -> None:
    model = ported("cls")
    assert path_patching(model, CLEAN, CLEAN, metric, [("logits",)]).effect.abs().max() < 1e-6
    patches = path_patching(model, CLEAN, CORRUPT, metric, [("logits",)], tokens="patch")
    assert patches.effect.abs().max() < 1e-6  # the head reads CLS
    at_cls = path_patching(model, CLEAN, CORRUPT, metric, [("logits",)], tokens="cls")
    torch.testing.assert_close(at_cls.values, path_patching(model, CLEAN, CORRUPT, metric, [("logits",)]).values)


def test_little_memory_and_one_number_per_image() -> None:
    model = ported("post_norm")
    receivers = [("q", 1, 0), ("v", 2, 1), ("mlp", 2), ("logits",)]

    def each(logits: Tensor) -> Tensor:
        return logits[:, 0] - logits[:, 4]

    whole = path_patching(model, CLEAN, CORRUPT, metric, receivers)
    little = path_patching(model, CLEAN, CORRUPT, each, receivers, per_image=True, memory_limit=7e4)
    torch.testing.assert_close(little.values.mean(-1), whole.values, rtol=1e-4, atol=1e-6)
    assert len(little.table()) == 2 * len(whole.table()) == 2 * len(all_senders(model.cfg))
    noising = path_patching(model, CORRUPT, CLEAN, metric, receivers, direction="noising")
    torch.testing.assert_close(noising.values, whole.values)


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("receivers", "senders", "message"),
    [
        ([], None, "expected at least one receiver"),
        ([("logits",)], [], "expected at least one sender"),
        ([("pattern", 1, 0)], None, r"a receiver that begins with one of \('q', .*, got \('pattern', 1, 0\)"),
        (["logits"], None, "got 'logits'"),
        ([("q", 1)], None, r"expected a receiver as \('q', layer, head\), got \('q', 1\)"),
        ([("q", 3, 0)], None, r"no layer 3 for the receiver \('q', 3, 0\): the model has 0 to 2"),
        ([("logits",)], [("head", 0, 3)], "no head 3 for the sender"),
        ([("q", 1, 0)], [("mlp", 1)], r"no receiver comes after the sender \('mlp', 1\)"),
    ],
)
def test_errors(receivers: list, senders: list | None, message: str) -> None:
    model = ported("cls")
    with pytest.raises(ValueError, match=message):
        path_patching(model, CLEAN, CORRUPT, metric, receivers, senders)
    assert not model.list_hooks()

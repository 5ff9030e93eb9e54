"""Splices: exact where nothing is edited, equal to hand-written hooks elsewhere, and gone after the block."""

import pytest
import torch
from conftest import ported
from torch import Tensor

from hooked_vit import HookedViT
from hooked_vit.hook_axes import hook_axes
from hooked_vit.interventions import add_direction, edit, intervene, replace_from, zero_ablate
from hooked_vit.splicing import activation_width

FAMILIES = ["gap_registers_layerscale", "rotary", "parallel", "post_norm"]
POINT = "blocks.1.hook_resid_post"
LATENTS, ERROR = f"{POINT}.dictionary.hook_latents", f"{POINT}.dictionary.hook_error"
IMAGES = torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(1))


class Toy:
    """A dictionary of 17 latents with random weights, none of them aware of this package."""

    def __init__(self, d_in: int, d_out: int | None = None, tokens: str = "any", seed: int = 0):
        generator, self.tokens = torch.Generator().manual_seed(seed), tokens
        self.down = torch.randn(d_in, 17, generator=generator)
        self.up = 0.3 * torch.randn(17, d_in if d_out is None else d_out, generator=generator)

    def encode(self, x: Tensor) -> Tensor:
        assert x.ndim == 2
        return (x @ self.down + 0.1).relu()

    def decode(self, latents: Tensor) -> Tensor:
        return latents @ self.up + 0.1


@pytest.fixture
def shapes_unchecked(bad_input) -> None:
    """Without enforced shapes: for many forward passes, and for errors as users see them."""


def points(model: HookedViT) -> list[str]:
    """All hook points with one vector per token or image."""
    found = []
    for name in model.hook_dict:
        try:
            activation_width(name, model)
        except ValueError:
            continue
        found.append(name)
    assert len(found) > 30
    return [name for name in found if not name.startswith(("blocks.0.", "blocks.2."))]


def clone(activation: Tensor, hook) -> Tensor:
    return activation.clone()


@pytest.mark.parametrize("kind", FAMILIES)
def test_widths_of_activations(kind: str) -> None:
    model = ported(kind)
    names = points(model)
    _, cache = model.run_with_cache(IMAGES, names_filter=names)
    for name in names:
        n_leading = 2 if "token" in hook_axes(name, model.cfg) or "patch" in hook_axes(name, model.cfg) else 1
        assert activation_width(name, model) == cache[name].flatten(n_leading).shape[-1], name


@pytest.mark.parametrize("kind", FAMILIES)
def test_with_the_error_kept_and_only_read_logits_are_those_of_the_plain_run_at_every_point(
    kind: str, shapes_unchecked
) -> None:
    model = ported(kind)
    with torch.no_grad():
        before = model(IMAGES)
        for name in points(model):
            toy = Toy(activation_width(name, model))
            with model.spliced({name: toy}):
                logits, cache = model.run_with_cache(IMAGES, names_filter=lambda n: "dictionary" in n)
                _, x = model.run_with_cache(IMAGES, names_filter=[name])
                assert torch.equal(model(IMAGES), before), name
            assert torch.equal(logits, before), name
            latents, error = cache[f"{name}.dictionary.hook_latents"], cache[f"{name}.dictionary.hook_error"]
            vectors = x[name].flatten(latents.ndim - 1)
            assert torch.equal(latents, toy.encode(vectors.flatten(0, -2)).reshape(latents.shape)), name
            assert torch.equal(error, x[name] - toy.decode(latents).reshape(error.shape)), name
            assert latents.count_nonzero() > 0


@pytest.mark.parametrize("kind", FAMILIES)
def test_gradients_with_the_error_kept_are_those_of_the_plain_run_to_the_bit(kind: str, shapes_unchecked) -> None:
    model = ported(kind)
    seen = ["hook_tokens", "blocks.0.hook_resid_post", "blocks.0.attn.hook_v", "hook_pooled"]
    for name in [n for n in points(model) if n.startswith("blocks.1.") or n == "hook_pooled"]:
        toy = Toy(activation_width(name, model))
        # some fused products are split up where a hook may write: the same for both runs
        plain = model.run_with_gradients(IMAGES, lambda z: z[:, 2], seen, fwd_hooks=[(name, clone)])
        with model.spliced({name: toy}):
            own = [f"{name}.dictionary.hook_latents", f"{name}.dictionary.hook_error"]
            spliced = model.run_with_gradients(IMAGES, lambda z: z[:, 2], [*seen, name, *own])
        assert torch.equal(spliced[0], plain[0]), name
        for point in seen:
            assert torch.equal(spliced[1][point], plain[1][point]), (name, point)
            assert torch.equal(spliced[2][point], plain[2][point]), (name, point)
        gradient = spliced[2][name]
        assert torch.equal(spliced[2][own[1]], gradient), name
        expected = gradient.flatten(spliced[2][own[0]].ndim - 1) @ toy.up.T
        torch.testing.assert_close(spliced[2][own[0]], expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_edit_of_latents_or_error_moves_the_logits_at_every_point(kind: str, shapes_unchecked) -> None:
    model = ported(kind)
    before = model(IMAGES)
    with torch.no_grad():
        for name in points(model):
            with model.spliced({name: Toy(activation_width(name, model))}):
                for point in [n for n in model.hook_dict if "dictionary" in n]:
                    moved = model.run_with_hooks(IMAGES, fwd_hooks=[(point, _with_noise)])
                    assert (moved - before).abs().max() > 1e-5 * before.abs().max(), point


def _with_noise(activation: Tensor, hook) -> Tensor:
    return activation + torch.randn(activation.shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("tokens", ["any", "patch"])
def test_edited_latents_equal_a_hook_by_hand_gradients_too(kind: str, tokens: str) -> None:
    model = ported(kind)
    toy, mask = (
        Toy(24, tokens=tokens),
        torch.tensor([t == "patch" or tokens == "any" for t in model.token_layout.token_types]),
    )

    def by_hand(x: Tensor, hook) -> Tensor:
        latents = toy.encode(x.flatten(0, 1)).reshape(*x.shape[:2], 17)
        error = x - toy.decode(latents)
        edited = torch.cat([torch.zeros_like(latents[..., :5]), 2 * latents[..., 5:]], dim=-1)
        return torch.where(mask[:, None], toy.decode(edited) + 0.5 * error, x)

    expected = model.run_with_gradients(IMAGES, lambda z: z[:, 2], "hook_tokens", fwd_hooks=[(POINT, by_hand)])
    with model.spliced({POINT: toy}):
        hooks = edit(model, LATENTS, lambda latents, name: 2 * latents) + zero_ablate(model, LATENTS, latents=range(5))
        hooks += edit(model, ERROR, lambda error, name: 0.5 * error)
        found = model.run_with_gradients(IMAGES, lambda z: z[:, 2], "hook_tokens", fwd_hooks=hooks)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2]["hook_tokens"], expected[2]["hook_tokens"], rtol=1e-3, atol=1e-5)
    assert (found[0] - model(IMAGES)[:, 2]).abs().max() > 1e-3


def test_latents_fixed_at_their_own_values_leave_the_logits_and_cut_their_gradient() -> None:
    model, toy = ported("rotary"), Toy(24)
    with model.spliced({POINT: toy}):
        logits, cache = model.run_with_cache(IMAGES, names_filter=LATENTS)
        frozen = replace_from(model, LATENTS, cache)
        value, _, gradients = model.run_with_gradients(IMAGES, lambda z: z[:, 2], "hook_tokens", fwd_hooks=frozen)

    def by_hand(x: Tensor, hook) -> Tensor:
        decoded = toy.decode(toy.encode(x.flatten(0, 1))).reshape(x.shape)
        return decoded.detach() + (x - decoded)

    expected = model.run_with_gradients(IMAGES, lambda z: z[:, 2], "hook_tokens", fwd_hooks=[(POINT, by_hand)])
    assert torch.equal(value, logits[:, 2].detach())
    torch.testing.assert_close(gradients["hook_tokens"], expected[2]["hook_tokens"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("tokens", ["any", "patch", "cls"])
def test_with_the_error_dropped_it_is_a_hook_by_hand(tokens: str) -> None:
    model, toy = ported("cls"), Toy(24, tokens=tokens)
    chosen = {"any": slice(None), "patch": slice(1, None), "cls": slice(0, 1)}[tokens]

    def by_hand(x: Tensor, hook) -> Tensor:
        out = x.clone()
        part = x[:, chosen]
        out[:, chosen] = toy.decode(toy.encode(part.flatten(0, 1))).reshape(part.shape)
        return out

    with model.spliced({POINT: toy}, error="drop"):
        found, cache = model.run_with_cache(IMAGES, names_filter=[POINT, LATENTS])
        assert ERROR not in model.hook_dict
        with pytest.raises(ValueError, match=r"hook_error only with error='keep'"):
            model.hook_names(ERROR)
    expected = model.run_with_hooks(IMAGES, fwd_hooks=[(POINT, by_hand)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    if tokens == "any":
        assert torch.equal(found, expected)
    assert (found - model(IMAGES)).abs().max() > 1e-3
    outside = torch.ones(13, dtype=torch.bool)
    outside[chosen] = False
    assert not cache[LATENTS][:, outside].any()


def test_latents_of_other_tokens_steer_them() -> None:
    model, toy = ported("cls"), Toy(24, tokens="patch")
    direction = torch.zeros(17)
    direction[3] = 2.0
    for error in ("keep", "drop"):
        with model.spliced({POINT: toy}, error=error):
            _, before = model.run_with_cache(IMAGES, names_filter=POINT)
            with intervene(model, add_direction(model, LATENTS, direction, tokens="cls")):
                _, after = model.run_with_cache(IMAGES, names_filter=POINT)
        change = after[POINT] - before[POINT]
        torch.testing.assert_close(change[:, 0], (2 * toy.up[3]).expand(2, -1), rtol=1e-3, atol=1e-5)
        assert not change[:, 1:].any()


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_transcoder_reads_one_point_and_writes_another(kind: str) -> None:
    model = ported(kind)
    reads, writes, toy = "blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out", Toy(24, 24)
    seen = {}

    def read(x: Tensor, hook) -> None:
        seen["x"] = x

    def write(x: Tensor, hook) -> Tensor:
        return toy.decode(toy.encode(seen["x"].flatten(0, 1))).reshape(x.shape)

    expected = model.run_with_hooks(IMAGES, fwd_hooks=[(reads, read), (writes, write)])
    with model.spliced({(reads, writes): toy}, error="drop"):
        assert torch.equal(model(IMAGES), expected)
    with model.spliced({(("mlp_in", 1)): toy}, error="drop"):
        assert not torch.equal(model(IMAGES), expected)
    with torch.no_grad(), model.spliced({(reads, writes): toy}):
        name = f"{writes}.dictionary.hook_latents"
        logits, cache = model.run_with_cache(IMAGES, names_filter=[name, writes])
        moved = model.run_with_hooks(IMAGES, fwd_hooks=zero_ablate(model, name))
    assert torch.equal(logits, model(IMAGES))
    assert (moved - logits).abs().max() > 1e-4
    assert torch.equal(cache[name], toy.encode(seen["x"].flatten(0, 1)).reshape(2, -1, 17))


def test_several_points_and_nested_blocks_and_edits_that_reach_later_latents() -> None:
    model = ported("gap_registers_layerscale")
    first, second = Toy(24, seed=1), Toy(60, seed=2)
    before = model(IMAGES)
    names = list(model.hook_dict)
    with model.spliced({"blocks.0.hook_attn_out": first}), model.spliced({("post", 1): second}):
        own = [name for name in model.hook_dict if "dictionary" in name]
        assert len(own) == 4
        assert own[:2] == [f"blocks.0.hook_attn_out.dictionary.hook_{part}" for part in ("latents", "error")]
        logits, cache = model.run_with_cache(IMAGES)
        with intervene(model, zero_ablate(model, own[0], latents=[2, 3], tokens="register")):
            _, moved = model.run_with_cache(IMAGES, names_filter="latents")
    assert torch.equal(logits, before)
    assert cache["blocks.1.mlp.hook_post.dictionary.hook_latents"].shape == (2, 14, 17)
    latents = "blocks.1.mlp.hook_post.dictionary.hook_latents"
    assert not torch.equal(moved[latents], cache[latents])
    assert list(model.hook_dict) == names
    assert not model.list_hooks()
    with model.spliced({"blocks.0.hook_attn_out": first, ("post", 1): second}):
        assert len(model.hook_names("latents")) == 2


def test_everything_is_gone_after_an_error_and_stays_until_the_end_of_the_block() -> None:
    model = ported("cls")
    names, modules = list(model.hook_dict), list(model.mod_dict)
    before = model(IMAGES)
    spliced = []

    def failing() -> None:
        with model.spliced({POINT: Toy(24)}, error="drop"):
            spliced.append(model(IMAGES))
            model.reset_hooks()
            assert torch.equal(model(IMAGES), spliced[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert list(model.hook_dict) == names
    assert list(model.mod_dict) == modules
    assert not model.list_hooks()
    assert not torch.equal(spliced[0], before)
    assert torch.equal(model(IMAGES), before)
    assert model.run_with_cache(IMAGES, lean=True)[0] is not None
    with pytest.raises(ValueError, match=r"exists only within `with model.spliced"):
        model.hook_names(LATENTS)


def test_masks_and_resumed_runs() -> None:
    model, toy = ported("cls"), Toy(24, tokens="patch")
    mask = torch.ones(2, 13, dtype=torch.bool)
    mask[0, 4:7] = mask[1, 8:11] = False
    plain = model(IMAGES, token_mask=mask)
    _, whole = model.run_with_cache(IMAGES, names_filter=("resid_pre", 1))
    with torch.no_grad(), model.spliced({POINT: toy}):
        logits, cache = model.run_with_cache(IMAGES, token_mask=mask, names_filter=LATENTS)
        resumed, later = model.run_with_cache(whole["resid_pre", 1], start_at_layer=1, names_filter=LATENTS)
        _, all_tokens = model.run_with_cache(IMAGES, names_filter=LATENTS)
        with pytest.raises(ValueError, match="lean=True computes activations again without the dictionaries"):
            model.run_with_cache(IMAGES, lean=True)
        with pytest.raises(ValueError, match=f"such as '{LATENTS}', was reached"):
            model.run_with_cache(whole["resid_pre", 1], start_at_layer=2, names_filter=LATENTS)
    assert torch.equal(logits, plain)
    assert cache[LATENTS].shape == (2, 10, 17)
    assert not cache[LATENTS][:, 0].any()
    assert torch.equal(resumed, model(IMAGES))
    assert torch.equal(later[LATENTS], all_tokens[LATENTS])


def test_a_transcoder_whose_input_is_left_out_says_so() -> None:
    model = ported("cls")
    _, cache = model.run_with_cache(IMAGES, names_filter=("resid_pre", 2))
    with model.spliced({("blocks.0.hook_mlp_in", "blocks.2.hook_mlp_out"): Toy(24)}, error="drop"):
        model(IMAGES, stop_at_layer=1)
        with pytest.raises(ValueError, match=r"reads 'blocks.0.hook_mlp_in', which this run did not compute before it"):
            model(cache["resid_pre", 2], start_at_layer=2)


class _NoDecode:
    def encode(self, x):
        return x


@pytest.mark.parametrize(
    ("dictionaries", "message"),
    [
        ({}, "expected dictionaries by hook point, such as .*, got none"),
        ([Toy(24)], "expected dictionaries by hook point, such as .*, got list"),
        ({"blocks.1.hook_resid_pst": Toy(24)}, "unknown hook point 'blocks.1.hook_resid_pst'; did you mean"),
        ({"resid_post": Toy(24)}, "expected one hook point for a dictionary, 'resid_post' means 3"),
        ({POINT: Toy(23)}, "does not take the activation of 'blocks.1.hook_resid_post', of width 24"),
        ({POINT: Toy(24, 25)}, r"decodes one token to shape \(1, 25\), 'blocks.1.hook_resid_post' has width 24"),
        ({POINT: _NoDecode()}, "must have methods encode and decode, _NoDecode has no decode"),
        ({POINT: Toy(24, tokens="patches")}, "tokens must be one of cls, dist, register, patch, prefix, any"),
        ({POINT: Toy(24, tokens="register")}, "the model has no register token"),
        ({"hook_pooled": Toy(24, tokens="cls")}, "'hook_pooled' has axes without tokens"),
        ({("blocks.0.hook_mlp_in", "hook_pooled"): Toy(24)}, "do not have the same tokens"),
        ({("pattern", 1): Toy(13)}, "a dictionary needs one vector per token or image; 'blocks.1.attn.hook_pattern'"),
        ({("blocks.2.hook_mlp_in", "blocks.1.hook_mlp_out"): Toy(24)}, "reads before it writes, .*: swap the two"),
        ({POINT: Toy(24), ("resid_post", 1): Toy(24)}, "has a dictionary already"),
    ],
)  # fmt: skip
def test_bad_splices_are_refused_before_anything_is_attached(dictionaries, message: str, shapes_unchecked) -> None:
    model = ported("cls")
    with pytest.raises(ValueError, match=message), model.spliced(dictionaries):
        pass
    assert not model.list_hooks()
    assert not [name for name in model.hook_dict if "dictionary" in name]


def test_other_refusals(shapes_unchecked) -> None:
    model = ported("cls")
    with (
        pytest.raises(ValueError, match="error is 'keep' or 'drop', got 'zero'"),
        model.spliced({POINT: Toy(24)}, "zero"),
    ):
        pass
    with model.spliced({POINT: Toy(24)}):
        with pytest.raises(ValueError, match="has a dictionary already"), model.spliced({POINT: Toy(24)}):
            pass
        with pytest.raises(ValueError, match=r"expected latents from 0 to 16 .* got 17"):
            model.run_with_hooks(IMAGES, fwd_hooks=zero_ablate(model, LATENTS, latents=17))
        with pytest.raises(ValueError, match="and so no latents"):
            zero_ablate(model, POINT, latents=1)


def test_an_encoder_that_returns_a_tuple() -> None:
    class Pair(Toy):
        def encode(self, x):
            return x @ self.down, super().encode(x)

    model = ported("cls")
    with model.spliced({POINT: Toy(24)}, error="drop"):
        expected = model(IMAGES)
    with model.spliced({POINT: Pair(24)}, error="drop"):
        assert torch.equal(model(IMAGES), expected)

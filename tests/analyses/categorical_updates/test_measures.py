"""Class-similarity change and residual composition compared with a loop over blocks, images and tokens."""

import pytest
import torch
from categorical_updates_by_hand import BOTH, STREAMS, batch_with_all_streams, composition_of, increase_of
from token_choices import TOKEN_CHOICES, chosen_tokens

from analyses.categorical_updates.measures import residual_composition, similarity_change_rate, similarity_increase


def test_functions_agree_with_the_loop(kind):
    batch = batch_with_all_streams(kind, range(2))
    model, cache, layout = batch.model, batch.cache, batch.model.token_layout
    for sublayer in STREAMS:
        for reference in BOTH:
            expected = increase_of(batch, sublayer, reference)
            increase = similarity_increase(model, cache, batch.labels, sublayer, reference)
            assert increase.numpy() == pytest.approx(expected, abs=1e-5)
            rate = similarity_change_rate(model, cache, batch.labels, sublayer, reference)
            assert rate.patch.tolist() == pytest.approx((expected[:, :, layout.patches] > 0).mean(axis=(1, 2)).tolist())
            assert rate.prefix.shape == (3, layout.n_prefix)
            assert rate.prefix.numpy() == pytest.approx((expected[:, :, layout.prefix] > 0).mean(axis=1))


def test_heads_are_compared_with_the_block_input(kind):
    batch = batch_with_all_streams(kind, range(2))
    model = batch.model
    names = [f"blocks.{layer}.attn.hook_result" for layer in range(3)]
    tokens = batch.cache["blocks.0.hook_resid_pre"]
    _, results = model.run_with_cache(tokens, names_filter=names, start_at_layer=0)
    increase = similarity_increase(model, batch.cache, batch.labels, "heads")
    assert increase.shape == (3, 2, model.token_layout.n_tokens, model.cfg.n_heads)
    for layer in range(3):
        for image, label in enumerate(batch.labels.tolist()):
            after = model.class_logits(results["result", layer][image])[..., label]
            before = model.class_logits(batch.cache["resid_pre", layer][image])[..., label]
            torch.testing.assert_close(increase[layer, image], after - before[:, None], atol=1e-4, rtol=1e-4)
    rate = similarity_change_rate(model, batch.cache, batch.labels, "heads")
    assert rate.patch.shape == (3, model.cfg.n_heads)
    assert rate.prefix.shape == (3, model.token_layout.n_prefix, model.cfg.n_heads)


def test_residual_composition_leaves_out_all_three_parts(kind):
    batch = batch_with_all_streams(kind, range(2))
    matches, layout = composition_of(batch), batch.model.token_layout
    for tokens, where in (("all", slice(None)), ("patch", layout.patches), ("prefix", layout.prefix)):
        if tokens == "prefix" and not layout.n_prefix:
            continue
        composition = residual_composition(batch.model, batch.cache, tokens)
        for place, part in enumerate(("previous", "attn", "mlp", "none")):
            expected = 100 * matches[place, :, :, where].mean(axis=(1, 2))
            assert getattr(composition, part).tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("tokens", TOKEN_CHOICES.values(), ids=TOKEN_CHOICES.keys())
def test_residual_composition_counts_the_chosen_tokens(tokens):
    batch = batch_with_all_streams("cls", range(2))
    matches, counted = composition_of(batch), chosen_tokens(tokens).numpy()
    composition = residual_composition(batch.model, batch.cache, tokens)
    for place, part in enumerate(("previous", "attn", "mlp", "none")):
        expected = 100 * matches[place][:, counted].mean(axis=1)
        assert getattr(composition, part).tolist() == pytest.approx(expected.tolist())


def test_sublayer_outputs_may_pass_their_norm_first():
    batch = batch_with_all_streams("gap_registers_layerscale", range(2))
    increase = similarity_increase(batch.model, batch.cache, batch.labels, "mlp", sublayer_norm=True)
    assert increase.numpy() == pytest.approx(increase_of(batch, "mlp", "block_input", sublayer_norm=True), abs=1e-5)


def test_errors_say_what_is_wrong(bad_input):
    batch = batch_with_all_streams("cls", range(2))
    with pytest.raises(ValueError, match="expected sublayer 'attn', 'mlp', 'heads', 'block', got 'attention'"):
        similarity_increase(batch.model, batch.cache, batch.labels, "attention")
    with pytest.raises(ValueError, match="expected reference 'block_input', 'layer_input', got 'input'"):
        similarity_change_rate(batch.model, batch.cache, batch.labels, "attn", "input")
    with pytest.raises(ValueError, match=r"one of 'cls', .*, got 'patches'"):
        residual_composition(batch.model, batch.cache, "patches")
    with pytest.raises(ValueError, match="expected at least one token to count"):
        residual_composition(batch.model, batch.cache, torch.zeros(13, dtype=torch.bool))

"""Dictionaries against slow loops, their folded form, their files and their errors."""

import json

import pytest
import torch
from conftest import ported

from analyses.dictionaries import (
    Dictionary,
    DictionaryConfig,
    embedded_dictionaries,
    load_dictionary,
    random_dictionary,
)

CONFIGS = {
    "relu": {},
    "topk": {"k": 4},
    "batch_topk": {"k": 4},
    "jump_relu": {},
    "matryoshka": {"k": 4, "group_sizes": (5, 11, 37)},
}


def made(kind: str, seed: int = 0, **changes) -> Dictionary:
    """A dictionary of random weights on the MLP's neurons of the second block: 60 wide, 37 latents."""
    point = "blocks.1.mlp.hook_post"
    values = {"kind": kind, "d_in": 60, "d_out": 60, "d_dict": 37, "reads": point, "writes": point}
    values |= {"normalisation": "mean_and_scale", **CONFIGS[kind], **changes}
    dictionary, generator = Dictionary(DictionaryConfig(**values)), torch.Generator().manual_seed(seed)
    for name, tensor in dictionary.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(drawn.abs() + 0.1 if "scale" in name or name == "threshold" else drawn)
    return dictionary


@pytest.mark.parametrize("kind", CONFIGS)
def test_latents_and_reconstruction_equal_the_loop(kind: str) -> None:
    dictionary, x = made(kind), torch.randn(2, 3, 60)
    weights = {name: tensor.double() for name, tensor in dictionary.state_dict().items()}
    expected = torch.zeros(2, 3, 37, dtype=torch.float64)
    for image in range(2):
        for token in range(3):
            normed = (x[image, token].double() - weights["in_mean"]) / weights["in_scale"]
            pre = [float(normed @ weights["W_enc"][:, j] + weights["b_enc"][j]) for j in range(37)]
            for j in range(37):
                if kind == "topk":
                    active = sorted(pre, reverse=True).index(pre[j]) < 4
                else:
                    threshold = weights.get("threshold", torch.zeros(()))
                    active = pre[j] > threshold.expand(37)[j]
                expected[image, token, j] = max(pre[j], 0.0) if active else 0.0
    latents = dictionary.encode(x)
    torch.testing.assert_close(latents, expected.float(), rtol=1e-4, atol=1e-4)
    assert 0 < latents.count_nonzero() < latents.numel()
    out = torch.stack([sum(latents[..., j, None] * dictionary.W_dec[j] for j in range(37))])[0]
    out = (out + dictionary.b_dec) * dictionary.out_scale + dictionary.out_mean
    torch.testing.assert_close(dictionary(x), out, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_folded_is_equal_without_normalisation(kind: str) -> None:
    dictionary, x = made(kind, 1), torch.randn(5, 60)
    folded = dictionary.folded()
    assert folded.config.normalisation == "none"
    torch.testing.assert_close(folded.encode(x), dictionary.encode(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(folded(x), dictionary(x), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(folded.W_dec, dictionary.directions)


@pytest.mark.parametrize("kind", CONFIGS)
def test_files_hold_everything_to_the_bit(kind: str, tmp_path) -> None:
    dictionary = made(kind)
    dictionary.record = {"seed": 3, "losses": [0.5]}
    dictionary.save(tmp_path / "deep" / "a.safetensors")
    loaded = load_dictionary(tmp_path / "deep" / "a.safetensors")
    assert loaded.config == dictionary.config
    assert loaded.record == dictionary.record
    for name, tensor in dictionary.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.safetensors"]
    dictionary.save(tmp_path / "half.safetensors", dtype=torch.float16)
    torch.testing.assert_close(
        load_dictionary(tmp_path / "half.safetensors").W_dec, dictionary.W_dec, rtol=1e-3, atol=0
    )
    assert load_dictionary(tmp_path / "half.safetensors").W_dec.dtype == torch.float32


def test_damaged_and_foreign_files_are_refused(tmp_path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="no dictionary at 'x/y', and none of that name is embedded"):
        load_dictionary("x/y")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 5)
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_dictionary(tmp_path / "cut.safetensors")
    save_file({"W_enc": torch.zeros(2, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no dictionary of this package"):
        load_dictionary(tmp_path / "other.safetensors")
    metadata = {"dictionary": made("relu").config.to_json()}
    save_file({"W_enc": torch.zeros(2, 3)}, tmp_path / "misfit.safetensors", metadata)
    with pytest.raises(ValueError, match=r"'W_dec' has shape None, expected \(37, 60\)"):
        load_dictionary(tmp_path / "misfit.safetensors")
    with pytest.raises(ValueError, match=r"written to a .safetensors file, got 'a.pt'"):
        made("relu").save("a.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "gated"}, "kind is one of relu, topk"),
        ({"kind": "topk"}, "k is for the kinds topk"),
        ({"k": 3}, "k is for the kinds topk"),
        ({"kind": "topk", "k": 38}, "expected k from 1 to the number of latents, 37, got 38"),
        ({"kind": "matryoshka", "k": 2}, "group_sizes is for the kind matryoshka"),
        ({"kind": "matryoshka", "k": 2, "group_sizes": (9, 9, 37)}, "group_sizes that increase"),
        ({"tokens": "patches"}, "tokens is one of cls, dist, register, patch"),
        ({"normalisation": "layer"}, "normalisation is one of none, mean_and_scale"),
        ({"d_dict": 0}, "positive widths"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(changes, message, bad_input) -> None:
    values = {"kind": "relu", "d_in": 60, "d_out": 60, "d_dict": 37, "reads": "hook_tokens", "writes": "hook_tokens"}
    with pytest.raises(ValueError, match=message):
        DictionaryConfig(**{**values, **changes})


def test_config_as_json() -> None:
    config = made("matryoshka").config
    assert DictionaryConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="expected the configuration of a dictionary"):
        DictionaryConfig.from_json(json.dumps({"kind": "relu"}))
    assert config.point == "blocks.1.mlp.hook_post"


def test_wrong_widths_are_refused(bad_input) -> None:
    dictionary = made("relu")
    with pytest.raises(
        ValueError, match=r"reads 'blocks.1.mlp.hook_post' of width 60, got an activation of shape \(1, 24\)"
    ):
        dictionary.encode(torch.zeros(1, 24))
    with pytest.raises(ValueError, match="has 37 latents, got shape"):
        dictionary.decode(torch.zeros(1, 36))


def test_a_dictionary_of_another_model_is_refused() -> None:
    made("relu").check_fits(ported("cls"))
    with pytest.raises(ValueError, match="of width 59, in this model it has width 60: it was made for another model"):
        made("relu", d_in=59, d_out=59).check_fits(ported("cls"))
    with pytest.raises(ValueError, match=r"unknown hook point 'blocks.9"):
        made("relu", reads="blocks.9.mlp.hook_post").check_fits(ported("cls"))


def test_random_dictionaries_are_a_null_of_the_same_sizes() -> None:
    like = made("batch_topk")
    drawn, again, other = random_dictionary(like, 1), random_dictionary(like, 1), random_dictionary(like, 2)
    assert torch.equal(drawn.W_dec, again.W_dec)
    assert not torch.equal(drawn.W_dec, other.W_dec)
    torch.testing.assert_close(drawn.W_dec.norm(dim=-1), torch.ones(37))
    assert torch.equal(drawn.W_enc, drawn.W_dec.T)
    assert torch.equal(drawn.in_mean, like.in_mean)
    assert (drawn.encode(10 * torch.randn(50, 60)).count_nonzero(dim=-1) <= 4).all()
    crossing = random_dictionary(made("relu", writes="blocks.1.hook_mlp_out", d_out=24), k=3)
    assert crossing.W_enc.shape == (60, 37)
    assert crossing.W_dec.shape == (37, 24)
    with pytest.raises(ValueError, match="fixes no number of active latents: pass k"):
        random_dictionary(made("relu"))


def test_embedded_dictionaries_load() -> None:
    for name in embedded_dictionaries():
        assert load_dictionary(name).config.d_dict > 0

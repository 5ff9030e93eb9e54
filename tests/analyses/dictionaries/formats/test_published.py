"""Dictionaries in others' layouts reconstruct what a formula written from their definitions says, token by token."""

import json
import math
from pathlib import Path

import pytest
import torch
from dictionary_toys import items, toy

from analyses.dictionaries import load_published, stream_directions
from analyses.dictionaries.formats.token_normalised import TokenNormalised

D, N, POINT = 24, 31, "blocks.1.hook_resid_post"


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = {"W_enc": (D, N), "b_enc": (N,), "W_dec": (N, D), "b_dec": (D,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def by_hand(
    x: list[float],
    t: dict[str, torch.Tensor],
    *,
    norm: str = "none",
    subtract: bool = True,
    k: int | None = None,
    threshold: list[float] | None = None,
    by_length: bool = False,
) -> tuple[list[float], list[float]]:
    """Latents and reconstruction of one token, with numbers alone; latents in normalised units."""
    mean, factor, eps = 0.0, 1.0, 0.0
    if norm == "layer_norm":
        mean = sum(x) / D
        factor, eps = math.sqrt(sum((v - mean) ** 2 for v in x) / (D - 1)), 1e-5
    if norm == "constant_norm_rescale":
        factor = math.sqrt(sum(v * v for v in x)) / math.sqrt(D)
    inputs = [(v - mean) / (factor + eps) for v in x]
    if subtract:
        inputs = [v - float(b) for v, b in zip(inputs, t["b_dec"], strict=True)]
    W_enc, W_dec = t["W_enc"].double().tolist(), t["W_dec"].double().tolist()
    pre = [sum(inputs[i] * W_enc[i][j] for i in range(D)) + float(t["b_enc"][j]) for j in range(N)]
    lengths = [math.sqrt(sum(v * v for v in W_dec[j])) if by_length else 1.0 for j in range(N)]
    pre = [p * length for p, length in zip(pre, lengths, strict=True)]
    latents = [max(p, 0.0) for p in pre]
    if k is not None:
        best = sorted(range(N), key=lambda j: -pre[j])[:k]
        latents = [value if j in best else 0.0 for j, value in enumerate(latents)]
    if threshold is not None:
        latents = [value if pre[j] > max(threshold[j], 0) else 0.0 for j, value in enumerate(latents)]
    out = [sum(latents[j] / lengths[j] * W_dec[j][i] for j in range(N)) + float(t["b_dec"][i]) for i in range(D)]
    return latents, [v * factor + mean for v in out]


def check(dictionary, tensors: dict[str, torch.Tensor], **how) -> None:
    """A dictionary against the formula, for a few tokens far from zero."""
    x = 3 * torch.randn(4, D) + 1
    for token, latents, out in zip(x, dictionary.encode(x), dictionary(x), strict=True):
        expected, reconstruction = by_hand(token.double().tolist(), tensors, **how)
        assert out.tolist() == pytest.approx(reconstruction, rel=1e-4, abs=1e-3)
        own = latents[:N] / (latents[N] if isinstance(dictionary, TokenNormalised) else 1)
        assert own.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-3)


def prisma_file(folder: Path, tensors: dict[str, torch.Tensor], **changes) -> Path:
    config = {"architecture": "standard", "activation_fn_str": "relu", "hook_point_layer": 1, "d_in": D,
              "layer_subtype": "hook_resid_post", "normalize_activations": "layer_norm", **changes}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(tensors, folder / "weights.pt")
    return folder / "weights.pt"


def saev_file(folder: Path, tensors: dict[str, torch.Tensor], header: dict) -> Path:
    with (folder / "sae.pt").open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        torch.save(tensors, file)
    return folder / "sae.pt"


def sae_lens_folder(folder: Path, tensors: dict[str, torch.Tensor], **changes) -> Path:
    from safetensors.torch import save_file

    config = {"architecture": "standard", "d_in": D, "d_sae": N, "apply_b_dec_to_input": True,
              "normalize_activations": "none", "metadata": {"hook_name": POINT}, **changes}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
def test_prisma(norm: str, tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    dictionary = load_published(prisma_file(tmp_path, tensors, normalize_activations=norm), "prisma")
    assert (dictionary.config.reads, dictionary.config.tokens) == (POINT, "any")
    check(dictionary, tensors, norm=norm)
    topk = prisma_file(tmp_path, tensors, normalize_activations=norm, activation_fn_str="topk",
                       activation_fn_kwargs={"k": 5}, cls_token_only=True)  # fmt: skip
    dictionary = load_published(topk, "prisma")
    assert (dictionary.config.k, dictionary.config.tokens) == (5, "cls")
    check(dictionary, tensors, norm=norm, k=5)


def test_saev(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    cfg = {"d_vit": D, "exp_factor": 2}
    headers = {
        "before schemas": ({**cfg, "l1_coeff": 1.0}, None),
        "schema 1, first form": ({"schema": 1, "cls": "TopK", "cfg": {**cfg, "top_k": 4}}, 4),
        "schema 1, later form": ({"schema": 1, "cls": "SparseAutoencoderConfig",
                                  "cfg": {**cfg, "activation": {"cls": "TopK", "params": {"top_k": 6}}}}, 6),
        "schema 2": ({"schema": 2, "cfg": {**cfg, "activation": {"cls": "BatchTopK", "params": {"top_k": 3}}}}, 3),
        "schema 2, relu": ({"schema": 2, "cfg": {**cfg, "activation": {"cls": "Relu", "params": {}}}}, None),
    }  # fmt: skip
    for header, k in headers.values():
        dictionary = load_published(saev_file(tmp_path, tensors, header), "saev", reads=POINT)
        check(dictionary, tensors, subtract=False, k=k)
        check(
            load_published(tmp_path / "sae.pt", "saev", reads=POINT, subtract_b_dec=True), tensors, subtract=True, k=k
        )


def test_saev_with_the_mean_and_scale_of_its_activations(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file, mean = saev_file(tmp_path, tensors, {"d_vit": D}), torch.randn(D)
    dictionary = load_published(file, "saev", reads=POINT, tokens="patch", mean=mean, scale=2.5)
    plain = load_published(file, "saev", reads=POINT)
    x = torch.randn(4, D)
    torch.testing.assert_close(dictionary(x), plain((x - mean) / 2.5) * 2.5 + mean, rtol=1e-4, atol=1e-4)
    assert dictionary.tokens == "patch"


@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("subtract", [True, False])
def test_sae_lens(norm: str, subtract: bool, tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    options = {"normalize_activations": norm, "apply_b_dec_to_input": subtract}
    check(
        load_published(sae_lens_folder(tmp_path, tensors, **options), "sae_lens"), tensors, norm=norm, subtract=subtract
    )
    folder = sae_lens_folder(tmp_path, tensors, **options, architecture="topk", k=6)
    check(load_published(folder, "sae_lens"), tensors, norm=norm, subtract=subtract, k=6)
    folder = sae_lens_folder(tmp_path, tensors, **options, architecture="topk", k=6, rescale_acts_by_decoder_norm=True)
    check(load_published(folder, "sae_lens"), tensors, norm=norm, subtract=subtract, k=6, by_length=True)
    threshold = torch.randn(N)
    folder = sae_lens_folder(tmp_path, {**tensors, "threshold": threshold}, **options, architecture="jumprelu")
    check(load_published(folder, "sae_lens"), tensors, norm=norm, subtract=subtract, threshold=threshold.tolist())


def test_the_thresholds_of_a_jumprelu_that_was_saved_in_training(
    tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    threshold = torch.rand(N) + 0.5
    folder = sae_lens_folder(tmp_path, {**tensors, "log_threshold": threshold.log()}, architecture="jumprelu")
    dictionary = load_published(folder, "sae_lens")
    check(dictionary, tensors, threshold=threshold.tolist())
    plain = load_published(sae_lens_folder(tmp_path, tensors), "sae_lens")
    x = 3 * torch.randn(50, D)
    assert int((dictionary.encode(x) > 0).sum()) < int((plain.encode(x) > 0).sum())
    for missing, words in (({}, r"lacks threshold \(or log_threshold\), which a jumprelu dictionary needs: it holds"),
                           ({"threshold": torch.ones(1)}, r"threshold \[d_dict\], got .*threshold \[1\]")):  # fmt: skip
        folder = sae_lens_folder(tmp_path, {**tensors, **missing}, architecture="jumprelu")
        with pytest.raises(ValueError, match=words):
            load_published(folder, "sae_lens")


def test_sae_lens_with_an_expected_length(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    folder = sae_lens_folder(tmp_path, tensors, normalize_activations="expected_average_only_in")
    with pytest.raises(ValueError, match="pass scale, the mean length"):
        load_published(folder, "sae_lens")
    dictionary = load_published(folder, "sae_lens", scale=1.5)
    x = torch.randn(3, D)
    for token, out in zip(x, dictionary(x), strict=True):
        expected = by_hand((token / 1.5).double().tolist(), tensors)[1]
        assert out.tolist() == pytest.approx([1.5 * v for v in expected], rel=1e-4, abs=1e-3)


def test_a_loaded_dictionary_works_like_any_other(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    model = toy("cls")
    dictionary = load_published(prisma_file(tmp_path, tensors), "prisma")
    images = torch.stack([image for image, _ in items()[:2]])
    with model.spliced({dictionary.config.point: dictionary}):
        assert torch.equal(model(images), toy("cls")(images))
    with model.spliced({dictionary.config.point: dictionary}, error="drop"):
        spliced = model(images)
    hook = [(POINT, lambda x, hook: dictionary(x))]
    torch.testing.assert_close(spliced, model.run_with_hooks(images, fwd_hooks=hook))
    assert stream_directions(model, dictionary).shape == (N + 2, D)
    with pytest.raises(ValueError, match="load the original file again"):
        dictionary.save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="cannot be folded"):
        dictionary.folded()


def test_the_reconstruction_is_checked(tmp_path: Path) -> None:
    model, images = toy("cls"), torch.stack([image for image, _ in items()])
    eye = torch.eye(D)
    perfect = {"W_enc": torch.cat([eye, -eye], dim=1), "b_enc": torch.zeros(2 * D), "b_dec": torch.zeros(D),
               "W_dec": torch.cat([eye, -eye])}  # fmt: skip
    file = prisma_file(tmp_path, perfect)
    loaded = load_published(file, "prisma", model=model, images=images)
    assert loaded.record["explained_variance"] == pytest.approx(1, abs=1e-6)
    for alone, words in (({"model": model}, "got model= alone: add images="),
                         ({"images": images}, "got images= alone: add model=")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            load_published(file, "prisma", **alone)
    broken = prisma_file(tmp_path, {**perfect, "W_dec": torch.cat([-eye, eye])})
    for how in ({"model": model, "images": images}, {"activations": torch.randn(7, D)}):
        with pytest.raises(ValueError, match=r"explains -\d.* is the normalisation"):
            load_published(broken, "prisma", **how)


def test_errors_say_what_to_do(tensors: dict[str, torch.Tensor], tmp_path: Path, bad_input: None) -> None:
    file = prisma_file(tmp_path, tensors)
    with pytest.raises(ValueError, match="one of prisma, saev, sae_lens, got 'lens'"):
        load_published(file, "lens")  # pyright: ignore[reportArgumentType]
    for changes, words in (
        ({"architecture": "gated"}, "standard autoencoders with relu or topk, got gated"),
        ({"is_transcoder": True}, "got a transcoder"),
        ({"normalize_activations": "batch"}, "normalisations none, layer_norm, constant_norm_rescale, got 'batch'"),
    ):
        with pytest.raises(ValueError, match=words):
            load_published(prisma_file(tmp_path, tensors, **changes), "prisma")
    with pytest.raises(ValueError, match="mean and scale go with no other normalisation"):
        load_published(prisma_file(tmp_path, tensors), "prisma", scale=2)
    torch.save({"cfg": Path("a"), "state_dict": tensors}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"only code could read.*torch.save\(sae.state_dict\(\)"):
        load_published(tmp_path / "weights.pt", "prisma")
    others = {name: tensor for name, tensor in tensors.items() if name != "b_enc"}
    gated = prisma_file(tmp_path, {**others, "b_gate": torch.zeros(N)})
    with pytest.raises(ValueError, match=r"lacks b_enc: it holds W_dec, W_enc, b_dec, b_gate .a gated"):
        load_published(gated, "prisma")
    with pytest.raises(ValueError, match=r"got W_enc \[31, 24\]"):
        load_published(prisma_file(tmp_path, {**tensors, "W_enc": tensors["W_enc"].T}), "prisma")
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config.json', which says how the dictionary was trained"):
        load_published(file, "prisma")
    with pytest.raises(ValueError, match="saev's schema 9"):
        load_published(saev_file(tmp_path, tensors, {"schema": 9, "cfg": {}}), "saev", reads=POINT)
    with pytest.raises(ValueError, match="does not say which activation"):
        load_published(saev_file(tmp_path, tensors, {"d_vit": D}), "saev")
    with pytest.raises(ValueError, match="does not begin with a line of JSON"):
        load_published(file, "saev", reads=POINT)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_published(tmp_path / "nowhere", "saev", reads=POINT)
    with pytest.raises(ValueError, match="standard, topk and jumprelu, got 'gated'"):
        load_published(sae_lens_folder(tmp_path, tensors, architecture="gated"), "sae_lens")

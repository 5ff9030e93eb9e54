"""Published dictionaries of ViTs: the layouts of ViT-Prisma, saev and sae-lens, read without running code."""

import io
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.dictionaries.dictionary import Dictionary, DictionaryConfig
from analyses.dictionaries.files import read_tensors
from analyses.dictionaries.formats.token_normalised import TokenNormalised
from analyses.dictionaries.scores.fidelity import explained_variance
from analyses.dictionaries.tokens import chosen_tokens, per_token
from hooked_vit import HookedViT

__all__ = ["Layout", "load_published"]

Layout = Literal["prisma", "saev", "sae_lens"]
_KINDS = {"standard": "relu", "relu": "relu", "topk": "topk", "jumprelu": "jump_relu"}


@dataclass
class _Parts:
    """What a file holds, in one vocabulary.

    `centre` is subtracted from the (normalised) activation before encoding.
    """

    tensors: dict[str, Tensor]
    kind: str
    k: int | None = None
    centre: Tensor | None = None
    normalisation: str = "none"
    reads: str | None = None
    tokens: str = "any"
    record: dict[str, Any] = field(default_factory=dict)


def load_published(
    path: str | Path,
    layout: Layout,
    *,
    reads: str | None = None,
    tokens: str | None = None,
    mean: Float[Tensor, "d_in"] | None = None,
    scale: float | int | None = None,
    subtract_b_dec: bool | None = None,
    model: HookedViT | None = None,
    images: Float[Tensor, "batch channel height width"] | None = None,
    activations: Float[Tensor, "*axes d_in"] | None = None,
    least_explained: float = 0.5,
) -> Dictionary:
    """A dictionary of another package, from its file, as one of this package.

    | layout | file | tensors | before encoding |
    |---|---|---|---|
    | `prisma` | `.pt` or `.safetensors`, with `config.json` beside it | W_enc [d_in d_sae], W_dec [d_sae d_in] | the token's own mean and deviation (`layer_norm`) or length, by its config; minus b_dec |
    | `saev` | one file: a line of JSON, then torch's tensors (schemas 1 and 2, and before) | the same | nothing, by the reader; activations were stored minus a mean and divided by a scale that the file lacks |
    | `sae_lens` | a folder with `cfg.json` and `sae_weights.safetensors` | the same | by its config as Prisma's; minus b_dec if `apply_b_dec_to_input` |

    `expected_average_only_in` of sae-lens and saev's mean and scale are not in the files: pass `mean` and `scale`. TopK
    sets negative latents among the k largest to zero, which saev keeps.

    A wrong normalisation or hook point loads without complaint and reconstructs nothing. So give `activations`, or a
    `model` and `images`: the reconstruction is checked, and its explained variance written into `record`.

    Args:
        path: The file, or for sae_lens the folder.
        layout: Whose it is.
        reads: The hook point's full name here, if the file does not say it, or says it otherwise.
        tokens: The tokens it is for; by default what the file says, or all.
        mean: Subtracted from activations before anything else, and added to reconstructions.
        scale: Activations are divided by it, and reconstructions multiplied.
        subtract_b_dec: Whether b_dec is subtracted before encoding; by default as above.
        model: A model to take activations from.
        images: Images for it.
        activations: Activations at the hook point, instead of a model and images.
        least_explained: The explained variance below which the check fails.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged or holds objects that only code could read, its architecture, activation or
            normalisation is not covered (gated, say), the hook point is unknown, tensors are missing or do not fit, the
            reconstruction explains less than `least_explained`, or there is a model without images or the reverse.
    """  # noqa: E501
    if (model is None) != (images is None) and activations is None:
        given, missing = ("model", "images") if images is None else ("images", "model")
        raise ValueError(
            f"the check of the reconstruction needs a model and images, got {given}= alone: add {missing}="
        )
    if layout not in get_args(Layout):
        raise ValueError(f"expected a layout, one of {', '.join(get_args(Layout))}, got {layout!r}")
    readers = {"prisma": _prisma, "saev": _saev, "sae_lens": _sae_lens}
    parts = readers[layout](Path(path), subtract_b_dec)
    if reads is None and parts.reads is None:
        raise ValueError(f"'{path}' does not say which activation it is for: pass reads='blocks.5.hook_resid_post'")
    needs_scale = parts.normalisation == "expected_average_only_in"
    if needs_scale and scale is None:
        raise ValueError(
            "activations were normalised by their expected length (expected_average_only_in), and the file does not "
            "hold it: pass scale, the mean length of activations divided by the square root of their width"
        )
    parts.normalisation = "none" if needs_scale else parts.normalisation
    dictionary = _assembled(parts, reads or str(parts.reads), tokens or parts.tokens, mean, scale)
    dictionary.record |= {"layout": layout, "file": str(path), **parts.record}
    if activations is None and model is not None and images is not None:
        activations = _activations(model, images, dictionary)
    if activations is not None:
        _check(dictionary, activations, least_explained)
    return dictionary


def _assembled(parts: _Parts, reads: str, tokens: str, mean: Tensor | None, scale: float | int | None) -> Dictionary:
    W_enc, b_enc, W_dec, b_dec = (parts.tensors[name].float() for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    found = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    axes = {"W_enc": "d_in d_dict", "b_enc": "d_dict", "W_dec": "d_dict d_in", "b_dec": "d_in"}
    if parts.kind == "jump_relu":
        found["threshold"], axes["threshold"] = parts.tensors["threshold"].float(), "d_dict"
    d_in, n = W_enc.shape if W_enc.ndim == 2 else (0, 0)
    sizes = {"d_in": d_in, "d_dict": n}
    fit = all(tuple(found[name].shape) == tuple(sizes[axis] for axis in own.split()) for name, own in axes.items())
    if not fit or not d_in:
        raise ValueError(
            f"expected {', '.join(f'{name} [{own}]' for name, own in axes.items())}, got "
            f"{', '.join(f'{name} {list(tensor.shape)}' for name, tensor in found.items())}"
        )
    shifted = mean is not None or scale is not None
    config = DictionaryConfig(
        parts.kind,  # pyright: ignore[reportArgumentType]
        d_in,
        d_in,
        n,
        reads,
        reads,
        tokens,
        parts.k,
        normalisation="mean_and_scale" if shifted else "none",
    )
    if parts.centre is not None:
        b_enc = b_enc - parts.centre.float() @ W_enc
    if parts.normalisation == "none":
        dictionary: Dictionary = Dictionary(config)
    elif shifted:
        raise ValueError(f"mean and scale go with no other normalisation, and the file says '{parts.normalisation}'")
    else:
        dictionary = TokenNormalised(config, parts.normalisation)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        dictionary.W_enc[:, :n] = W_enc
        dictionary.b_enc[:n] = b_enc
        dictionary.W_dec[:n] = W_dec
        if isinstance(dictionary, TokenNormalised):
            dictionary.W_dec[n] = b_dec  # the direction of the latent that is the token's scale
        else:
            dictionary.b_dec.copy_(b_dec)
        if parts.kind == "jump_relu":
            dictionary.threshold[:n] = found["threshold"].relu()
        for side in ("in", "out"):
            if mean is not None:
                getattr(dictionary, f"{side}_mean").copy_(mean)
            if scale is not None:
                getattr(dictionary, f"{side}_scale").fill_(float(scale))
    return dictionary.requires_grad_(False).eval()


@torch.no_grad()
def _activations(model: HookedViT, images: Tensor, dictionary: Dictionary) -> Tensor:
    dictionary.check_fits(model)
    config = dictionary.config
    _, cache = model.run_with_cache(images, names_filter=[config.reads])
    rows = per_token(cache[config.reads])
    return rows[:, chosen_tokens(model, config.tokens, rows.shape[1])].cpu()


@torch.no_grad()
def _check(dictionary: Dictionary, activations: Tensor, least: float) -> None:
    found = float(explained_variance(activations.float(), dictionary(activations.float())))
    if not found >= least:
        raise ValueError(
            f"the reconstruction explains {found:.2f} of the variance of the given activations, less than {least}: is "
            "it this hook point of this model, with this preprocessing, and is the normalisation (mean, scale, "
            "subtract_b_dec) the one it was trained with?"
        )
    dictionary.record["explained_variance"] = found


def _prisma(path: Path, subtract: bool | None) -> _Parts:
    tensors = _weights(path)
    config = _json(path.parent / "config.json")
    architecture = config.get("architecture", "standard")
    activation = config.get("activation_fn_str", "relu")
    if architecture != "standard" or activation not in ("relu", "topk") or config.get("is_transcoder"):
        what = "a transcoder" if config.get("is_transcoder") else f"{architecture} with {activation}"
        raise ValueError(f"covered of ViT-Prisma are standard autoencoders with relu or topk, got {what}")
    only = "cls" if config.get("cls_token_only") else "patch" if config.get("use_patches_only") else "any"
    reads = config.get("hook_point")
    if reads is None and "hook_point_layer" in config:
        reads = f"blocks.{_single(config['hook_point_layer'])}.{config.get('layer_subtype', 'hook_resid_post')}"
    return _Parts(
        tensors,
        _KINDS[activation],
        (config.get("activation_fn_kwargs") or {}).get("k") if activation == "topk" else None,
        tensors["b_dec"] if subtract is not False else None,
        _known_normalisation(config.get("normalize_activations")),
        reads,
        only,
        {"model_name": config.get("model_name")},
    )


def _saev(path: Path, subtract: bool | None) -> _Parts:
    if not path.is_file():
        raise FileNotFoundError(f"no file '{path}'")
    with path.open("rb") as file:
        line, rest = file.readline(), file.read()
    try:
        header = json.loads(line)
    except ValueError as error:
        raise ValueError(f"'{path}' does not begin with a line of JSON, as saev's files do: {error}") from error
    schema = header.get("schema", 0)
    if schema not in (0, 1, 2):
        raise ValueError(f"'{path}' has saev's schema {schema}: covered are 1, 2 and files from before schemas")
    config = header.get("cfg", header)
    name, k = "Relu", None
    if schema == 1 and header.get("cls") in ("Relu", "TopK", "BatchTopK"):
        name, k = header["cls"], config.get("top_k", 32)
    elif schema and "activation" in config:
        name, k = config["activation"]["cls"], config["activation"].get("params", {}).get("top_k", 32)
    if name not in ("Relu", "TopK", "BatchTopK"):
        raise ValueError(f"covered of saev are the activations Relu, TopK and BatchTopK, got {name}")
    tensors = _torch_tensors(io.BytesIO(rest), path)
    _require(tensors, path)
    # saev's BatchTopK takes the k largest of each token when it is run
    kind = "relu" if name == "Relu" else "topk"
    return _Parts(tensors, kind, None if kind == "relu" else int(k or 32), tensors["b_dec"] if subtract else None)


def _sae_lens(path: Path, subtract: bool | None) -> _Parts:
    config = _json(path / "cfg.json")
    tensors, _ = read_tensors(path / "sae_weights.safetensors")
    _require(tensors, path)
    architecture = config.get("architecture", "standard")
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if architecture == "standard" and activation == "topk":
        architecture, config = "topk", {**config, **(config.get("activation_fn_kwargs") or {})}
    if architecture not in _KINDS or architecture == "relu":
        raise ValueError(f"covered of sae-lens are standard, topk and jumprelu, got '{architecture}'")
    if architecture == "jumprelu" and "threshold" not in tensors:
        tensors["threshold"] = _threshold_of_training(tensors, path)
    if architecture == "topk" and config.get("rescale_acts_by_decoder_norm"):
        # the k largest are chosen by what latents contribute: the decoder's lengths move into the encoder
        lengths = tensors["W_dec"].norm(dim=-1)
        tensors |= {"W_enc": tensors["W_enc"] * lengths, "b_enc": tensors["b_enc"] * lengths}
        tensors["W_dec"] = tensors["W_dec"] / lengths[:, None]
    applies = config.get("apply_b_dec_to_input", True) if subtract is None else subtract
    metadata = config.get("metadata") or {}
    return _Parts(
        tensors,
        _KINDS[architecture],
        int(config["k"]) if architecture == "topk" else None,
        tensors["b_dec"] if applies else None,
        _known_normalisation(config.get("normalize_activations"), "expected_average_only_in"),
        metadata.get("hook_name", config.get("hook_name")),
        record={"model_name": metadata.get("model_name", config.get("model_name"))},
    )


def _threshold_of_training(tensors: dict[str, Tensor], path: Path) -> Tensor:
    """The thresholds of a JumpReLU that sae-lens saved while it was training: it learns their logarithms."""
    if "log_threshold" not in tensors:
        raise ValueError(
            f"'{path / 'sae_weights.safetensors'}' lacks threshold (or log_threshold), which a jumprelu dictionary "
            f"needs: it holds {', '.join(sorted(tensors))}"
        )
    return tensors["log_threshold"].float().exp()


def _known_normalisation(found: Any, *more: str) -> str:
    name = "none" if found in (None, False) else str(found)
    known = ("none", "layer_norm", "constant_norm_rescale", *more)
    if name not in known:
        raise ValueError(f"covered are the normalisations {', '.join(known)}, got '{name}'")
    return name


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no file '{path}', which says how the dictionary was trained")
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"'{path}' is not JSON: {error}") from error


def _weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        tensors = read_tensors(path)[0]
    elif path.is_file():
        tensors = _torch_tensors(path, path)
    else:
        raise FileNotFoundError(f"no file '{path}'")
    _require(tensors, path)
    return tensors


def _torch_tensors(file: Any, path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"'{path}' cannot be read as plain tensors: it is damaged, or holds objects that only code could read, "
            "such as a pickled config. Where you trust it, load it with its own package and save the state dict alone: "
            f"torch.save(sae.state_dict(), 'weights.pt'). ({str(error).splitlines()[0][:120]})"
        ) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"'{path}' holds no state dict: expected tensors by name")
    return found


def _require(tensors: dict[str, Tensor], path: Path) -> None:
    missing = [name for name in ("W_enc", "b_enc", "W_dec", "b_dec") if name not in tensors]
    if missing:
        hint = " (a gated dictionary, which is not covered)" if "b_gate" in tensors else ""
        raise ValueError(f"'{path}' lacks {', '.join(missing)}: it holds {', '.join(sorted(tensors))}{hint}")

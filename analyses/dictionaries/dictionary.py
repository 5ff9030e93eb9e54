"""A sparse dictionary: sparse autoencoder or transcoder, its five kinds, and what it was made for."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from analyses.dictionaries.choosing import above_threshold, largest
from analyses.dictionaries.files import write_tensors
from hooked_vit import HookedViT
from hooked_vit.splicing import activation_width
from hooked_vit.token_layout import TOKEN_GROUPS

__all__ = ["Dictionary", "DictionaryConfig", "Kind", "Normalisation"]

Kind = Literal["relu", "topk", "batch_topk", "jump_relu", "matryoshka"]
Normalisation = Literal["none", "mean_and_scale"]
_WITH_K = ("topk", "batch_topk", "matryoshka")
_ONE_THRESHOLD = ("batch_topk", "matryoshka")


@dataclass(frozen=True)
class DictionaryConfig:
    """What a dictionary is and which activations it was made for.

    Attributes:
        kind: Which latents are active. `"relu"`: those above zero (Bricken et al. 2023). `"topk"`: the k largest of a
            token (Gao et al. 2024). `"batch_topk"`: those above one threshold, which training sets so that k are
            active on average (Bussmann et al. 2024). `"jump_relu"`: those above a learned threshold of their own
            (Rajamanoharan et al. 2024). `"matryoshka"`: as `"batch_topk"`, with prefixes of the dictionary that each
            reconstruct (Bussmann et al. 2025).
        d_in: Width of the activation that is read; heads count flattened, `n_heads · d_head`.
        d_out: Width of the activation that is reconstructed.
        d_dict: Number of latents.
        reads: Full name of the hook point that is read, such as `"blocks.5.hook_resid_post"`.
        writes: Full name of the hook point that is reconstructed; another one than `reads` in a transcoder.
        tokens: The tokens it was made for, a group of `hooked_vit.interventions`: `"any"`, `"cls"`, `"patch"`, ...
        k: Active latents per token, for the kinds that fix it.
        group_sizes: The sizes of a matryoshka's prefixes; the last is `d_dict`.
        normalisation: `"none"`, or `"mean_and_scale"`: `(x - in_mean) / in_scale` is encoded, and what the decoder
            gives is multiplied by `out_scale` and added to `out_mean`.

    Raises:
        ValueError: If the values do not fit together.

    >>> DictionaryConfig("topk", 24, 24, 96, "hook_tokens", "hook_tokens", k=4).is_transcoder
    False
    """

    kind: Kind
    d_in: int
    d_out: int
    d_dict: int
    reads: str
    writes: str
    tokens: str = "any"
    k: int | None = None
    group_sizes: tuple[int, ...] = ()
    normalisation: Normalisation = "none"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind is one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.normalisation not in get_args(Normalisation):
            raise ValueError(
                f"normalisation is one of {', '.join(get_args(Normalisation))}, got {self.normalisation!r}"
            )
        if self.tokens not in TOKEN_GROUPS:
            raise ValueError(f"tokens is one of {', '.join(TOKEN_GROUPS)}, got {self.tokens!r}")
        if min(self.d_in, self.d_out, self.d_dict) < 1:
            raise ValueError(f"expected positive widths, got {self.d_in}, {self.d_out} and {self.d_dict} latents")
        if (self.kind in _WITH_K) != (self.k is not None):
            raise ValueError(f"k is for the kinds {', '.join(_WITH_K)}, got kind={self.kind!r} and k={self.k}")
        if self.k is not None and not 1 <= self.k <= self.d_dict:
            raise ValueError(f"expected k from 1 to the number of latents, {self.d_dict}, got {self.k}")
        sizes = self.group_sizes
        if (self.kind == "matryoshka") != bool(sizes):
            raise ValueError(f"group_sizes is for the kind matryoshka, got kind={self.kind!r} and {sizes}")
        if sizes and (sizes[-1] != self.d_dict or sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes))):
            raise ValueError(f"expected group_sizes that increase to the number of latents, {self.d_dict}, got {sizes}")

    @property
    def is_transcoder(self) -> bool:
        """Whether another activation is reconstructed than the one that is read."""
        return self.reads != self.writes

    @property
    def point(self) -> str | tuple[str, str]:
        """Where it belongs in a model: the key for `model.spliced`."""
        return (self.reads, self.writes) if self.is_transcoder else self.reads

    def to_json(self) -> str:
        """As JSON, as files hold it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "DictionaryConfig":
        """From JSON.

        Raises:
            ValueError: If it is something else, or its values do not fit together.
        """
        try:
            values = json.loads(text)
            return cls(**{**values, "group_sizes": tuple(values.get("group_sizes", ()))})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"expected the configuration of a dictionary, got {text[:80]!r}: {error}") from error


class Dictionary(nn.Module):
    """A sparse dictionary, `x ≈ decode(encode(x))`.

        latents = active((x - in_mean) / in_scale · W_enc + b_enc)
        decode(latents) = (latents · W_dec + b_dec) · out_scale + out_mean

    A row of `W_dec` is a latent's direction, as a row of `W_out` is a neuron's value vector. Built from a config alone,
    its weights are zeros: train one (`train_dictionary`), load one (`load_dictionary`) or draw one
    (`random_dictionary`).

    Attributes:
        config: What it is and which activations it was made for.
        record: How it was made, in plain values.
        W_enc: [d_in d_dict].
        b_enc: [d_dict].
        W_dec: [d_dict d_out].
        b_dec: [d_out].
        threshold: One number for `batch_topk` and `matryoshka`, one per latent for `jump_relu`, else absent.
        in_mean, in_scale, out_mean, out_scale: The normalisation: zeros and ones if there is none.

    >>> dictionary = Dictionary(DictionaryConfig("topk", 24, 24, 96, "hook_tokens", "hook_tokens", k=4))
    >>> latents = dictionary.encode(torch.randn(2, 13, 24))
    >>> latents.shape, dictionary.decode(latents).shape
    (torch.Size([2, 13, 96]), torch.Size([2, 13, 24]))
    """

    in_mean: Tensor
    in_scale: Tensor
    out_mean: Tensor
    out_scale: Tensor

    def __init__(self, config: DictionaryConfig, record: Mapping[str, Any] | None = None):
        super().__init__()
        self.config, self.record = config, dict(record or {})
        self.W_enc = nn.Parameter(torch.zeros(config.d_in, config.d_dict))
        self.b_enc = nn.Parameter(torch.zeros(config.d_dict))
        self.W_dec = nn.Parameter(torch.zeros(config.d_dict, config.d_out))
        self.b_dec = nn.Parameter(torch.zeros(config.d_out))
        if config.kind == "jump_relu":
            self.threshold = nn.Parameter(torch.zeros(config.d_dict))
        elif config.kind in _ONE_THRESHOLD:
            self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("in_mean", torch.zeros(config.d_in))
        self.register_buffer("in_scale", torch.ones(()))
        self.register_buffer("out_mean", torch.zeros(config.d_out))
        self.register_buffer("out_scale", torch.ones(()))

    @property
    def tokens(self) -> str:
        """The tokens that go through it where it is spliced in."""
        return self.config.tokens

    def check_width(self, x: Float[Tensor, "*axes _"]) -> None:
        """Raise a `ValueError` if the activation has another width than this dictionary reads."""
        if x.shape[-1] != self.config.d_in:
            raise ValueError(
                f"this dictionary reads '{self.config.reads}' of width {self.config.d_in}, got an activation of shape "
                f"{tuple(x.shape)}"
            )

    def pre_activations(self, x: Float[Tensor, "*axes d_in"]) -> Float[Tensor, "*axes d_dict"]:
        """What the latents are before some are set to zero.

        Raises:
            ValueError: If the activation has another width.
        """
        self.check_width(x)
        x = x.to(self.W_enc.dtype)
        if self.config.normalisation != "none":
            x = (x - self.in_mean) / self.in_scale
        return x @ self.W_enc + self.b_enc

    def encode(self, x: Float[Tensor, "*axes d_in"]) -> Float[Tensor, "*axes d_dict"]:
        """The latents of activations, each token by itself: zeros where they are not active.

        Raises:
            ValueError: If the activation has another width.
        """
        pre = self.pre_activations(x)
        if self.config.kind == "relu":
            return pre.relu()
        if self.config.kind == "topk":
            assert self.config.k is not None
            return largest(pre, self.config.k)
        return above_threshold(pre, self.threshold)

    def decode(self, latents: Float[Tensor, "*axes d_dict"]) -> Float[Tensor, "*axes d_out"]:
        """The activation that latents stand for.

        Raises:
            ValueError: If there is another number of latents.
        """
        if latents.shape[-1] != self.config.d_dict:
            raise ValueError(f"this dictionary has {self.config.d_dict} latents, got shape {tuple(latents.shape)}")
        out = latents @ self.W_dec + self.b_dec
        if self.config.normalisation != "none":
            out = out * self.out_scale + self.out_mean
        return out

    def forward(self, x: Float[Tensor, "*axes d_in"]) -> Float[Tensor, "*axes d_out"]:
        """The reconstruction, `decode(encode(x))`."""
        return self.decode(self.encode(x))

    @property
    def directions(self) -> Float[Tensor, "d_dict d_out"]:
        """What one unit of each latent adds to the activation: `W_dec` in the activation's own units."""
        return self.W_dec * self.out_scale

    def check_fits(self, model: HookedViT) -> None:
        """Check that a model has the activations that the dictionary was made for.

        Raises:
            ValueError: If it lacks a hook point, or one has another width.
        """
        for name, width in ((self.config.reads, self.config.d_in), (self.config.writes, self.config.d_out)):
            (found,) = model.hook_names([name])
            if activation_width(found, model) != width:
                raise ValueError(
                    f"this dictionary is for '{name}' of width {width}, in this model it has width "
                    f"{activation_width(found, model)}: it was made for another model"
                )

    @torch.no_grad()
    def folded(self) -> "Dictionary":
        """An equal dictionary without normalisation: mean and scale are folded into its weights.

        >>> config = DictionaryConfig("relu", 2, 2, 2, "hook_tokens", "hook_tokens", normalisation="mean_and_scale")
        >>> dictionary = Dictionary(config)
        >>> _ = dictionary.W_enc.data.fill_(1), dictionary.in_scale.fill_(2)
        >>> dictionary.folded().W_enc[0]
        tensor([0.5000, 0.5000], grad_fn=<SelectBackward0>)
        """
        config = DictionaryConfig(**{**asdict(self.config), "normalisation": "none"})
        plain = Dictionary(config, self.record).to(self.W_enc)
        plain.W_enc.copy_(self.W_enc / self.in_scale)
        plain.b_enc.copy_(self.b_enc - (self.in_mean / self.in_scale) @ self.W_enc)
        plain.W_dec.copy_(self.directions)
        plain.b_dec.copy_(self.b_dec * self.out_scale + self.out_mean)
        if hasattr(self, "threshold"):
            plain.threshold.copy_(self.threshold)
        return plain

    def save(self, path: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a `.safetensors` file that `load_dictionary` reads, with config and record in its metadata.

        Args:
            path: The file; it is replaced whole.
            dtype: Of the stored tensors, such as `torch.float16` for half the size; their own by default.

        Raises:
            ValueError: If the file is called otherwise.
        """
        tensors = {name: tensor.to(dtype or tensor.dtype) for name, tensor in self.state_dict().items()}
        write_tensors(path, tensors, {"dictionary": self.config.to_json(), "record": json.dumps(self.record)})

"""Class embedding space: the unembedding, the direction of each class in the stream, projection onto the classes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hooked_vit.class_names import find_class
from hooked_vit.components.norm import Norm
from hooked_vit.components.pool import AttentionPool
from hooked_vit.components.stored_weight import stored_weight
from hooked_vit.config import HookedViTConfig

# How many numbers `class_logits` holds in memory at a time besides its result.
CHUNK_ELEMENTS = 2**25


def describe_indices(indices: Tensor) -> str:
    """The range of some indices, or the dtype of what cannot be indices, for an error.

    >>> describe_indices(torch.tensor([3, 100, 7])), describe_indices(torch.tensor([0.5]))
    ('3 to 100', 'torch.float32')
    """
    if indices.is_floating_point() or indices.dtype == torch.bool or not indices.numel():
        return str(indices.dtype) if indices.numel() else "none"
    low, high = int(indices.min()), int(indices.max())
    return str(low) if low == high else f"{low} to {high}"


def require_several_classes(n_classes: int, reader: str) -> None:
    """Check that there is more than one class, for what compares classes: ranks, accuracy, softmax.

    Args:
        n_classes: The number of classes, or of logits.
        reader: What compares them, for the message.

    Raises:
        ValueError: If there is one class. Its rank would always be 0 and its probability 1, whatever the logit.

    >>> require_several_classes(1, "the rank of a class")
    Traceback (most recent call last):
    ValueError: the rank of a class needs at least two classes, and there is only one: ...
    """
    if n_classes == 1:
        raise ValueError(
            f"{reader} needs at least two classes, and there is only one: use `model.with_two_classes()`, the same "
            "model with the logits [0, logit], whose softmax is the sigmoid of the logit"
        )


class ClassSpace(nn.Module):
    """The classes of a HookedViT."""

    cfg: HookedViTConfig
    class_names: Sequence[str]
    ln_final: Norm | None
    ln_pooled: Norm | None
    attn_pool: AttentionPool | None
    head: nn.Linear | None
    head_dist: nn.Linear | None

    @property
    def W_U(self) -> Float[Tensor, "d_model n_classes"]:
        """Class embeddings as columns: a view of the head's weight; in a distilled model, the mean of both heads.

        Of a head on CLS and the mean of the patches, the sum of its two halves: what it reads of a vector that is at
        every token. `class_half` gives each half.

        Raises:
            ValueError: If the model has no head.
        """
        head = self.require_classes()
        weight = stored_weight(head)
        if self.cfg.pool == "cls_and_mean":
            return weight.unflatten(1, (2, -1)).sum(dim=1).T
        return weight.T if self.head_dist is None else (weight + stored_weight(self.head_dist)).T / 2

    @property
    def b_U(self) -> Float[Tensor, "n_classes"]:
        """Bias of the head, zeros if it has none; in a distilled model, the mean of both heads."""
        head = self.require_classes()
        if head.bias is None:
            return head.weight.new_zeros(self.cfg.n_classes)
        return head.bias if self.head_dist is None else (head.bias + self.head_dist.bias) / 2

    def require_classes(self) -> nn.Linear:
        """The head of a model that has classes.

        Raises:
            ValueError: If the model has none.
        """
        if self.head is None:
            raise ValueError(
                "this model has no classes (n_classes is 0): add them with "
                "`model.with_class_embeddings(W, class_names=[...])`, W of shape [d_model n_classes]: "
                "text embeddings for zero-shot classes, a linear probe, or another head"
            )
        return self.head

    def require_several_classes(self, reader: str) -> None:
        """Check that the model has more than one class.

        Args:
            reader: What compares classes, for the message.

        Raises:
            ValueError: If the model has no classes, or a single logit; the message says what to do.
        """
        self.require_classes()
        require_several_classes(self.cfg.n_classes, reader)

    def class_index(self, name: str | int) -> int:
        """Index of a class given by its name (or index, which is checked).

        Raises:
            ValueError: If there is no such class, or several; similar names are suggested.
        """
        self.require_classes()
        if isinstance(name, str):
            return find_class(name, self.class_names)
        if not 0 <= name < self.cfg.n_classes:
            raise ValueError(f"class index {name} is out of range: the model has classes 0 to {self.cfg.n_classes - 1}")
        return name

    def class_indices(
        self,
        classes: str | int | Int[Tensor, "batch"] | Int[Tensor, "batch chosen"],
        batch: int,
        several: bool = False,
    ) -> Int[Tensor, "batch"] | Int[Tensor, "batch chosen"]:
        """The classes of each image of a batch, checked and on the model's device.

        Args:
            classes: One class for all images, by name or index; or one index per image.
            batch: The number of images.
            several: Whether `classes` may also be several indices per image; the result is then always
                [batch chosen].

        Raises:
            ValueError: If the model has no classes, or the indices are not class indices for each image.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> model.class_indices("dog", 2), model.class_indices(torch.tensor([3, 14]), 2, several=True)
        (tensor([1, 1]), tensor([[ 3], [14]]))
        """
        self.require_classes()
        if isinstance(classes, str | int):
            classes = torch.full((batch,), self.class_index(classes))
        if classes.ndim not in ((1, 2) if several else (1,)) or len(classes) != batch or 0 in classes.shape:
            expected = f"[{batch}], or several, [{batch} chosen]" if several else f"[{batch}]"
            raise ValueError(
                f"expected a class index for each image, {expected}, got shape {tuple(classes.shape)}: for one class "
                "of all images, pass its index or name"
            )
        if classes.is_floating_point() or classes.min() < 0 or classes.max() >= self.cfg.n_classes:
            raise ValueError(
                f"expected class indices from 0 to {self.cfg.n_classes - 1}, got {describe_indices(classes)}: "
                "`model.class_index(name)` gives the index of a name"
            )
        classes = classes.to(self.cfg.device)
        return classes[:, None] if several and classes.ndim == 1 else classes

    def to_single_token(self, name: str) -> int:
        """`class_index`, under the name that TransformerLens's cache uses."""
        return self.class_index(name)

    def require_linear_readout(self) -> None:
        """Check that the head reads the stream linearly, but for the scales of norms.

        Raises:
            ValueError: If it reads a maximum over tokens, or an attention pool.
        """
        if self.cfg.pool not in ("cls", "avg", "cls_and_dist", "cls_and_mean"):
            raise ValueError(
                f"a head after {self.cfg.pool} pooling does not read the stream linearly, so no class has a "
                "direction: use `class_logits`, or gradients (`run_with_gradients`)"
            )

    def tokens_to_residual_directions(self, tokens: str | int | Int[Tensor, "*axes"]) -> Float[Tensor, "*axes d_model"]:
        """The direction of each class in the stream after the final norm has centred and scaled it.

        A head on CLS and the mean of the patches has two: this is their sum, and `class_half` gives each.

        It includes the norm's weight, so `cache.logit_attrs` is right without folded weights. The dot product with
        the whole stream at the readout is the logit except for the constant `ln_final.bias @ W_U + b_U`.

        Raises:
            ValueError: If the class is unknown, or the head does not read the stream linearly.
        """
        self.require_linear_readout()
        if self.ln_pooled is not None:
            raise ValueError(
                "this model norms what it has pooled once more, so the direction of a class depends on the image: use "
                "`analyses.attribution.logit_attribution`, which freezes both scales, or `class_logits`"
            )
        index = torch.as_tensor(self.class_index(tokens) if isinstance(tokens, str | int) else tokens)
        directions = self.W_U.T[index.to(self.W_U.device)]
        weight = None if self.ln_final is None else self.ln_final.weight
        return directions if weight is None else directions * weight

    def class_logits(
        self, x: Float[Tensor, "*axes d_model"], normalise: bool = True, bias: bool = True
    ) -> Float[Tensor, "*axes n_classes"]:
        """Project vectors of the residual stream onto the classes: `norm(x) W_U + b_U`.

        The norm is the model's final norm, with the statistics of the vectors themselves. With an attention pool, each
        vector is pooled as if it were the only token. The two heads of a distilled model are averaged. A head on CLS
        and the mean of the patches reads each vector as both, `norm(x) (W_cls + W_mean) + b_U`; to project tokens with
        one half alone, use `model.class_half("cls")` or `class_half("mean")` in the place of the model.

        Args:
            x: Any vectors of width `d_model`.
            normalise: Whether to apply the final norm; off for parameters, such as value vectors.
            bias: Whether to add `b_U`.

        Raises:
            ValueError: If the model has no classes, or the last axis is not `d_model`.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> logits, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64), names_filter=("resid_post", -1))
        >>> torch.allclose(model.class_logits(cache["resid_post", -1])[:, 0], logits, atol=1e-5)
        True
        """
        self.require_classes()
        if x.shape[-1:] != (self.cfg.d_model,):
            raise ValueError(f"expected vectors of width d_model = {self.cfg.d_model}, got shape {tuple(x.shape)}")
        weight, b_U = self.W_U.T, self.b_U if bias else None
        rows, shape = x.reshape(-1, self.cfg.d_model), (*x.shape[:-1], self.cfg.n_classes)
        size = max(1, CHUNK_ELEMENTS // max(self.cfg.d_model, self.cfg.n_classes, self.cfg.pool_d_mlp))
        if len(rows) <= size:
            return F.linear(self._head_input(rows, normalise), weight, b_U).reshape(shape)
        logits = [F.linear(self._head_input(chunk, normalise), weight, b_U) for chunk in rows.split(size)]
        return torch.cat(logits).reshape(shape)

    def unembed(self, x: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes n_classes"]:
        """As TransformerLens's: the logits of vectors that have passed the final norm, `class_logits` without its norm.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> x = torch.randn(2, 65, 128)
        >>> torch.allclose(model.unembed(model.ln_final(x)), model.class_logits(x), atol=1e-5)
        True
        """
        return self.class_logits(x, normalise=False)

    def _head_input(self, rows: Tensor, normalise: bool) -> Tensor:
        norm = self.ln_final if normalise else None
        if norm is not None and not self.cfg.norm_after_pool:
            rows = norm.fused(rows)
        if self.attn_pool is not None:
            rows = self.attn_pool.pool_alone(rows)
        if norm is not None and self.cfg.norm_after_pool:
            rows = norm.fused(rows)
        return self.ln_pooled.fused(rows) if normalise and self.ln_pooled is not None else rows

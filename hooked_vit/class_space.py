"""Class embedding space: the unembedding, a class's direction in the stream, projection onto the classes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hooked_vit.class_names import find_class
from hooked_vit.components.norm import Norm
from hooked_vit.components.pool import AttentionPool
from hooked_vit.config import HookedViTConfig

# Rows of `class_logits` are projected so many numbers at a time, to bound what is held besides the result.
CHUNK_ELEMENTS = 2**25


class ClassSpace(nn.Module):
    """What a HookedViT knows of its classes."""

    cfg: HookedViTConfig
    class_names: Sequence[str]
    ln_final: Norm | None
    attn_pool: AttentionPool | None
    head: nn.Linear | None
    head_dist: nn.Linear | None

    @property
    def W_U(self) -> Float[Tensor, "d_model n_classes"]:
        """Class embeddings, as columns: a view of the head's weight; of a distilled model, the mean of both heads.

        Raises:
            ValueError: If the model has no head.
        """
        head = self._require_head()
        return head.weight.T if self.head_dist is None else (head.weight + self.head_dist.weight).T / 2

    @property
    def b_U(self) -> Float[Tensor, "n_classes"]:
        """Bias of the head, zeros where it has none; of a distilled model, the mean of both heads."""
        head = self._require_head()
        if head.bias is None:
            return head.weight.new_zeros(self.cfg.n_classes)
        return head.bias if self.head_dist is None else (head.bias + self.head_dist.bias) / 2

    def _require_head(self) -> nn.Linear:
        if self.head is None:
            raise ValueError(
                "this model has no classes (n_classes is 0): give it some with "
                "`model.with_class_embeddings(W, class_names=[...])`, W of shape [d_model n_classes]: "
                "text embeddings for zero-shot classes, a linear probe, or another head"
            )
        return self.head

    def class_index(self, name: str | int) -> int:
        """Index of a class given by its name (or index, which is checked).

        Raises:
            ValueError: If there is no such class, or several; near names are suggested.
        """
        if isinstance(name, str):
            return find_class(name, self.class_names)
        if not 0 <= name < self.cfg.n_classes:
            raise ValueError(f"class index {name} is out of range: the model has classes 0 to {self.cfg.n_classes - 1}")
        return name

    def to_single_token(self, name: str) -> int:
        """`class_index` under the name that TransformerLens's cache calls it by."""
        return self.class_index(name)

    def tokens_to_residual_directions(self, tokens: str | int | Int[Tensor, "*axes"]) -> Float[Tensor, "*axes d_model"]:
        """The direction of each class in the stream that the final norm has centred and scaled.

        The norm's weight is in it, so that `cache.logit_attrs` is right without folded weights. The dot product
        with a whole stream at the readout is the logit but for the constant `ln_final.bias @ W_U + b_U`.

        Raises:
            ValueError: If the class is unknown, or the head does not read the stream linearly.
        """
        if self.cfg.pool not in ("cls", "avg", "cls_and_dist"):
            raise ValueError(
                f"a head behind {self.cfg.pool} pooling does not read the stream linearly, so no direction "
                "stands for a class: use `class_logits`, or gradients (`run_with_gradients`)"
            )
        index = torch.as_tensor(self.class_index(tokens) if isinstance(tokens, str | int) else tokens)
        directions = self.W_U.T[index.to(self.W_U.device)]
        weight = None if self.ln_final is None else self.ln_final.weight
        return directions if weight is None else directions * weight

    def class_logits(
        self, x: Float[Tensor, "*axes d_model"], normalise: bool = True, bias: bool = True
    ) -> Float[Tensor, "*axes n_classes"]:
        """Project vectors of the residual stream onto the classes: `norm(x) W_U + b_U`.

        The norm is the model's last one, with the vectors' own statistics. Behind an attention pool, each vector
        is passed as the pool's only key. A distilled model's two heads are averaged.

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
        self._require_head()
        if x.shape[-1:] != (self.cfg.d_model,):
            raise ValueError(f"expected vectors of width d_model = {self.cfg.d_model}, got shape {tuple(x.shape)}")
        weight, b_U = self.W_U.T, self.b_U if bias else None
        rows, shape = x.reshape(-1, self.cfg.d_model), (*x.shape[:-1], self.cfg.n_classes)
        size = max(1, CHUNK_ELEMENTS // max(self.cfg.d_model, self.cfg.n_classes, self.cfg.pool_d_mlp))
        if len(rows) <= size:
            return F.linear(self._head_input(rows, normalise), weight, b_U).reshape(shape)
        logits = [F.linear(self._head_input(chunk, normalise), weight, b_U) for chunk in rows.split(size)]
        return torch.cat(logits).reshape(shape)

    def _head_input(self, rows: Tensor, normalise: bool) -> Tensor:
        norm = self.ln_final if normalise else None
        if norm is not None and not self.cfg.norm_after_pool:
            rows = norm.fused(rows)
        if self.attn_pool is not None:
            rows = self.attn_pool.pool_alone(rows)
        return norm.fused(rows) if norm is not None and self.cfg.norm_after_pool else rows

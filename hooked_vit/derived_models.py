"""Models with other classes, added registers or folded weights that share the rest with the model they come from."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooked_vit.class_names import ClassNames, numbered_class_names
from hooked_vit.class_space import ClassSpace
from hooked_vit.components.stored_weight import stored_weight
from hooked_vit.config import HookedViTConfig
from hooked_vit.folding import fold
from hooked_vit.new_head import HeadPool, new_head

Model = TypeVar("Model", bound="DerivedModels")


class DerivedModels(ClassSpace):
    """Methods of a HookedViT that make another model; the model itself is left unchanged."""

    embed: Any  # an Embed

    def with_weights(
        self: Model,
        weights: Mapping[str, Tensor],
        cfg: HookedViTConfig | None = None,
        class_names: ClassNames | None = None,
    ) -> Model:
        """A model with this one's preprocessing and the given weights."""
        raise NotImplementedError

    def with_class_embeddings(
        self: Model,
        W: Float[Tensor, "d_read n_classes"],
        b: Float[Tensor, "n_classes"] | None = None,
        class_names: ClassNames | None = None,
        *,
        pool: HeadPool | None = None,
    ) -> Model:
        """This model with another unembedding; all other weights are shared, and this model is left unchanged.

        For zero-shot classes of a CLIP model, multiply its projection head by the text embeddings:
        `model.with_class_embeddings(model.W_U @ text_embeddings.T, class_names=prompts)`.

        Args:
            W: One class embedding per column: text embeddings, the weights of a probe, another head. Their width is
                `d_model`; or twice that, for a head on CLS and the mean of the patches side by side, as DINOv2's
                linear heads are.
            b: One bias per class; none by default.
            class_names: One name per class, as a list or a dict by class index.
            pool: What the head reads, after the final norm: `"cls"`, `"avg"` (the mean of the patches), or
                `"cls_and_mean"`. By default what this model's head reads, or both if W has both.

        Raises:
            ValueError: If the shapes or class names do not fit, or the model has no such tokens.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> two = model.with_class_embeddings(model.W_U[:, :2], class_names=["monkey", "dog"])
        >>> two(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 2])
        """
        cfg, head = new_head(self.cfg, W, b, pool)
        left_out = ("head.", "head_dist.") if cfg.pool == "attention" else ("head.", "head_dist.", "attn_pool.")
        weights = {name: weight for name, weight in self._tensors().items() if not name.startswith(left_out)}
        if class_names is None:
            class_names = numbered_class_names(cfg.n_classes)
        return self.with_weights({**weights, **head}, cfg, class_names)

    def class_half(self: Model, half: Literal["cls", "mean"]) -> Model:
        """A model with one half of a head on CLS and the mean of the patches: what CLS, or the patches, say.

        The logits of the two halves sum to this model's logits; each has half of its bias. Every analysis takes a half
        as a model: `project(model.class_half("mean"), cache)` reads patches as the head reads them. All other weights
        are shared.

        Args:
            half: `"cls"`, or `"mean"` for the patches.

        Raises:
            ValueError: If the head is of another kind.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> both, images = model.with_class_embeddings(torch.randn(256, 5)), torch.randn(2, 3, 64, 64)
        >>> halves = both.class_half("cls")(images) + both.class_half("mean")(images)
        >>> torch.allclose(halves, both(images), atol=1e-3)
        True
        """
        head = self.require_classes()
        if self.cfg.pool != "cls_and_mean":
            raise ValueError(
                f"only a head on CLS and the mean of the patches has halves, this model's pooling is {self.cfg.pool!r}"
            )
        if half not in ("cls", "mean"):
            raise ValueError(f"half is 'cls' or 'mean', got {half!r}")
        W_cls, W_mean = stored_weight(head).T.chunk(2)
        bias = None if head.bias is None else head.bias / 2
        chosen: tuple[Tensor, HeadPool] = (W_cls, "cls") if half == "cls" else (W_mean, "avg")
        return self.with_class_embeddings(chosen[0], bias, self.class_names, pool=chosen[1])

    def with_two_classes(self: Model, class_names: Sequence[str] = ("negative", "positive")) -> Model:
        """This model with a single logit turned into two classes with the logits [0, logit].

        The softmax of the two is the sigmoid of the logit, so ranks, probabilities, cross-entropy and everything else
        that compares classes have a meaning. All other weights are shared, and this model is left unchanged.

        Args:
            class_names: The name of the class with logit 0, and of the other one.

        Raises:
            ValueError: If the model has another number of classes than one.

        >>> one = HookedViT.from_pretrained("emoji-vit").with_class_embeddings(torch.randn(128, 1))
        >>> two, images = one.with_two_classes(["no dog", "dog"]), torch.zeros(2, 3, 64, 64)
        >>> torch.allclose(two(images).softmax(-1)[:, 1], one(images)[:, 0].sigmoid())
        True
        """
        self.require_classes()
        if self.cfg.n_classes != 1:
            raise ValueError(f"with_two_classes splits a single logit, this model has {self.cfg.n_classes} classes")
        weights = self._tensors()
        for name in weights:
            if name.startswith(("head.", "head_dist.")):
                logit = weights[name].detach()
                weights[name] = nn.Parameter(torch.cat([torch.zeros_like(logit), logit]))
        return self.with_weights(weights, dataclasses.replace(self.cfg, n_classes=2), class_names)

    def with_registers(self: Model, n: int = 1) -> Model:
        """This model with `n` register tokens added after the trained prefix tokens; all weights are shared.

        A register starts as zeros, without a position (with a norm before the first block: as that norm of zeros). It
        takes part in attention, and no head reads it, unless the head pools prefix tokens too. `token_layout` counts
        it among the registers. By itself it hardly matters: `hooked_vit.interventions.move_neurons` gives it what
        outlier patches hold (Jiang et al. 2025, "Vision Transformers Don't Need Trained Registers").

        Args:
            n: Number of registers.

        Raises:
            ValueError: If `n` is less than 1.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> more = model.with_registers(2)
        >>> more.token_layout.token_types[:4], more.token_layout.registers
        (('cls', 'register', 'register', 'patch'), slice(1, 3, None))
        >>> more.W_pos.data_ptr() == model.W_pos.data_ptr()
        True
        """
        if n < 1:
            raise ValueError(f"expected at least one register to add, got {n}: the model itself has none added")
        return self.with_weights(
            self._tensors(), dataclasses.replace(self.cfg, n_added_registers=self.cfg.n_added_registers + n)
        )

    def fold_layer_norm(self: Model) -> Model:
        """This model with the weights of its pre-norms folded into the matrices that read them; the logits are equal
        to 1e-5.

        The norms before attention, MLPs and the head are left with weight one and bias zero. Norms whose output is
        added to the stream (`ln_pre`, post-norms) and norms inside a sub-layer have no single reader and are kept.
        Folding changes `W_Q`, `W_K`, `W_V`, `W_in`, `W_gate` and `W_U`, and so every projection of parameters;
        nothing is folded by default.

        If a block has several attentions and MLPs side by side (`cfg.n_parallel`), they then read the same and become
        one attention with the heads of all, in order, and one MLP with the neurons of all, which write LayerScale
        included.

        Raises:
            ValueError: If attentions or MLPs that are side by side have norms inside.
        """
        cfg, weights = fold(self.cfg, self._tensors())
        return self.with_weights(weights, cfg)

    def _statistics(self) -> dict[str, Tensor]:
        return {} if self.embed.stem is None else self.embed.stem.statistics("embed.stem.")

    def _tensors(self) -> dict[str, Tensor]:
        """The parameters by name, for another model to share."""
        return {**self._statistics(), **dict(self.named_parameters())}

"""A port held against the timm module it came from."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooked_vit.model import HookedViT


@dataclass(frozen=True)
class Verification:
    """How far a port's logits are from timm's, and where the difference arises.

    `difference` is the largest absolute difference of logits, at `image` and `class_index`; `relative` is it over the
    largest absolute logit. `stages` holds the same relative measure for the stream after each block
    (`"blocks.3"`) and for the logits, in the order of the forward pass.
    """

    difference: float
    relative: float
    image: int
    class_index: int
    stages: dict[str, float]

    @property
    def bitwise(self) -> bool:
        """Whether every logit is equal to the last bit."""
        return self.difference == 0

    @property
    def first_difference(self) -> str | None:
        """The first stage at which the two differ at all."""
        return next((stage for stage, value in self.stages.items() if value != 0), None)

    def __str__(self) -> str:
        if self.bitwise:
            return "logits are bitwise equal to timm's"
        return (
            f"largest difference of logits {self.difference:.2e} ({self.relative:.1e} of the largest logit) "
            f"at image {self.image}, class {self.class_index}; the streams first differ after {self.first_difference}"
        )


@torch.no_grad()
def verify(
    model: HookedViT, timm_module: nn.Module, images: Float[Tensor, "batch channel height width"]
) -> Verification:
    """Run both on the same images, in evaluation mode, and compare.

    Fused and plain attention differ by up to 1e-6 of the largest logit; for a bitwise comparison switch both to plain:
    `model.fused_attention = False`, and `timm.layers.set_fused_attn(False)` before the module is made.

    Raises:
        ValueError: If the two do not give logits of the same shape.
    """
    streams: dict[str, Tensor] = {}
    with _evaluating(timm_module), ExitStack() as hooks:
        for index, block in enumerate(timm_module.get_submodule("blocks").children()):
            keep = _keeper(streams, f"blocks.{index}")
            hooks.callback(block.register_forward_hook(keep).remove)
        theirs = timm_module(images)
    names = [f"{stage}.hook_resid_post" for stage in streams]
    ours, cache = model.run_with_cache(images, names_filter=names)
    if ours.shape != theirs.shape:
        raise ValueError(f"the port gives {tuple(ours.shape)} logits, the timm module {tuple(theirs.shape)}")
    stages = {stage: _relative(cache[f"{stage}.hook_resid_post"], stream) for stage, stream in streams.items()}
    stages["logits"] = _relative(ours, theirs)
    differences = (ours - theirs).abs()
    image, class_index = divmod(int(differences.argmax()), ours.shape[1])
    return Verification(float(differences.max()), stages["logits"], image, class_index, stages)


def _keeper(streams: dict[str, Tensor], stage: str):
    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        streams[stage] = output

    return keep


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    was_training = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in was_training:
            m.training = training

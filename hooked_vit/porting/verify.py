"""Compare a port with the module it was made from."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooked_vit.porting.sources import source_of
from hooked_vit.running import Running
from hooked_vit.token_layout import KeptTokens


@dataclass(frozen=True)
class Verification:
    """How far a port's logits are from the original module's, and where the difference arises.

    Attributes:
        difference: The largest absolute difference of logits.
        relative: That difference divided by the largest absolute logit.
        image: The image with the largest difference.
        class_index: The class with the largest difference.
        stages: The same relative measure for the stream after each block (`"blocks.3"`) and for the logits, in the
            order of the forward pass.
        source: Whose module it was: `"timm's"`, `"transformers'"` or `"open_clip's"`.
    """

    difference: float
    relative: float
    image: int
    class_index: int
    stages: dict[str, float]
    source: str = "timm's"

    @property
    def bitwise(self) -> bool:
        """Whether all logits are bitwise equal."""
        return self.difference == 0

    @property
    def first_difference(self) -> str | None:
        """The first stage at which the two models differ at all."""
        return next((stage for stage, value in self.stages.items() if value != 0), None)

    def __str__(self) -> str:
        if self.bitwise:
            return f"logits are bitwise equal to {self.source}"
        return (
            f"largest difference of logits {self.difference:.2e} ({self.relative:.1e} of the largest logit) "
            f"at image {self.image}, class {self.class_index}; the streams first differ after {self.first_difference}"
        )


@torch.no_grad()
def verify(
    model: Running,
    module: nn.Module,
    images: Float[Tensor, "batch channel height width"] | Mapping[str, Any],
) -> Verification:
    """Run both models on the same images, in evaluation mode, and compare. Padding of sequences is left out.

    Without a head, the features are compared: what the module's own classifier would read.

    Fused and plain attention differ by up to 1e-6 of the largest logit. For a bitwise comparison, switch both to plain
    attention: `model.fused_attention = False`, and `timm.layers.set_fused_attn(False)` before the module is made, or
    `attn_implementation="eager"` in transformers.

    Raises:
        ValueError: If the two models return logits of different shapes.
    """
    streams: dict[str, Tensor] = {}
    reference = source_of(module).reference(module)
    with _evaluating(module), ExitStack() as hooks:
        for index, block in enumerate(reference.blocks):
            hooks.callback(block.register_forward_hook(_keep_output(streams, f"blocks.{index}")).remove)
        expected = reference.run(images)
    if not reference.batch_first:
        streams = {stage: stream.transpose(0, 1) for stage, stream in streams.items()}
    names = [f"{stage}.hook_resid_post" for stage in streams]
    logits, cache = model.run_with_cache(images, names_filter=names)
    if logits.shape != expected.shape:
        raise ValueError(
            f"the port gives {tuple(logits.shape)} logits, {reference.source} module {tuple(expected.shape)}"
        )
    valid = _valid_tokens(model, images)
    stages = {
        stage: _relative(cache[f"{stage}.hook_resid_post"][valid], stream[valid]) for stage, stream in streams.items()
    }
    stages["logits"] = _relative(logits, expected)
    differences = (logits - expected).abs()
    image, class_index = divmod(int(differences.argmax()), logits.shape[1])
    return Verification(float(differences.max()), stages["logits"], image, class_index, stages, reference.source)


def _keep_output(streams: dict[str, Tensor], stage: str) -> Callable[[nn.Module, object, Any], None]:
    def keep(module: nn.Module, args: object, output: Any) -> None:
        streams[stage] = output[0] if isinstance(output, tuple) else output

    return keep


def _valid_tokens(model: Running, images: Tensor | Mapping[str, Any]) -> Any:
    """An index of the tokens that hold something."""
    if isinstance(images, Tensor):
        return slice(None)
    return KeptTokens.padded(images["patch_valid"], model.cfg.token_layout.n_prefix).valid


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    was_training = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in was_training:
            submodule.training = training

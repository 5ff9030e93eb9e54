"""A run that resumes in the middle of a block equals a whole run in which a hook replaces the activation."""

import pytest
import torch
from conftest import ported
from torch import Tensor

from hooked_vit.resuming import resumable, resume, resume_stream


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 2])
def test_every_activation_of_every_kind(kind: str, images: Tensor, layer: int) -> None:
    model, other = ported(kind), torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(5))
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    _, base = model.run_with_cache(images)
    _, source = model.run_with_cache(other)
    for stream, needed in resumable(model.cfg).items():
        value = base[stream, layer].clone()
        value[:, 1] = source[stream, layer][:, 1]  # a token, or a head of the pattern
        ends = {}

        def put_in(activation: Tensor, hook: object, value: Tensor = value) -> Tensor:
            return value

        def keep(activation: Tensor, hook: object, ends: dict = ends) -> None:
            ends["stream"] = activation

        expected = model.run_with_hooks(images, fwd_hooks=[((stream, layer), put_in), (last, keep)])
        context = {name: base[name, layer] for name in needed}
        torch.testing.assert_close(resume(model, stream, layer, value, context), expected, rtol=1e-4, atol=1e-5)
        found = resume_stream(model, stream, layer, value, context)
        torch.testing.assert_close(found, ends["stream"], rtol=1e-4, atol=1e-5)
        # the context of a single image is broadcast
        single = {name: tensor[:1] for name, tensor in context.items()}
        rows = {name: tensor.expand(2, *tensor.shape[1:]) for name, tensor in single.items()}
        torch.testing.assert_close(
            resume(model, stream, layer, value, single), resume(model, stream, layer, value, rows)
        )


def test_gradients_flow_through_it(images: Tensor) -> None:
    model = ported("cls")
    _, cache, gradients = model.run_with_gradients(images, lambda logits: logits[:, 2].sum(), ("resid_pre", 1))
    value = cache["resid_pre", 1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(resume(model, "resid_pre", 1, value)[:, 2].sum(), value)
    torch.testing.assert_close(gradient, gradients["resid_pre", 1], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("bad_input")
def test_errors(images: Tensor) -> None:
    model = ported("cls")
    stream = torch.zeros(2, 13, 24)
    with pytest.raises(ValueError, match=r"expected one of 'resid_pre', .*, got 'ln1'"):
        resume(model, "ln1", 0, stream)
    with pytest.raises(ValueError, match="to resume at 'q', pass resid_pre, k, v too; missing: resid_pre"):
        resume(model, "q", 0, stream)
    with (
        model.hooks(fwd_hooks=[("blocks.2.hook_mlp_out", lambda x, hook: x)]),
        pytest.raises(ValueError, match=r"the model has a hook on 'blocks.2.hook_mlp_out'.*reset_hooks"),
    ):
        resume(model, "resid_pre", 0, stream)

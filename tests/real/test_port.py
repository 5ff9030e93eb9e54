"""The trained model equals timm's, Hugging Face's and ONNX Runtime's: at 518 pixels, at 224, wide and tall."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from real_dinov2 import MISSING, load_dinov2
from real_models import pictures, relative, timm_module
from torch import Tensor, nn

from hooked_vit import HookedViT

onnx = pytest.importorskip("onnx", reason=MISSING)
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is missing: `pip install onnxruntime`")

SIZES = [518, 224, (168, 280), (280, 154)]


@pytest.fixture(scope="module", params=SIZES, ids=str)
def model(request: pytest.FixtureRequest, weights: Path) -> HookedViT:
    """The trained model at one of the sizes."""
    return load_dinov2(weights, request.param)


@pytest.fixture(scope="module")
def model_at_224(weights: Path) -> HookedViT:
    """The trained model as timm loads it, for its preprocessing."""
    return load_dinov2(weights, 224)


@pytest.fixture(scope="module")
def images(model: HookedViT) -> Tensor:
    """Photographs at the model's size: one where it is large."""
    return pictures(model, "cat") if model.cfg.image_size == (518, 518) else pictures(model, "cat", "rocket")


@pytest.fixture(scope="module")
def with_their_positions(model: HookedViT, hugging_face: nn.Module) -> HookedViT:
    """The model with positions resampled as Hugging Face does, bicubically without antialiasing; timm antialiases."""
    stored = dict(hugging_face.named_parameters())["embeddings.position_embeddings"].detach()[0]
    grid = stored[1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=model.token_layout.grid, mode="bicubic", align_corners=False)
    positions = torch.cat([stored[:1], resized.permute(0, 2, 3, 1).flatten(0, 2)])
    changed = model.with_weights({**dict(model.named_parameters()), "embed.pos": positions})
    changed.fused_attention = False
    return changed


@torch.no_grad()
def test_timm_bit_for_bit(model: HookedViT, images: Tensor, weights: Path) -> None:
    module = timm_module(weights, model.cfg.image_size)
    model.fused_attention = False
    found = model.verify(module, images)
    assert found.bitwise, str(found)
    assert not any(found.stages.values())
    assert len(found.stages) == 13
    model.fused_attention = True
    assert model.verify(module, images).relative < 1e-5  # trained activations reach the hundreds


@torch.no_grad()
def test_hugging_face(with_their_positions: HookedViT, images: Tensor, hugging_face: nn.Module) -> None:
    output = hugging_face(images, output_hidden_states=True)
    features, cache = with_their_positions.run_with_cache(
        images, names_filter=["resid_post", "ln_final.hook_normalized"]
    )
    for layer, stream in enumerate(output.hidden_states[1:]):
        assert relative(cache["resid_post", layer], stream) < 1e-6, layer
    assert relative(cache["ln_final.hook_normalized"], output.last_hidden_state) < 1e-5
    assert relative(features, output.pooler_output) < 1e-5


@pytest.mark.parametrize("size", [224, (168, 280)], ids=str)
def test_hugging_face_bit_for_bit(
    size: int | tuple[int, int], hugging_face: nn.Module, model_at_224: HookedViT
) -> None:
    model = HookedViT.from_module(hugging_face)
    height, width = (size, size) if isinstance(size, int) else size
    images = F.interpolate(pictures(model_at_224, "cat"), (height, width), mode="bilinear")
    assert model.verify(hugging_face, images).bitwise


@torch.no_grad()
def test_onnx_runtime(with_their_positions: HookedViT, images: Tensor, source: Path) -> None:
    # the exported graph, cut at the backbone's last norm
    graph = onnx.load(str(source))
    last = next(node.output[0] for node in graph.graph.node if "backbone.layernorm.bias" in node.input)
    del graph.graph.output[:], graph.graph.value_info[:]
    graph.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    for axis in graph.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.Clear()
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = torch.from_numpy(session.run(None, {"input_image": images.numpy()})[0])
    _, cache = with_their_positions.run_with_cache(images, names_filter="ln_final.hook_normalized")
    assert relative(cache["ln_final.hook_normalized"], expected) < 1e-5


@torch.no_grad()
def test_a_linear_head_as_published(with_their_positions: HookedViT, images: Tensor, hugging_face: nn.Module) -> None:
    """CLS and the mean of the patches side by side: Hugging Face's classifier on the trained backbone."""
    from transformers import Dinov2ForImageClassification

    hugging_face.config.num_labels = 9
    published = Dinov2ForImageClassification(hugging_face.config).eval()
    published.dinov2 = hugging_face
    head = published.classifier
    model = with_their_positions.with_class_embeddings(head.weight.T, head.bias)
    logits = published(images).logits
    assert relative(model(images), logits) < 1e-5
    halves = model.class_half("cls")(images) + model.class_half("mean")(images)
    assert relative(halves, logits) < 1e-5

"""Hugging Face models: equal to their own output at every kind of head, and refused by name where not covered."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from huggingface_models import DYNAMIC, KINDS, make_huggingface, output_of
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from hooked_vit import HookedViT
from hooked_vit.config import NormConfig, RotaryConfig

ATTENTION_POOLS = ("siglip", "siglip_encoder", "siglip2_encoder")


def images_for(model: HookedViT, n_images: int = 2) -> Tensor:
    return torch.randn(n_images, 3, *model.cfg.image_size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_or_features_are_the_modules_own(kind: str, attention: str) -> None:
    module = make_huggingface(kind, attention)
    model = HookedViT.from_module(module)
    images = images_for(model)
    expected = output_of(kind, module, images)
    assert (model(images) - expected).abs().max() < 1e-6 * expected.abs().max()
    result = model.verify(module, images)
    assert list(result.stages) == ["blocks.0", "blocks.1", "blocks.2", "logits"]
    if kind.startswith("dinov3"):  # timm computes the angles of rotary positions in another order
        assert result.relative < 1e-6
        return
    # nn.MultiheadAttention, SigLIP's pool, is plain attention even where the blocks' is fused
    assert result.bitwise or (kind in ATTENTION_POOLS and attention == "sdpa")
    assert not any(value for stage, value in result.stages.items() if stage != "logits")


@pytest.mark.parametrize("kind", DYNAMIC)
def test_positions_at_another_size_are_resampled_as_transformers_does(kind: str) -> None:
    module = make_huggingface(kind)
    model = HookedViT.from_module(module)
    images = torch.randn(2, 3, 48, 24)
    expected = output_of(kind, module, images)
    assert (model(images) - expected).abs().max() < 1e-6 * expected.abs().max()
    timms = HookedViT.from_module(module)
    timms.embed.cfg = timms.cfg.__class__(**{**vars(timms.cfg), "position_resampling": "bicubic_antialias"})
    moved = (timms(images) - expected).abs().max() / expected.abs().max()
    assert (moved > 1e-4) == (model.cfg.position_resampling != "bicubic_antialias")  # what timm does


@pytest.mark.parametrize("kind", ["siglip_encoder", "dinov3_encoder", "beit"])
def test_every_hook_point_moves_the_output(kind: str) -> None:
    model = HookedViT.from_module(make_huggingface(kind))
    images = images_for(model)
    plain = model(images)
    for name in model.hook_dict:
        edited = model.run_with_hooks(
            images, fwd_hooks=[(name, lambda value, hook: value + 0.3 * torch.rand_like(value))]
        )
        assert not torch.equal(edited, plain), name


def test_the_residual_stream_is_the_hidden_states() -> None:
    module = make_huggingface("dinov2_swiglu")
    model = HookedViT.from_module(module)
    images = images_for(model)
    with torch.no_grad():
        expected = module(images, output_hidden_states=True).hidden_states
    _, cache = model.run_with_cache(images)
    assert torch.equal(cache["resid_pre", 0], expected[0])
    for layer in range(3):
        assert torch.equal(cache["resid_post", layer], expected[layer + 1])
    again = HookedViT.from_module(module)  # the hooks with which transformers captured them change nothing
    assert torch.equal(again(images), model(images))


def test_a_changed_weight_is_located_in_its_block() -> None:
    module = make_huggingface("clip_projected")
    model = HookedViT.from_module(module)
    with torch.no_grad():
        model.blocks[1].mlp.W_out[3] += 0.5
    result = model.verify(module, images_for(model))
    assert result.first_difference == "blocks.1"
    assert "first differ after blocks.1" in str(result)


def test_the_message_of_an_equal_model_says_whose_logits_they_are() -> None:
    module = make_huggingface("vit")
    model = HookedViT.from_module(module)
    assert str(model.verify(module, images_for(model))) == "logits are bitwise equal to transformers'"


def test_the_port_holds_copies_and_knows_its_attention() -> None:
    module = make_huggingface("vit", attention="eager")
    model = HookedViT.from_module(module.train())
    assert not model.training
    assert not model.fused_attention
    images = images_for(model)
    before = model(images)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(model(images), before)


@pytest.mark.parametrize("kind", ["vit", "siglip2_classifier", "clip"])
def test_half_precision(kind: str) -> None:
    module = make_huggingface(kind).to(torch.bfloat16)
    model = HookedViT.from_module(module)
    assert model.cfg.dtype == torch.bfloat16
    images = images_for(model).to(torch.bfloat16)
    expected = output_of(kind, module, images)
    assert (model(images) - expected).abs().max() < 0.02 * expected.abs().max()


# ---------------------------------------------------------------------- class names


def test_class_names_come_from_id2label() -> None:
    names = {index: f"bird {index}" for index in range(7)}
    assert HookedViT.from_module(make_huggingface("vit", id2label=names)).class_names[6] == "bird 6"
    assert HookedViT.from_module(make_huggingface("vit")).class_names[6] == "class 6"  # its labels are LABEL_0, ...
    given = HookedViT.from_module(make_huggingface("vit", id2label=names), class_names=list("abcdefg"))
    assert given.class_names == tuple("abcdefg")


def test_an_id2label_of_another_length_than_the_head_is_an_error() -> None:
    module = make_huggingface("vit", id2label={index: f"bird {index}" for index in range(7)})
    module.classifier = nn.Linear(24, 5)
    with pytest.raises(ValueError, match=r"id2label names 7 classes \(indices 0 to 6\), its head has 5: pass class_na"):
        HookedViT.from_module(module)
    assert HookedViT.from_module(module, class_names=list("abcde")).cfg.n_classes == 5


# ---------------------------------------------------------------------- the encoder inside a larger model


def test_the_encoder_of_a_vision_language_model() -> None:
    _, _, vision = KINDS["clip_encoder"]
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20,
            "vocab_size": 60}  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vision), text_config=transformers.LlamaConfig(**text)
    )
    module = transformers.LlavaForConditionalGeneration(config).eval()
    model = HookedViT.from_module(module)
    assert model.cfg.n_classes == 0
    assert model.verify(module, images_for(model)).bitwise
    encoder = HookedViT.from_module(module.model.vision_tower)
    assert torch.equal(encoder(images_for(model)), model(images_for(model)))


# ---------------------------------------------------------------------- mistakes of a port, planted

MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "epsilon of timm's norms": ("vit", {"block_norm": NormConfig(eps=1e-6)}, "blocks.0"),
    "tanh GELU": ("vit", {"act_fn": "gelu_tanh"}, "blocks.0"),
    "exact GELU for CLIP's": ("clip_projected", {"act_fn": "gelu"}, "blocks.0"),
    "prefix tokens in the mean": ("beit_encoder", {"pool_includes_prefix": True}, "logits"),
    "maximum for the mean": ("ijepa", {"pool": "max"}, "logits"),
    "rotation of neighbours": ("dinov3_encoder", {"rotary": RotaryConfig("dinov3", 100.0)}, "blocks.0"),
    "rotary grid off by half a patch": (
        "dinov3_encoder", {"rotary": RotaryConfig("dinov3", 100.0, rotate_half=True, grid_offset=0.5)}, "blocks.0",
    ),
    "CLS for the mean of the patches": ("clip_classifier", {"pool": "cls"}, "logits"),
    "scale in the other order": ("vit", {"scale_scores": False}, "blocks.0"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_verify_finds_planted_mistakes(mistake: str) -> None:
    kind, changes, stage = MISTAKES[mistake]
    module = make_huggingface(kind, "eager")
    right = HookedViT.from_module(module)
    wrong = right.with_weights(dict(right.named_parameters()), dataclasses.replace(right.cfg, **changes))
    result = wrong.verify(module, images_for(right))
    assert not result.bitwise
    if kind != "dinov3_encoder" or stage == "logits":
        assert result.first_difference == stage
    assert (result.relative > 1e-6) == (mistake != "scale in the other order"), result


def test_verify_finds_swapped_queries_and_keys() -> None:
    module = make_huggingface("dinov2_encoder")
    model = HookedViT.from_module(module)
    with torch.no_grad():
        weight = model.blocks[2].attn.qkv.weight
        weight[:48] = torch.cat([weight[24:48], weight[:24]])
    result = model.verify(module, images_for(model))
    assert result.first_difference == "blocks.2"
    assert result.relative > 1e-4


# ---------------------------------------------------------------------- refusals


class LowRank(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


def hooked(module: Any) -> None:
    module.vit.layers[1].register_forward_hook(lambda module, args, output: 2 * output)


def own_forward(module: Any) -> None:
    module.vit.layers[1].attention.forward = lambda x, mask=None: (x, None)


def adapter(module: Any) -> None:
    module.vit.layers[1].attention.q_proj = LowRank(24, 24)


def normed(module: Any) -> None:
    parametrizations.weight_norm(module.vit.layers[0].mlp.fc1)


def quantised(module: Any) -> None:
    weight = torch.zeros(40, 24, dtype=torch.int8)
    module.vit.layers[0].mlp.fc1.weight = nn.Parameter(weight, requires_grad=False)


def other_norm(module: Any) -> None:
    module.vit.layers[1].layernorm_after.eps = 1e-3


def scaled(module: Any) -> None:
    module.vit.layers[2].attention.scaling = 1.0


def activation(module: Any) -> None:
    module.vit.layers[2].mlp.activation_fn = nn.Tanh()


def head_of_two_layers(module: Any) -> None:
    module.classifier = nn.Sequential(nn.Linear(24, 9), nn.ReLU(), nn.Linear(9, 7))


CASES = [
    (hooked, "a forward hook on 'layers.1'"),
    (own_forward, "a `forward` that was set on the instance 'layers.1.attention'"),
    (adapter, r"LowRank as 'layers.1.attention.q_proj'. Merge or remove it first"),
    (normed, "a reparametrised weight .* in 'layers.0.mlp.fc1'"),
    (quantised, r"a weight 'weight' in 'layers.0.mlp.fc1' that is a Tensor of torch.int8"),
    (other_norm, "two norms of different kinds, or none, in block 1"),
    (scaled, "the scale 1.0 of the attention scores in block 2"),
    (activation, "Tanh as 'layers.2.mlp.activation_fn'"),
    (head_of_two_layers, "a torch.nn.modules.container.Sequential as the head"),
]


@pytest.mark.parametrize(("change", "message"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_half_ported_parts_are_refused(change: Callable[[Any], None], message: str) -> None:
    module = make_huggingface("vit")
    change(module)
    with pytest.raises(ValueError, match=message):
        HookedViT.from_module(module)


def test_models_that_are_not_covered_are_named() -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    bert = transformers.BertModel(transformers.BertConfig(**small, vocab_size=50))
    with pytest.raises(
        ValueError, match=r"BertModel, which reads text .*holds no image encoder.* HookedViT covers ViT"
    ):
        HookedViT.from_module(bert)
    swin = transformers.SwinModel(transformers.SwinConfig(embed_dim=8, depths=[1], num_heads=[2], image_size=32))
    with pytest.raises(ValueError, match=r"not covered: a transformers.models.swin.modeling_swin.SwinModel. HookedViT"):
        HookedViT.from_module(swin)


def test_of_two_encoders_one_must_be_chosen() -> None:
    module = make_huggingface("clip")
    module.second = make_huggingface("clip_encoder")
    with pytest.raises(ValueError, match=r"CLIPModel with 2 encoders.*`module.vision_model` or `module.second`"):
        HookedViT.from_module(module)


def test_parts_of_another_version_of_transformers_are_named() -> None:
    module = make_huggingface("vit")
    del module.vit.layers[0].attention.o_proj
    with pytest.raises(
        ValueError, match=r"ViTModel of other parts than in transformers 5.24.* is installed \(.*o_proj"
    ):
        HookedViT.from_module(module)


def test_ones_own_module_is_refused_with_the_part_to_pass() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = make_huggingface("dinov2_encoder"), nn.Linear(24, 3)

    with pytest.raises(ValueError, match=r"Mine.*pass the model inside it, such as `module.backbone`"):
        HookedViT.from_module(Mine())
    with pytest.raises(ValueError, match=r"a .*Linear. HookedViT reads modules of timm, transformers"):
        HookedViT.from_module(nn.Linear(2, 3))


def test_a_subclass_is_read_as_its_class_unless_it_computes_otherwise() -> None:
    class Renamed(transformers.ViTForImageClassification):
        pass

    class Doubled(transformers.ViTForImageClassification):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = 2 * output.logits
            return output

    config = make_huggingface("vit").config
    module = Renamed(config).eval()
    model = HookedViT.from_module(module)
    assert model.cfg.n_classes == 7
    assert model.verify(module, images_for(model)).bitwise
    with pytest.raises(
        ValueError, match=r"Doubled.forward, which replaces ViTForImageClassification's own. Port its e"
    ):
        HookedViT.from_module(Doubled(config))


def test_an_adapters_wrapper_is_refused_with_the_call_that_merges_it() -> None:
    class PeftModel(nn.Module):
        __module__ = "peft.peft_model"

    with pytest.raises(ValueError, match=r"a peft.peft_model..*PeftModel.*merge the adapter first: `module.merge_and"):
        HookedViT.from_module(PeftModel())


@pytest.mark.usefixtures("bad_input")
def test_what_is_no_module() -> None:
    with pytest.raises(ValueError, match=r"expected a torch module, got a builtins\.str"):
        HookedViT.from_module("dinov2")  # pyright: ignore[reportArgumentType]


def test_relative_position_biases_that_are_not_covered() -> None:
    both = {"use_relative_position_bias": True, "use_shared_relative_position_bias": True}
    with pytest.raises(ValueError, match="a relative position bias of each block together with one that all blocks"):
        HookedViT.from_module(make_huggingface("beit", **both))
    with pytest.raises(ValueError, match=r"of images that are not square \(32, 24\), which transformers mixes up"):
        HookedViT.from_module(make_huggingface("beit", image_size=(32, 24)))


def test_tensors_without_a_name_are_refused() -> None:
    module = make_huggingface("dinov2_encoder")
    module.encoder.layer[0].extra = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"2 tensors that have no name in a HookedViT: encoder.layer.0.extra.weight"):
        HookedViT.from_module(module)

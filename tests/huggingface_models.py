"""Small perturbed models of Hugging Face transformers, each with all dimensions different, and what they output."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from conftest import perturb
from torch import Tensor, nn

_WIDTHS = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
_ENCODER = {**_WIDTHS, "intermediate_size": 40, "image_size": 32, "patch_size": 8}
_FLAT = {**_WIDTHS, "intermediate_size": 40, "patch_size": 8, "num_patches": 16}
_DINO = {**_WIDTHS, "image_size": 32, "patch_size": 8, "mlp_ratio": 2}
_CLASSES = {"num_labels": 7}
_TEXT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20, "vocab_size": 50,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
_CLIP = {"text_config": _TEXT, "vision_config": {**_ENCODER, "projection_dim": 10}, "projection_dim": 10}

# kind -> architecture, configuration
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", "ViTConfig",
            {**_ENCODER, "image_size": (32, 24), "patch_size": (8, 8), **_CLASSES}),
    "vit_encoder": ("ViTModel", "ViTConfig", {**_ENCODER, "qkv_bias": False}),
    "deit": ("DeiTForImageClassification", "DeiTConfig", {**_ENCODER, **_CLASSES}),
    "deit_teacher": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", {**_ENCODER, **_CLASSES}),
    "ijepa": ("IJepaForImageClassification", "IJepaConfig", {**_ENCODER, **_CLASSES}),
    "ijepa_encoder": ("IJepaModel", "IJepaConfig", _ENCODER),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", {**_DINO, **_CLASSES}),
    "dinov2_encoder": ("Dinov2Model", "Dinov2Config", _DINO),
    "dinov2_registers": ("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig",
                         {**_DINO, "num_register_tokens": 2, **_CLASSES}),
    "dinov2_swiglu": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig",
                      {**_DINO, "num_register_tokens": 2, "use_swiglu_ffn": True}),
    "dinov3_encoder": ("DINOv3ViTModel", "DINOv3ViTConfig", {**_ENCODER, "num_register_tokens": 2}),
    "dinov3_gated": ("DINOv3ViTModel", "DINOv3ViTConfig",
                     {**_ENCODER, "num_register_tokens": 0, "use_gated_mlp": True, "hidden_act": "silu"}),
    "beit": ("BeitForImageClassification", "BeitConfig",
             {**_ENCODER, "use_relative_position_bias": True, "use_mask_token": True, **_CLASSES}),
    "beit_shared": ("BeitForImageClassification", "BeitConfig",
                    {**_ENCODER, "use_shared_relative_position_bias": True, "layer_scale_init_value": 0,
                     "use_absolute_position_embeddings": True, "use_mean_pooling": False, **_CLASSES}),
    "beit_encoder": ("BeitModel", "BeitConfig", {**_ENCODER, "use_relative_position_bias": True}),
    "clip_encoder": ("CLIPVisionModel", "CLIPVisionConfig", _ENCODER),
    "clip_projected": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", {**_ENCODER, "projection_dim": 10}),
    "clip": ("CLIPModel", "CLIPConfig", _CLIP),
    "clip_classifier": ("CLIPForImageClassification", "CLIPConfig", {**_CLIP, **_CLASSES}),
    "siglip_encoder": ("SiglipVisionModel", "SiglipVisionConfig", _ENCODER),
    "siglip_without_pool": ("SiglipVisionModel", "SiglipVisionConfig", {**_ENCODER, "vision_use_head": False}),
    "siglip": ("SiglipModel", "SiglipConfig", {"text_config": _TEXT, "vision_config": _ENCODER}),
    "siglip_classifier": ("SiglipForImageClassification", "SiglipConfig",
                          {"text_config": _TEXT, "vision_config": _ENCODER, **_CLASSES}),
    "siglip2_encoder": ("Siglip2VisionModel", "Siglip2VisionConfig", _FLAT),
    "siglip2_classifier": ("Siglip2ForImageClassification", "Siglip2Config",
                           {"text_config": _TEXT, "vision_config": _FLAT, **_CLASSES}),
}  # fmt: skip
DYNAMIC = tuple(kind for kind in KINDS if kind.startswith(("dinov2", "dinov3", "siglip2")))


def make_huggingface(kind: str, attention: str = "sdpa", **changes: object) -> Any:
    """A perturbed model of one of `KINDS`, in evaluation mode."""
    architecture, configuration, arguments = KINDS[kind]
    config = getattr(transformers, configuration)(**{**arguments, **changes})
    config._attn_implementation = attention
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return perturb(getattr(transformers, architecture)(config))


def siglip2_input(images: Tensor, size: int = 8) -> dict[str, Tensor]:
    """Images as SigLIP 2 takes them: flattened patches, written as a loop."""
    rows, columns = images.shape[-2] // size, images.shape[-1] // size
    patches = [
        images[:, :, size * row : size * (row + 1), size * column : size * (column + 1)].permute(0, 2, 3, 1).flatten(1)
        for row in range(rows)
        for column in range(columns)
    ]
    return {
        "pixel_values": torch.stack(patches, dim=1),
        "pixel_attention_mask": torch.ones(len(images), rows * columns, dtype=torch.long),
        "spatial_shapes": torch.tensor([[rows, columns]] * len(images)),
    }


def _cls(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).last_hidden_state[:, 0]


def _mean(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).last_hidden_state.mean(dim=1)


_OUTPUTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "vit_encoder": _cls,
    "ijepa_encoder": _mean,
    "dinov2_encoder": _cls,
    "dinov2_swiglu": _cls,
    "dinov3_encoder": _cls,
    "dinov3_gated": _cls,
    "beit_encoder": lambda model, images: model(images).pooler_output,
    "clip_encoder": lambda model, images: model(images).pooler_output,
    "clip_projected": lambda model, images: model(images).image_embeds,
    "clip": lambda model, images: model.get_image_features(images).pooler_output,
    "siglip_encoder": lambda model, images: model(images).pooler_output,
    "siglip_without_pool": _mean,
    "siglip": lambda model, images: model.get_image_features(images).pooler_output,
    "siglip2_encoder": lambda model, images: model(**siglip2_input(images)).pooler_output,
    "siglip2_classifier": lambda model, images: model(**siglip2_input(images)).logits,
}


@torch.no_grad()
def output_of(kind: str, model: nn.Module, images: Tensor) -> Tensor:
    """The logits or features that users of the model take."""
    return _OUTPUTS.get(kind, lambda model, images: model(images).logits)(model, images)

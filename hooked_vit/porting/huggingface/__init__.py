"""From a module of Hugging Face transformers to what a HookedViT is built from; one file per family of encoders."""

from hooked_vit.porting.huggingface.module import read, reference

__all__ = ["read", "reference"]

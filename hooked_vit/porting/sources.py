"""Which library a module comes from, and what reads it; a library is imported only when a module of it is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from torch import nn

from hooked_vit.porting.ported import Ported
from hooked_vit.porting.reference import Reference

_READERS = {
    "transformers": "hooked_vit.porting.huggingface",
    "open_clip": "hooked_vit.porting.open_clip",
    "clip": "hooked_vit.porting.open_clip",  # OpenAI's package, whose layout open_clip took over
    "timm": "hooked_vit.porting.timm_module",
}


@dataclass(frozen=True)
class Source:
    """How to read the modules of one library.

    Attributes:
        read: From a module and class names to what a HookedViT is built from. The weights are the module's own where
            they can be.
        reference: From a module to what its port is compared with.
    """

    read: Callable[[nn.Module, Sequence[str] | None], Ported]
    reference: Callable[[nn.Module], Reference]


def source_of(module: nn.Module) -> Source:
    """The source of a module, by the package of its class or, if that is the user's own, of the nearest parent.

    Raises:
        ValueError: If the module comes from another library.

    >>> import timm
    >>> source_of(timm.create_model("vit_tiny_patch16_224", depth=1)).read.__module__
    'hooked_vit.porting.timm_module'
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"expected a torch module, got a {type(module).__module__}.{type(module).__qualname__}")
    for cls in type(module).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in _READERS:
            return _source(package)
    raise ValueError(_unknown(module))


def _source(package: str) -> Source:
    try:
        reader = import_module(_READERS[package])
    except ImportError as error:  # a class that its version does not have yet, or no longer
        version = getattr(import_module(package), "__version__", "of an unknown version")
        raise ValueError(f"HookedViT cannot read modules of {package} {version}: {error}. Update {package}") from error
    return Source(reader.read, reader.reference)


def _unknown(module: nn.Module) -> str:
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    inside = [
        name for name, part in module.named_modules() if name and type(part).__module__.partition(".")[0] in _READERS
    ]
    if kind.startswith("peft."):
        hint = "merge the adapter first: `module.merge_and_unload()`"
    elif inside:
        hint = f"pass the model inside it, such as `module.{inside[0]}`, and add its head with `with_class_embeddings`"
    else:
        hint = "rebuild the model with one of these libraries and load its weights into it"
    return f"not covered: a {kind}. HookedViT reads modules of timm, transformers, open_clip and OpenAI's clip: {hint}"

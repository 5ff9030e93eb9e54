"""All activations of a run, each of them held: what any other cache is compared with."""

from torch import Tensor

from hooked_vit import HookedViT


def everything(model: HookedViT, images: Tensor, **options) -> dict[str, Tensor]:
    """All activations but those that exist on demand, by name."""
    wanted = set(model.hook_names(None))
    return dict(model.run_with_cache(images, names_filter=lambda name: name in wanted, **options)[1].cache_dict)

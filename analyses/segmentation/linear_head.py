"""A linear head on patches: ridge regression from the stream at a patch to the class of the object that it shows."""

import torch
from torch import Tensor

from analyses.data.dataset import LabelledImages
from analyses.data.patch_labels import token_labels
from analyses.data.reading import ItemReader
from analyses.linear_probe.ridge import RidgeProbe, fit_ridge_probe
from analyses.projection import stream_names
from hooked_vit import HookedViT

__all__ = ["fit_patch_head"]


@torch.no_grad()
def fit_patch_head(
    model: HookedViT, dataset: LabelledImages, *, alpha: float = 1.0, batch_size: int = 32
) -> RidgeProbe:
    """Fit a linear head to the patches on the objects of a dataset with masks, for each block.

    The head of a block reads the stream that leaves it, without norm. A patch is on the object if the mask covers its
    centre. All patches are kept in memory at once: `n_layers · d_model` numbers each.

    Args:
        model: The model.
        dataset: Items are `(image, label, mask)`; take other images than those to segment.
        alpha: The penalty.
        batch_size: Images per forward pass.

    Returns:
        One probe per layer, for `Segmentation(head=...)`.

    Raises:
        ValueError: If an image cannot be read, or no patch is on an object.

    >>> from analyses.data import EmojiScenes
    >>> head = fit_patch_head(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(4, seed=2))
    >>> head.weight.shape
    torch.Size([8, 128, 100])
    """
    model.require_several_classes("a head on patches")
    names, layout = stream_names(model.cfg, "resid_post"), model.token_layout
    reader = ItemReader(dataset, model.cfg, model.data_config, skip=False)
    features: list[Tensor] = []
    labels: list[Tensor] = []
    for start in range(0, len(dataset), batch_size):
        read = reader.__getitems__(range(start, min(start + batch_size, len(dataset))))
        assert read.images is not None
        if read.object_mask is None:
            raise ValueError("a head on patches needs object masks: give a dataset of (image, label, mask)")
        on_object = token_labels(read.object_mask, layout.grid, anchor="centre")
        images = read.images.to(device=model.cfg.device, dtype=model.cfg.dtype)
        _, cache = model.run_with_cache(images, names_filter=names, stop_at_layer=model.cfg.n_layers)
        streams = torch.stack([cache[name][:, layout.patches] for name in names])
        features.append(streams[:, on_object.to(streams.device)])
        labels.append(read.labels[:, None].expand(-1, layout.n_patches)[on_object])
    if not sum(map(len, labels)):
        raise ValueError("no mask covers the centre of a patch: the objects are smaller than patches")
    return fit_ridge_probe(torch.cat(features, dim=1), torch.cat(labels), model.cfg.n_classes, alpha)

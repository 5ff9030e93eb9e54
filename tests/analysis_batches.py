"""Batches for analyses: small models of every kind, random images, labels and object masks."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

import torch
from conftest import make_timm

from analyses.analysis.base import Analysis, AnalysisBatch
from hooked_vit import HookedViT

SomeAnalysis = TypeVar("SomeAnalysis", bound=Analysis)


@lru_cache(maxsize=20)
def model_of(kind: str) -> HookedViT:
    """A small model, which a test must not change."""
    return HookedViT.from_timm(make_timm(kind))


def batch_of(
    kind: str, analyses: Sequence[Analysis], index: Sequence[int] = (0, 1, 2), masks: bool = True
) -> AnalysisBatch:
    """Images `index` of an endless random dataset, after their forward pass; image 1 shows no context."""
    model = model_of(kind)
    images, labels, object_mask = zip(*(_item(i) for i in index), strict=True)
    names = [name for analysis in analyses for name in analysis.names(model.cfg)]
    with torch.no_grad():
        logits, cache = model.run_with_cache(torch.stack(images), names_filter=names)
    # the model's first or second class, so that some images are classified correctly
    top = logits.argsort(dim=-1, descending=True)
    near = top[torch.arange(len(top)), torch.tensor(labels)]
    return AnalysisBatch(
        model=model,
        cache=cache,
        logits=logits,
        labels=near,
        index=torch.tensor(index),
        object_mask=torch.stack(object_mask) if masks else None,
        images=torch.stack(images),
    )


def whole_and_merged(
    make: Callable[[], SomeAnalysis], kind: str, order: Sequence[int] = (2, 0, 1)
) -> tuple[SomeAnalysis, SomeAnalysis]:
    """An analysis after one pass over nine images, and one merged from three shards of them in some order."""
    whole, shards, merged = make(), [make() for _ in order], make()
    for shard, index in zip(shards, ([0, 1, 2], [3, 4], [5, 6, 7, 8]), strict=True):
        batch = batch_of(kind, [whole], index=index)
        whole.update(batch)
        shard.update(batch)
    for position in order:
        merged.merge_state(shards[position])
    return whole, merged


def _item(i: int) -> tuple[torch.Tensor, int, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 + i)
    image = torch.randn(3, 32, 24, generator=generator)
    mask = torch.rand(32, 24, generator=generator) < 0.5
    return image, i % 2, mask if i != 1 else torch.ones_like(mask)

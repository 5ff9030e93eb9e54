"""Categorical updates written as loops over blocks, images and tokens, for the tests to compare with."""

import numpy as np
from analysis_batches import batch_of

from analyses.analysis.base import AnalysisBatch
from analyses.categorical_updates.over_dataset import CategoricalUpdates

BOTH = ("block_input", "layer_input")
STREAMS = {"attn": "attn_out", "mlp": "mlp_out", "block": "resid_post"}


def batch_with_all_streams(kind: str, index: range = range(5)) -> AnalysisBatch:
    """Images `index`, with every hook point that categorical updates can read."""
    return batch_of(kind, [CategoricalUpdates(BOTH, heads=True)], index=index)


def increase_of(batch: AnalysisBatch, sublayer: str, reference: str, sublayer_norm: bool = False) -> np.ndarray:
    """[layer image token], one block and image at a time."""
    model, increases = batch.model, []
    for layer, block in enumerate(model.blocks):
        reads_mid = not model.cfg.parallel_attn_mlp and (sublayer, reference) == ("mlp", "layer_input")
        before = "resid_mid" if reads_mid else "resid_pre"
        for image, label in enumerate(batch.labels.tolist()):
            output = batch.cache[STREAMS[sublayer], layer][image]
            if sublayer_norm and sublayer != "block":
                output = (block.ln1 if sublayer == "attn" else block.mlp_ln).fused(output)
            after, against = model.class_logits(output), model.class_logits(batch.cache[before, layer][image])
            increases.append([(a[label] - b[label]).item() for a, b in zip(after, against, strict=True)])
    return np.array(increases).reshape(len(model.blocks), len(batch.labels), -1)


def composition_of(batch: AnalysisBatch) -> np.ndarray:
    """[part layer image token]: is the top class after the block that of its input, attention, the MLP, none?"""
    model, matches = batch.model, []
    streams = "resid_pre", "attn_out", "mlp_out", "resid_post"
    for layer in range(len(model.blocks)):
        for image in range(len(batch.labels)):
            tops = [model.class_logits(batch.cache[stream, layer][image]).argmax(-1).tolist() for stream in streams]
            for previous, attn, mlp, after in zip(*tops, strict=True):
                matches.append([after == previous, after == attn, after == mlp, after not in (previous, attn, mlp)])
    shape = len(model.blocks), len(batch.labels), -1, 4
    return np.moveaxis(np.array(matches).reshape(shape), -1, 0)

"""A sweep's bookkeeping over 200,000 images: what it holds grows with the images by their own rows alone."""

import torch
from sweep_toys import FloatSums, toy_model

from analyses.analysis.base import AnalysisBatch
from analyses.identifiability import Identifiability
from analyses.sweep.accuracy import Accuracy
from analyses.sweep.share import Share

N_IMAGES, BATCH_SIZE = 200_000, 500


def held(share: Share) -> tuple[int, int]:
    """Bytes of all totals except rows, and bytes of rows."""
    sums, rows = 0, 0
    for packed in share.pack()["totals"].values():
        nodes = [leaf for *_, leaf in packed["nodes"]]
        sums += sum(tensor.nbytes for leaf in (packed["whole"], *nodes) for tensor in leaf.values())
        rows += sum(tensor.nbytes for of_state in packed["rows"].values() for tensor in of_state)
    return sums, rows


def test_nothing_grows_but_the_rows_of_each_image() -> None:
    model = toy_model()
    images = torch.randn(4, 3, 32, 24, generator=torch.Generator().manual_seed(0)).repeat(BATCH_SIZE // 4, 1, 1, 1)
    named = {"accuracy": Accuracy(), "sums": FloatSums(), "identifiability": Identifiability()}
    names = [name for analysis in named.values() for name in analysis.names(model.cfg)]
    with torch.no_grad():
        logits, cache = model.run_with_cache(images, names_filter=names)
    labels, mask = torch.arange(BATCH_SIZE) % 7, images[:, 0] > 0
    share, sizes, projected = Share(), {}, {}
    for number in range(N_IMAGES // BATCH_SIZE):
        index = torch.arange(BATCH_SIZE) + number * BATCH_SIZE
        batch = AnalysisBatch(model, cache, logits, labels, index, mask)
        batch._computed.update(projected)  # always the same images
        for analysis in named.values():
            analysis.update(batch)
        projected = batch._computed
        share.add_batch(number, named, ())
        if number + 1 in (1, 200, 400):
            sizes[number + 1] = held(share)
    (one, row), (half, half_rows), (whole, rows) = sizes.values()
    # sums: one node for each bit of the number of batches (200 and 400 have three)
    assert whole == half < 3 * one
    assert (half_rows, rows) == (200 * row, 400 * row)
    # of 3 blocks and 6 groups of tokens: three counts each; the numbers of tokens; the index
    assert row == BATCH_SIZE * (4 * (3 * 3 * 6 + 6) + 8)
    assert share.totals["accuracy"].n_updates == 400

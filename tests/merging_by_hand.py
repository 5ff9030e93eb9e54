"""ToMe's bipartite matching and merging as a loop over tokens."""

import torch
from torch import Tensor


def by_loop(metric: Tensor, x: Tensor, size: Tensor, r: int, n_prefix: int) -> tuple[Tensor, Tensor]:
    """One image: the merged tokens and their sizes, in the order of the published code."""
    n = len(x)
    a = [i for i in range(n_prefix, n) if i % 2 == 0]
    b = [i for i in range(n_prefix, n) if i % 2 == 1]

    def cosine(i: int, j: int) -> float:
        return float(metric[i] @ metric[j] / metric[i].norm() / metric[j].norm())

    best = {i: max(b, key=lambda j: cosine(i, j)) for i in a}
    order = sorted(a, key=lambda i: -cosine(i, best[i]))
    merged, alone = order[:r], order[r:]
    if n_prefix:
        alone = sorted(alone)
    rows, sizes = [x[i] for i in (*range(n_prefix), *alone)], [size[i] for i in (*range(n_prefix), *alone)]
    for j in b:
        group = [j, *(i for i in merged if best[i] == j)]
        total = sum(size[i] for i in group)
        rows.append(sum(size[i] * x[i] for i in group) / total)
        sizes.append(total)
    return torch.stack(rows), torch.stack(sizes)

"""Samples of latents that do not depend on how a batch is cut, and k-means over them.

Which latents are sampled is decided by the latents themselves and a counter: one rank or many, one batch or several
accumulated, in any order, give the same sample, and nothing is drawn from a generator that ranks would have to share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmtok.quantizers.search import nearest

_STRIPES = 7.0
"""Periods a unit step along the probe spans: many, so that neighbours get unrelated keys, and few enough that a
difference of 1e-7 between devices or batch sizes does not change a key."""
_GOLDEN = 0.6180339887
_ROUNDS = 8
"""Rounds in which the first centres are drawn; with one centre a round it would be k-means++."""


def selection_keys(x: Tensor, weight: Tensor, probe: Tensor, counter: Tensor) -> Tensor:
    """Keys (N,) of rows x (N, D): the greatest n are a weighted sample of n rows without replacement.

    Efraimidis and Spirakis 2006: log(u) / weight with u uniform. Here u is where the row falls in stripes across the
    direction `probe` (D,), which move with the counter. A weight of 0 gives -inf, a row that is never to be sampled.
    """
    # A product and a sum, not a matmul: a row gets the same key bit by bit whatever rows are beside it.
    phase = (x * probe).sum(-1) * _STRIPES + counter * _GOLDEN
    u = (2 * (phase - phase.floor()) - 1).abs()  # a triangle wave: uniform, and without a jump
    keys = u.clamp(min=1e-6).log() / weight
    return keys.where((weight > 0) & keys.isfinite(), -torch.inf)


def select(keys: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` greatest keys, sorted, and their rows; filled up with -inf and zeros where there are fewer."""
    found, order = keys.topk(min(count, keys.shape[0]))
    missing = count - found.shape[0]
    filled = torch.nn.functional.pad(found, (0, missing), value=-torch.inf)
    # A row that must not be taken may hold anything.
    chosen = rows[order].where((found > -torch.inf)[:, None], 0.0)
    return filled, torch.nn.functional.pad(chosen, (0, 0, 0, missing))


def kmeans(rows: Tensor, codes: Tensor, seed: int, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm: rows (N, D) -> centres shaped as `codes` (K, D), and how many rows each has (K,).

    With fewer rows than centres each row is a centre, and the others are rows again, moved a little so that they can
    part; without rows the codes stay as they are.
    """
    size, count = codes.shape[0], rows.shape[0]
    if count == 0:
        return codes.clone(), codes.new_zeros(size)
    if count <= size:
        noise = torch.randn(size, codes.shape[1], generator=torch.Generator().manual_seed(seed)).to(codes)
        centres = rows[torch.arange(size, device=rows.device) % count].clone()
        centres[count:] += 0.01 * rows.square().mean().sqrt() * noise[count:]
        return centres, codes.new_full((size,), count / size)
    centres = _spread(rows, size, torch.Generator().manual_seed(seed))
    for _ in range(iterations):
        centres, counts, _ = _lloyd(rows, centres)
    return centres, counts


def cluster(rows: Tensor, size: int, seed: int, iterations: int = 50) -> tuple[Tensor, Tensor]:
    """K-means to its end: rows (N, D) -> centres (size, D), and how many rows each has (size,).

    The first centres are those of k-means++ (Arthur and Vassilvitskii 2007), one drawn after the other. A centre that
    has no rows is put on the row that lies farthest from its own. It ends where no row changes its centre.

    Args:
        rows: all of them; with no more rows than centres each is one, as in `kmeans`.
        size: number of centres.
        seed: of the first centres.
        iterations: at most.

    Raises:
        ValueError: there are no rows.
    """
    count = rows.shape[0]
    if count == 0:
        raise ValueError("there is nothing to cluster: the sample is empty.")
    if count <= size:
        return kmeans(rows, rows.new_empty(size, rows.shape[1]), seed)
    centres = _plus_plus(rows, size, torch.Generator().manual_seed(seed))
    before: Tensor | None = None
    for _ in range(iterations):
        moved, counts, ids = _lloyd(rows, centres)
        if before is not None and torch.equal(ids, before):
            break
        empty = (counts == 0).nonzero().flatten()
        if len(empty):
            distance = (rows - moved[ids]).square().sum(1)
            moved[empty] = rows[distance.topk(len(empty)).indices]
        centres, before = moved, ids
    return centres, counts


def _lloyd(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One round: centres at the means of their rows, their numbers of rows (K,), and the centre (N,) of each row."""
    ids = nearest(rows, centres)
    counts = rows.new_zeros(len(centres)).index_add_(0, ids, rows.new_ones(len(rows)))
    sums = torch.zeros_like(centres).index_add_(0, ids, rows)
    return (sums / counts[:, None].clamp(min=1)).where(counts[:, None] > 0, centres), counts, ids


def _plus_plus(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """First centres (size, D), each drawn by the squared distance to the nearest one before."""
    first = int(torch.randint(len(rows), (1,), generator=generator))
    centres = [rows[first]]
    distance = (rows - centres[0]).square().sum(1)
    for draw in torch.rand(size - 1, generator=generator, dtype=torch.float64).tolist():
        sums = distance.double().cumsum(0)
        chosen = int(torch.searchsorted(sums, draw * sums[-1]).clamp(max=len(rows) - 1))
        centres.append(rows[chosen])
        distance = torch.minimum(distance, (rows - rows[chosen]).square().sum(1))
    return torch.stack(centres)


def _spread(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """First centres (size, D): in each round the likelier drawn the farther from those drawn before."""
    share = -(-size // _ROUNDS)
    centres = rows[:share]
    while len(centres) < size:
        distance = (rows - centres[nearest(rows, centres)]).square().sum(1)
        u = torch.rand(len(rows), generator=generator).to(rows).clamp(min=1e-9)
        drawn = (u.log() / distance.clamp(min=1e-20)).topk(min(share, size - len(centres))).indices
        centres = torch.cat([centres, rows[drawn]])
    return centres

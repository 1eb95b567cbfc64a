"""What is asked of codes that name items: whether names differ, whether alike items have alike names, and again so.

Every measure is of arrays of all items and works in chunks or on sampled pairs: a million items need no N x N matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmtok.grouping import Ids, groups

PAIRS = 50_000
"""Pairs of items that a mean over all pairs is taken of."""
QUERIES = 1_000
NEIGHBOURS = 10
_BLOCK = 1 << 25
"""Distances held at once."""


@dataclass(frozen=True)
class Collisions:
    """How far codes are names."""

    rate: float
    """1 - distinct codes / items (LC-Rec)."""
    duplicates: float
    """1 - distinct vectors / items: collisions that no tokenizer can part."""
    beyond: float
    """1 - distinct codes / distinct vectors."""
    shared: float
    """Share of items whose codes another item has too."""
    largest: int
    """Items of the codes that most have."""
    slots: float
    """Names there are, over items."""


def collisions(ids: Ids, sizes: Sequence[int], same: Ids) -> Collisions:
    """Of codes (N, L) of vectors, of which `same` (N,) says which are equal."""
    group = groups(ids)
    count, names, vectors = len(ids), int(group.max()) + 1, int(same.max()) + 1
    each = np.bincount(group)
    return Collisions(
        rate=1 - names / count,
        duplicates=1 - vectors / count,
        beyond=1 - names / vectors,
        shared=float((each[group] > 1).mean()),
        largest=int(each.max()),
        slots=prod(sizes) / count,
    )


def equal_rows(x: Tensor) -> Ids:
    """(N, F) -> (N,) the number of each row among the distinct ones, by their bytes."""
    rows = np.ascontiguousarray(x.cpu().numpy())
    return np.unique(rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))[:, 0], return_inverse=True)[1]


@dataclass(frozen=True)
class Joint:
    """Use of the whole names."""

    active: float
    """Distinct names over the most there could be: items, or slots if fewer."""
    perplexity_norm: float
    """exp(entropy) of names over the same."""


def joint_usage(ids: Ids, sizes: Sequence[int]) -> Joint:
    """Of codes (N, L)."""
    counts = np.bincount(groups(ids))
    share = counts / counts.sum()
    most = min(len(ids), prod(sizes))
    return Joint(len(counts) / most, float(np.exp(-(share * np.log(share)).sum())) / most)


def coherence(
    x: Tensor, ids: Ids, labels: NDArray[np.int64] | None = None, *, same: Ids, pairs: int = PAIRS, seed: int = 0
) -> list[dict[str, float]]:
    """Mean cosine, and share of equal labels, of pairs of items that share their first l codes; a row for l = 0 .. L.

    Items without another of their prefix have no pair; equal vectors are one item, or the last row would be of copies.

    Args:
        x: (N, F), centred.
        ids: (N, L).
        labels: (N,), -1 for none; rows have no `purity` without.
        same: (N,) which vectors are equal (`equal_rows`).
        pairs: drawn for each row.
        seed: of the drawing.
    """
    first = np.unique(same, return_index=True)[1]
    x, ids = torch.nn.functional.normalize(x[torch.from_numpy(first)], dim=1), ids[first]
    labels = None if labels is None or (labels < 0).all() else labels[first]
    rng = np.random.default_rng(seed)
    rows = []
    for depth in range(ids.shape[1] + 1):
        one, other = drawn_pairs(groups(ids[:, :depth]), pairs, rng)
        if not len(one):
            continue
        row = {"prefix": float(depth), "cosine": _mean_cosine(x, one, other), "pairs": float(len(one))}
        if labels is not None:
            known = (labels[one] >= 0) & (labels[other] >= 0)
            row["purity"] = float((labels[one] == labels[other])[known].mean()) if known.any() else float("nan")
        rows.append(row)
    return rows


def drawn_pairs(group: Ids, count: int, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Pairs of different items of one group: an item is drawn of all that have company, then its company."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    company = np.flatnonzero(sizes[group] > 1)
    if not len(company):
        return company, company
    one = company[rng.integers(0, len(company), count)]
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - starts[group[order]]
    size = sizes[group[one]]
    step = 1 + (rng.random(count) * (size - 1)).astype(np.int64)
    return one, order[starts[group[one]] + (place[one] + step) % size]


def _mean_cosine(x: Tensor, one: Ids, other: Ids) -> float:
    total = 0.0
    for rows, beside in zip(np.array_split(one, 1 + len(one) // 8192), np.array_split(other, 1 + len(one) // 8192),
                            strict=True):  # fmt: skip
        total += float((x[torch.from_numpy(rows)] * x[torch.from_numpy(beside)]).sum())
    return total / len(one)


def queries_of(count: int, seed: int = 0) -> Tensor:
    """Items whose neighbours are looked at, sorted."""
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:QUERIES]
    return drawn.sort().values


def neighbours(x: Tensor, queries: Tensor, count: int = NEIGHBOURS) -> Tensor:
    """(N, F), (Q,) -> (Q, count) the items nearest to each query, without itself; a tie may fall to either."""
    square, out = x.square().sum(1), []
    for rows in queries.split(max(1, _BLOCK // max(len(x), 1))):
        # Smaller is nearer; |q|^2 is the same for all.
        distance = square - 2 * x[rows] @ x.T
        distance[torch.arange(len(rows)), rows] = torch.inf
        out.append(distance.topk(min(count, len(x) - 1), largest=False).indices)
    return torch.cat(out)


def overlap(one: Tensor, other: Tensor) -> float:
    """(Q, k) twice -> the share of the first's neighbours that the second's hold too."""
    return float((one[:, :, None] == other[:, None, :]).any(2).float().mean())


def adjusted_rand(one: Ids, other: Ids) -> float:
    """Agreement of two partitions (N,) of the same items: 1 is the same, 0 what chance gives (Hubert and Arabie)."""
    both = np.bincount(groups(np.stack([one, other], 1))).astype(np.float64)
    mine, theirs = (np.bincount(groups(part[:, None])).astype(np.float64) for part in (one, other))
    together, a, b = (float((n * (n - 1)).sum() / 2) for n in (both, mine, theirs))
    chance = a * b / (len(one) * (len(one) - 1) / 2)
    most = (a + b) / 2
    return 1.0 if most == chance else (together - chance) / (most - chance)

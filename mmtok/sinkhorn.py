"""Collisions parted by the last level: items of the same codes are spread over its codes, evenly and as near as may be.

Zheng et al. 2023, LC-Rec (arXiv 2311.09049): optimal transport of the colliding items to the codes, by Sinkhorn's
iterations, in rounds until nothing collides or nothing changes. What it costs is a less near last code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtok.grouping import Ids, groups

Floats = NDArray[np.floating[Any]]


def reassign(
    ids: Ids, costs: Callable[[Ids], Floats], *, epsilon: float = 0.003, iterations: int = 50, rounds: int = 20
) -> Ids:
    """Codes (N, L) -> (N, L), with other last codes where rows were equal.

    Only items that collide move, and only to codes that no other item of their prefix holds alone: LC-Rec moves each
    group by itself, onto whatever is there. It is deterministic. Equal vectors get equal codes still: nothing parts
    them.

    Args:
        ids: of all items.
        costs: rows (n,) -> (n, K) squared distances to what each last code would make of them.
        epsilon: of the transport; smaller is nearer to the best assignment.
        iterations: of Sinkhorn.
        rounds: at most.
    """
    out = ids.copy()
    families = by_prefix(out)
    for _ in range(rounds):
        families = [family for family in families if _spread(out, family, costs, epsilon, iterations)]
        if not families:
            break
    return out


def by_prefix(ids: Ids) -> list[Ids]:
    """The rows of (N, L) that share their first L - 1 levels, where two of them share the last as well."""
    prefix, whole = groups(ids[:, :-1]), groups(ids)
    order = np.argsort(prefix, kind="stable")
    families = np.split(order, np.flatnonzero(np.diff(prefix[order])) + 1)
    shared = np.bincount(whole, minlength=1)[whole] > 1
    return [family for family in families if shared[family].any()]


def _spread(out: Ids, family: Ids, costs: Callable[[Ids], Floats], epsilon: float, iterations: int) -> bool:
    """One round of one prefix, in place; whether anything moved."""
    last = out[family, -1]
    alone = np.bincount(last)[last] == 1
    rows = family[~alone]
    if not len(rows):
        return False
    cost = costs(rows)
    open_ = np.setdiff1d(np.arange(cost.shape[1]), last[alone])
    chosen = open_[transport(cost[:, open_], epsilon, iterations).argmax(1)]
    moved = not np.array_equal(chosen, out[rows, -1])
    out[rows, -1] = chosen
    return moved


def transport(cost: Floats, epsilon: float, iterations: int) -> Floats:
    """Costs (n, K) -> the plan (n, K), in which each row gives 1 and no column takes more than 1, or n / K if n > K.

    LC-Rec has all columns take the same. Two items would share out 256 codes then, 128 each, and the largest entry of a
    row be any of them. Here a row of slack takes what is left, so that the largest entry is a near code.

    Costs are centred and scaled to [-1, 1] first, as LC-Rec does, so that `epsilon` means the same for any vectors. The
    sums are taken of logarithms: exp(-1 / 0.003) is no number of float32.
    """
    rows, columns = cost.shape
    middle, amplitude = (cost.max() + cost.min()) / 2, (cost.max() - cost.min()) / 2 + 1e-5
    log = (middle - cost.astype(np.float64)) / amplitude / epsilon
    given, taken = np.zeros((rows, 1)), np.log(max(rows, columns) / columns)
    if columns > rows:
        log = np.concatenate([log, np.zeros((1, columns))])
        given = np.concatenate([given, [[np.log(columns - rows)]]])
    for _ in range(iterations):
        log += taken - np.logaddexp.reduce(log, 0, keepdims=True)
        log += given - np.logaddexp.reduce(log, 1, keepdims=True)
    return np.exp(log[:rows])

"""Equal rows of codes, found without comparing each with each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def groups(ids: Ids) -> Ids:
    """(N, L) -> (N,) the number of each row's value among the distinct rows, which are sorted."""
    if not ids.shape[1]:
        return np.zeros(len(ids), dtype=np.int64)
    group = np.unique(ids[:, 0], return_inverse=True)[1].astype(np.int64)
    for level in range(1, ids.shape[1]):
        column = ids[:, level]
        # Pairs as one number: sorting rows as rows is many times slower.
        group = np.unique(group * (int(column.max(initial=0)) + 1) + column, return_inverse=True)[1].astype(np.int64)
    return group

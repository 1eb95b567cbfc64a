"""Where the wanted item stands in an answer: recall, NDCG and reciprocal rank, of one wanted item each.

Answers come of a ranking of all items. Metrics against a sample of negatives order models differently (Krichene and
Rendle 2020, "On Sampled Metrics for Item Recommendation").
"""

from __future__ import annotations

import torch
from torch import Tensor

NOWHERE = 1 << 40
"""Place of what an answer does not hold."""


def places(answers: Tensor, wanted: Tensor) -> Tensor:
    """Answers (N, K), best first, -1 for none, and what was wanted (N,) -> (N,) its place from 0, or `NOWHERE`."""
    hit = answers == wanted[:, None]
    return torch.where(hit.any(1), hit.int().argmax(1), NOWHERE)


def recall(place: Tensor, k: int) -> float:
    """Share of answers whose first k hold the wanted item."""
    return float((place < k).double().mean())


def ndcg(place: Tensor, k: int) -> float:
    """Discounted gain of one wanted item: 1 / log2(place + 2) within the first k, else 0."""
    return float((1 / (place.double() + 2).log2()).where(place < k, 0.0).mean())


def mrr(place: Tensor, k: int) -> float:
    """Mean of 1 / (place + 1), 0 beyond the first k."""
    return float((1 / (place.double() + 1)).where(place < k, 0.0).mean())


def strike(answers: Tensor, seen: Tensor) -> Tensor:
    """Answers (N, K) without the items of `seen` (N, S): the rest moves up, -1 fills the end."""
    out = (answers[..., None] == seen[:, None]).any(-1) | (answers < 0)
    order = out.int().argsort(dim=1, stable=True)
    return answers.masked_fill(out, -1).gather(1, order)

"""What ids know of classes: leave-one-out nearest neighbours on ids alone, without training anything.

Two readings of the same ids: `bag` compares how often each code occurs, wherever it stands (Hellinger similarity of the
histograms); `match` counts positions that hold the same code. Reconstruction alone favours neither, so both are given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BUCKETS = 8192
"""Most columns of a histogram; more distinct codes than that share columns by hash."""


@dataclass(frozen=True)
class ProbeResult:
    """Accuracies of a kNN probe, all in [0, 1]."""

    bag: float
    """Neighbours by the histogram of codes."""
    match: float
    """Neighbours by codes in the same place."""
    chance: float
    """Share of the most frequent class: what ids that say nothing reach."""
    samples: int
    """Labelled samples compared."""
    classes: int
    """Classes among them."""
    neighbours: int
    """Neighbours that voted."""

    @property
    def best(self) -> float:
        """The better of the two readings."""
        return max(self.bag, self.match)

    @property
    def error(self) -> float:
        """Standard error of an accuracy from so many samples."""
        return (self.best * (1 - self.best) / self.samples) ** 0.5


def probe_ids(ids: Tensor, labels: Tensor, neighbours: int = 10) -> ProbeResult | None:
    """Classify each sample by its nearest others.

    Args:
        ids: (N, L, T) int64, -1 where there is no code.
        labels: (N,) int64, -1 where unknown; those samples take no part.
        neighbours: how many vote, each with its similarity; fewer where there are fewer samples.

    Returns:
        The accuracies, or None where fewer than two classes or three samples are labelled.
    """
    known = labels >= 0
    ids, labels = ids[known], labels[known]
    classes, target = labels.unique(return_inverse=True)
    if len(labels) < 3 or len(classes) < 2:
        return None
    k = min(neighbours, len(labels) - 1)
    histogram = histograms(ids)
    return ProbeResult(
        bag=_accuracy(histogram @ histogram.T, target, len(classes), k),
        match=_accuracy(_matches(ids), target, len(classes), k),
        chance=float(target.bincount().max()) / len(labels),
        samples=len(labels),
        classes=len(classes),
        neighbours=k,
    )


def _accuracy(similarity: Tensor, target: Tensor, classes: int, k: int) -> float:
    """Similarities (N, N), which are overwritten, and classes (N,) -> share of samples voted right."""
    similarity.fill_diagonal_(-1.0)  # a sample is not its own neighbour
    weight, nearest = similarity.topk(k, dim=1)
    # The small constant lets neighbours vote where nothing is similar.
    votes = torch.zeros(len(target), classes, device=target.device)
    votes.scatter_add_(1, target[nearest], weight.float() + 1e-6)
    return int((votes.argmax(1) == target).sum()) / len(target)


def histograms(ids: Tensor) -> Tensor:
    """(N, L, T), -1 where there is no code -> (N, columns) roots of the relative frequencies of the codes.

    Levels have columns of their own.
    """
    count, levels, _ = ids.shape
    width = int(ids.max()) + 1
    level = torch.arange(levels, device=ids.device)[:, None] * width
    used, column = (ids + level).flatten().unique(return_inverse=True)
    if len(used) > BUCKETS:
        column = (column * 2654435761) % 4294967291 % BUCKETS
    columns = min(len(used), BUCKETS)
    histogram = torch.zeros(count, columns, device=ids.device)
    histogram.scatter_add_(1, column.view(count, -1), (ids >= 0).flatten(1).float())
    return (histogram / histogram.sum(1, keepdim=True).clamp(min=1)).sqrt()


def _matches(ids: Tensor) -> Tensor:
    """(N, L, T) -> (N, N) share of the places that hold the same code in both."""
    flat = ids.flatten(1).float()  # exact below 2^24
    # The zeroth norm counts the places that differ. A place without a code equals nothing, not even another such.
    differ = torch.cdist(flat, flat.masked_fill(flat < 0, -2.0), p=0.0)
    return 1 - differ / flat.shape[1]

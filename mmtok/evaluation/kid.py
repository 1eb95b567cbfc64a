"""The kernel distance between two sets of features: a Frechet distance's sibling whose estimate has no bias."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SUBSETS, LARGEST, SEED = 100, 1000, 0
"""Subsets drawn, pictures in each at most, and the seed of the draw."""
KEPT = 4000
"""Pictures whose features are kept for it at most, the first ones: it compares every picture with every other."""
LEAST = 4
"""Fewer pictures have no two subsets that differ."""


class KernelDistance(NamedTuple):
    """Squared maximum mean discrepancy over subsets."""

    mean: float
    std: float
    """Of the subsets' estimates. They share pictures: it is a scale, not a standard error."""
    size: int
    """Pictures of a subset."""


def kernel_distance(a: Tensor, b: Tensor) -> KernelDistance:
    """Binkowski et al. 2018 (arXiv 1801.01401): MMD^2 with the kernel (x.y / D + 1)^3, unbiased, on random subsets.

    Row i of both sets belongs to one picture, and both sides of a subset are the same pictures. Gretton et al.'s
    estimator over pairs i != j stays unbiased then, because a picture is never compared with its own reconstruction;
    two equal sets are at exactly 0.

    Args:
        a: features (N, D), N at least `LEAST`.
        b: features (N, D).
    """
    assert a.shape == b.shape, (a.shape, b.shape)
    assert len(a) >= LEAST, len(a)
    a, b = a.double(), b.double()
    count, size = len(a), min(LARGEST, len(a) // 2)
    cross = _kernel(a, b)
    pairs = _kernel(a, a) + _kernel(b, b) - cross - cross.T
    pairs.fill_diagonal_(0.0)
    generator = torch.Generator().manual_seed(SEED)
    chosen = torch.zeros(SUBSETS, count, dtype=torch.float64)
    for row in chosen:
        row[torch.randperm(count, generator=generator)[:size]] = 1.0
    estimates = ((chosen @ pairs) * chosen).sum(1) / (size * (size - 1))
    return KernelDistance(float(estimates.mean()), float(estimates.std(correction=0)), size)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3

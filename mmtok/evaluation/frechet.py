"""The Frechet distance between two sets of features, from sums that ranks can add."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

ENOUGH = 2000
"""Pictures below which the distance is mostly the bias of its covariances."""
_ROUNDING = 1e-13
"""Of sums in float64, as a share of them."""


class FeatureSums:
    """Count, sum and outer products of features (N, D), float64.

    Attributes:
        sums: (1 + D + D * D,), to be added over ranks before use.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.dim = dim
        self.sums = torch.zeros(1 + dim + dim * dim, dtype=torch.float64, device=device)

    def update(self, features: Tensor) -> None:
        """Features (B, D) of some pictures."""
        features = features.to(self.sums)
        self.sums[0] += len(features)
        self.sums[1 : 1 + self.dim] += features.sum(0)
        self.sums[1 + self.dim :] += (features.T @ features).flatten()

    @property
    def count(self) -> int:
        """Pictures so far."""
        return int(self.sums[0])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and unbiased covariance (D, D), on the CPU."""
        sums = self.sums.cpu()
        count, mean = sums[0], sums[1 : 1 + self.dim] / sums[0]
        outer = sums[1 + self.dim :].view(self.dim, self.dim)
        covariance = outer - count * torch.outer(mean, mean)
        # What is left of features that do not vary is rounding, which no eigenvalues are found of: a collapsed codebook
        # decodes to one picture.
        return mean, covariance.where(covariance.abs() > _ROUNDING * outer.abs(), 0.0) / (count - 1)


def frechet_distance(a: FeatureSums, b: FeatureSums) -> float:
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)), float64; warns where there are too few pictures to mean much.

    Raises:
        ValueError: fewer than two pictures on a side.
    """
    fewest = min(a.count, b.count)
    if fewest < 2:
        raise ValueError(f"A Frechet distance needs two pictures or more on either side, got {fewest}.")
    if fewest < ENOUGH:
        warnings.warn(
            f"A Frechet distance over {fewest} pictures is mostly bias: use {ENOUGH:,} or more.", stacklevel=2
        )
    (mean_a, cov_a), (mean_b, cov_b) = a.moments(), b.moments()
    # (A B)^(1/2) has the trace of (A^(1/2) B A^(1/2))^(1/2), which is symmetric: its eigenvalues are real, and those
    # that rounding makes negative are zeros. A general matrix root gives imaginary dust for the same.
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)

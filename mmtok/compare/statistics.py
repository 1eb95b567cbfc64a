"""Means, intervals, and which arms the intervals tell apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy.stats import t as student

from mmtok.report.numbers import spread

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A figure of an arm over its seeds."""

    mean: float
    half: float | None
    """Half the width of the 95 % interval (Student's t); None of fewer than two seeds."""
    count: int

    def __str__(self) -> str:
        centre, half = spread(self.mean, self.half)
        return centre + (f" ± {half}" if half else "")


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and interval of one figure."""
    if len(values) < 2:
        return Mean(fmean(values), None, len(values))
    half = quantile(len(values) - 1) * math.sqrt(variance(values) / len(values))
    return Mean(fmean(values), half, len(values))


def separated(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether the 95 % interval of the difference of two means leaves out zero (Welch 1947); never of a single seed."""
    if len(a) < 2 or len(b) < 2:
        return False
    parts = [variance(values) / len(values) for values in (a, b)]
    difference, error = abs(fmean(a) - fmean(b)), math.sqrt(sum(parts))
    if error == 0:
        return difference > 0
    freedom = sum(parts) ** 2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (a, b), strict=True))
    return difference > quantile(freedom) * error


def ranks(figures: Mapping[str, Sequence[float]], higher: bool) -> dict[str, tuple[int, int]]:
    """Arm -> the places it may have: from one more than the arms that are surely better, to those surely worse.

    Args:
        figures: arm -> the figure of each seed.
        higher: whether more is better.
    """
    sign = 1 if higher else -1
    found = {}
    for arm, own in figures.items():
        apart = [fmean(other) - fmean(own) for name, other in figures.items() if name != arm and separated(own, other)]
        better = sum(sign * difference > 0 for difference in apart)
        found[arm] = (1 + better, len(figures) - (len(apart) - better))
    return found


def quantile(freedom: float) -> float:
    """Two-sided 95 % quantile of Student's t with these degrees of freedom."""
    return float(student.ppf((1 + CONFIDENCE) / 2, freedom))

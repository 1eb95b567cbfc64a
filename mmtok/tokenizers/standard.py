"""Vectors with each channel's mean taken off and its deviation divided out, as measured once on a training set."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mmtok.reduce import of_first_rank

_CONSTANT = 1e-6
"""A channel that varies by less than this share of the largest deviation is a constant."""


class Standard(nn.Module):
    """x (B, F) -> (B, F); nothing changes until `measure`.

    Attributes:
        mean: (F,) of the training set.
        deviation: (F,) of the training set; 1 where a channel is constant.
        measured: () int64, vectors behind the two; 0 until `measure`. A buffer, so that a run that goes on knows.
    """

    mean: Tensor
    deviation: Tensor
    measured: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("measured", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation

    def back(self, x: Tensor) -> Tensor:
        """The inverse."""
        return x * self.deviation + self.mean

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Take mean and deviation of vectors (n, F), the first rank's: machines round sums differently, and ranks must
        not part. A collective.

        Raises:
            ValueError: there are none.
        """
        count, mean, square = 0, torch.zeros(self.mean.shape, dtype=torch.float64), torch.zeros(())
        for rows in batches:
            count, mean, square = _gather(count, mean, square, rows.double().cpu())
        if not count:
            raise ValueError("there is nothing to measure: the training set gave no vector.")
        deviation = (square / count).sqrt()
        constant = deviation <= _CONSTANT * deviation.max()
        found = torch.stack([mean, deviation.masked_fill(constant, 1.0)]).float().to(self.mean.device)
        found = of_first_rank(found)
        self.mean.copy_(found[0])
        self.deviation.copy_(found[1])
        self.measured.fill_(count)


def _gather(count: int, mean: Tensor, square: Tensor, rows: Tensor) -> tuple[int, Tensor, Tensor]:
    """Number, mean and summed squared deviations of more rows, without loss of digits (Chan et al. 1983)."""
    if not len(rows):
        return count, mean, square
    own = rows.mean(0)
    total = count + len(rows)
    apart = own - mean
    square = square + (rows - own).square().sum(0) + apart.square() * count * len(rows) / total
    return total, mean + apart * len(rows) / total, square

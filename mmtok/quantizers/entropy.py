"""Entropies of how latents are assigned to codes: low for each latent, high for the mean over all of them.

The entropy of the mean is of the mean over all ranks, exactly (image.md trap 5). Over the corners of a hypercube the
softmax factorises into one probability a bit, so the entropy of a sample is a sum of d binary ones, and the mean
distribution over 2^d codes is one product of two 2^(d/2) tables (image.md section 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmtok.quantizers.base import Context
from mmtok.reduce import mean_over_ranks

_TABLE_ENTRIES = 1 << 19
"""Entries of the two half tables that are held at a time: 2 MB, so that a chunk stays in the cache."""


def weights(rows: Tensor, context: Context) -> Tensor:
    """Rows (N, ...) of all positions -> (N,) 1 where there is a latent, 0 where there is none."""
    # Not len(), which a program that is exported would take for a constant.
    return rows.new_ones(rows.shape[0]) if context.mask is None else context.mask.flatten().to(rows.dtype)


def negated_entropy(sums: Tensor, rows: int, context: Context, *, together: bool) -> Tensor:
    """Minus the entropy of the mean distribution, in nats, since it is to be high.

    Args:
        sums: of the distributions of this rank's latents, any shape.
        rows: positions of this rank, where there is no mask.
        context: of the call.
        together: take the mean over ranks. A collective: one rank alone may encode, and must not wait.
    """
    if together:
        # The gradient is taken as if this rank's part were the whole: every rank does so from the same mean, and DDP's
        # average divides by their number.
        sums = mean_over_ranks(sums.detach()) + (sums - sums.detach())
    mean = sums / (max(rows, 1) if context.valid is None else context.valid)
    return torch.xlogy(mean, mean.clamp(min=1e-30)).sum()


def binary_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of bits with these logits, exact where the probability itself would round to 1."""
    size = logits.abs()
    return F.softplus(-size) + size * torch.sigmoid(-size)


def _half_tables(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, d) -> probabilities of the first d // 2 bits together (N, 2^(d // 2)), and of the others."""
    pairs = torch.stack([torch.sigmoid(-logits), torch.sigmoid(logits)], -1)
    half = logits.shape[1] // 2
    tables = []
    for part in (pairs[:, :half], pairs[:, half:]):
        table = logits.new_ones(len(logits), 1)
        for bit in reversed(part.unbind(1)):  # the first bit last: the long axis stays innermost, which is fast
            table = (bit[:, :, None] * table[:, None]).flatten(1)
        tables.append(table)
    return tables[0], tables[1]


def _bit_table(bits: int, like: Tensor) -> Tensor:
    """(2^bits, bits) of 0 and 1: row c holds the bits of c, the first most significant."""
    shifts = torch.arange(bits - 1, -1, -1, device=like.device)
    return (torch.arange(2**bits, device=like.device)[:, None] >> shifts & 1).to(like.dtype)


class JointSum(torch.autograd.Function):
    """Logits (N, d), weights (N,) -> sum over N of the weighted distribution of the codes, as (2^(d//2), 2^(d-d//2)).

    The half tables are made chunk by chunk, and again in backward, so that neither (N, 2^d) nor (N, 2^(d/2)) is kept.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(logits, weight)
        half = logits.shape[1] // 2
        total = logits.new_zeros(2**half, 2 ** (logits.shape[1] - half))
        for x, w in _chunks(logits, weight):
            first, second = _half_tables(x)
            total.addmm_((first * w[:, None]).T, second)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, weight = ctx.saved_tensors
        half = logits.shape[1] // 2
        bits = _bit_table(half, grad), _bit_table(logits.shape[1] - half, grad)
        parts = []
        for x, w in _chunks(logits, weight):
            first, second = _half_tables(x)
            first *= w[:, None]
            # The derivative of a table's entry by the logit of its bit i is entry * (bit i - p_i).
            by_first, by_second = (second @ grad.T) * first, (first @ grad) * second
            total = by_first.sum(1, keepdim=True)
            parts.append(torch.cat([by_first @ bits[0], by_second @ bits[1]], 1) - torch.sigmoid(x) * total)
        return torch.cat(parts), None


def _chunks(logits: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    half = logits.shape[1] // 2
    rows = max(512, _TABLE_ENTRIES // (2**half + 2 ** (logits.shape[1] - half)))
    return zip(logits.split(rows), weight.split(rows), strict=True)

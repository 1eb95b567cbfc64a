"""Sums over ranks, for state and losses. Distributed state is read at call time: quantizers are often built before it.

Entries of `stats` are sums that add up over ranks and accumulated batches, all but the samples: an entry whose last
name starts with `sample_` holds rows, and those of several batches or ranks stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
import torch.distributed.nn
from torch import Tensor

SAMPLE = "sample_"
"""Prefix of the entries of `stats` that are rows to put side by side, and not sums."""


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_sample(name: str) -> bool:
    """Whether an entry of `stats` holds rows; `name` may be prefixed by a level ("3.sample_keys")."""
    return name.rpartition(".")[2].startswith(SAMPLE)


def merge_stats(stats: Mapping[str, Tensor], more: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stats of two batches as one: sums add up, samples stand side by side. Either may lack entries of the other."""
    merged = dict(stats)
    for name, value in more.items():
        if name not in merged:
            merged[name] = value
        else:
            merged[name] = torch.cat([merged[name], value]) if is_sample(name) else merged[name] + value
    return merged


@torch.no_grad()
def reduce_stats(stats: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The stats of all ranks as one, by a single float32 all-reduce whatever the number of entries.

    Every rank must hold the same names and shapes. Counts stay exact up to 2^24 a code.
    """
    world = world_size()
    if world == 1 or not stats:
        return dict(stats)
    rank = dist.get_rank()
    parts = []
    for name, value in stats.items():
        if is_sample(name):  # a gather written as a sum: each rank fills its own slot
            slots = value.new_zeros((world, *value.shape), dtype=torch.float32)
            slots[rank] = value
            value = slots
        parts.append(value.reshape(-1).float())
    packed = torch.cat(parts)
    dist.all_reduce(packed)
    reduced = {}
    for (name, value), flat in zip(stats.items(), packed.split([part.numel() for part in parts]), strict=True):
        shape = (world * value.shape[0], *value.shape[1:]) if is_sample(name) else value.shape
        reduced[name] = flat.view(shape).to(value.dtype)
    return reduced


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over ranks, without a gradient. A collective: every rank must call it."""
    world = world_size()
    if world == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world


def gather_rows(x: Tensor) -> Tensor:
    """Rows (B, ...) of every rank, in the order of ranks (world * B, ...), with their gradients.

    A collective, and one more in backward: every rank must call it with as many rows.
    """
    world = world_size()
    if world == 1:
        return x
    slots = x.new_zeros(world, *x.shape)
    slots[dist.get_rank()] = x
    # What it returns, not what it was given: it is not in place (image.md trap 5).
    gathered: Tensor = torch.distributed.nn.functional.all_reduce(slots)
    return gathered.flatten(0, 1)


def per_rank(counts: Tensor, *, together: bool) -> Tensor:
    """Counts of valid elements that sums are divided by; none count as 1, of all ranks together.

    Args:
        counts: of this rank, float32.
        together: take their mean over ranks, so that DDP's average of what the ranks get is the mean over all elements.
            A collective: ranks meet in training alone.
    """
    if not together:
        return counts.clamp(min=1.0)
    # A single element of two ranks is half a one of each: taken for a whole one, it would count half.
    return mean_over_ranks(counts).clamp(min=1 / world_size())


def of_first_rank(value: Tensor) -> Tensor:
    """The first rank's tensor, on every rank. A collective: every rank must call it."""
    if world_size() > 1:
        value = value.clone()
        dist.broadcast(value, 0)
    return value

"""Random draws of a step, from counters: the same whatever the ranks, workers, accumulation or restarts."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtok.quantizers.base import Quantizer
from mmtok.tokenizers.base import Tokenizer


def mixed(*counters: int) -> int:
    """63 bits made of counters (seed, purpose, step, ...), each of them below 2^63."""
    state = 0
    for counter in counters:  # splitmix64: neighbouring counters give unrelated states
        state = (state + counter + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state % 2**63


def generator(*counters: int) -> torch.Generator:
    """A CPU generator made of counters."""
    return torch.Generator().manual_seed(mixed(*counters))


def draw_levels(
    quantizer: Quantizer, seed: int, step: int, batch_size: int, *, rank: int, world: int, part: slice
) -> Tensor | None:
    """Levels to keep (B,) of this rank's items, or None where the quantizer drops none.

    Drawn for all `batch_size` slots of the update; those of a rank are rank, rank + world, ... as in the stream.

    Args:
        quantizer: says by `draw_levels(count, generator)` what it wants.
        seed: of the run.
        step: update.
        batch_size: slots of the update.
        rank: this process.
        world: processes.
        part: this accumulated batch's slots among the rank's.
    """
    drawn = quantizer.draw_levels(batch_size, generator(seed, 1, step))
    return None if drawn is None else drawn[rank::world][part]


def draw_positions(
    tokenizer: Tokenizer, seed: int, step: int, batch_size: int, *, rank: int, world: int, part: slice
) -> Tensor | None:
    """First positions to keep (B,) of this rank's items, or None where the tokenizer keeps all. Arguments as above."""
    drawn = tokenizer.draw_positions(batch_size, generator(seed, 4, step))
    return None if drawn is None else drawn[rank::world][part]


def draw_digits(
    quantizer: Quantizer, seed: int, step: int, batch_size: int, *, rank: int, world: int, part: slice
) -> Tensor | None:
    """Leading digits to keep (B,) of this rank's items, or None where the quantizer keeps all. Arguments as above."""
    drawn = quantizer.draw_digits(batch_size, generator(seed, 5, step))
    return None if drawn is None else drawn[rank::world][part]


def draw_seeds(
    quantizer: Quantizer, seed: int, step: int, batch_size: int, *, rank: int, world: int, part: slice
) -> Tensor | None:
    """Seeds (B,) of the quantizer's noise in this rank's items, or None where it adds none. Arguments as above."""
    if not quantizer.noisy:
        return None
    return torch.randint(2**62, (batch_size,), generator=generator(seed, 3, step))[rank::world][part]


def draw_seed(seed: int, step: int, micro: int, rank: int) -> int:
    """Seed of dropout in one batch of one rank."""
    return mixed(seed, 2, step, micro, rank) % 2**31

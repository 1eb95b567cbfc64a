"""Noise from counters: what a position of an item gets depends on its seed alone, not on ranks, batches or devices.

A hash of (seed of the item, position, code) in 32-bit integers, so that the noise of any chunk can be made again in
backward, and is never kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - (1 << 32)
"""The multipliers of lowbias32 (Chris Wellons, "Prospecting for Hash Functions"), as signed numbers."""
_APART = 0x3C6EF372


def row_keys(seeds: Tensor, positions: int) -> Tensor:
    """Seeds (B,) int64, one an item -> (B * positions,) int32, one key a position."""
    low, high = seeds.to(torch.int32), (seeds >> 32).to(torch.int32)
    item = _mixed(low ^ _mixed(high))
    # Moved apart from small seeds: position 2 of seed 1 must not be position 1 of seed 2.
    places = _mixed(torch.arange(positions, dtype=torch.int32, device=seeds.device) + _APART)
    return _mixed(item[:, None] ^ places).flatten()


def gumbel(keys: Tensor, size: int) -> Tensor:
    """Keys (N,) int32 -> standard Gumbel draws (N, size) float32."""
    codes = _mixed(torch.arange(size, dtype=torch.int32, device=keys.device) + size)
    bits = _mixed(keys[:, None] ^ codes)
    # 23 bits, and the middle of each step, which float32 holds: neither 0 nor 1, of which the logarithms are infinite.
    uniform = ((bits >> 9) & 0x7FFFFF).float().add_(0.5).mul_(2.0**-23)
    return uniform.log_().neg_().log_().neg_()


def _mixed(x: Tensor) -> Tensor:
    """Every bit of the result depends on every bit of x (int32)."""
    x = (x ^ (x >> 16 & 0xFFFF)) * _FIRST
    x = (x ^ (x >> 15 & 0x1FFFF)) * _SECOND
    return x ^ (x >> 16 & 0xFFFF)

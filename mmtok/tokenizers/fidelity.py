"""How near a reconstruction is to its signal, item by item and within each item's own size: what budgets ask for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Measure = Callable[[Tensor, Tensor, Tensor], Tensor]
"""x, its reconstruction (B, C, ...), where they count (B, 1, ...) -> a figure of each item (B,), higher is better."""


def counting(source_size: Tensor, x: Tensor) -> Tensor:
    """(B, 1, ...) True within each item's own size of x (B, C, ...); a vector (B, F) has one size."""
    if x.ndim == 2:
        return torch.ones((len(x), 1), dtype=torch.bool, device=x.device)
    within = torch.ones((len(x), 1, *x.shape[2:]), dtype=torch.bool, device=x.device)
    for axis in range(source_size.shape[1]):
        place = torch.arange(x.shape[2 + axis], device=x.device).view(-1, *(1,) * (x.ndim - 3 - axis))
        within = within & (place < source_size[:, axis].view(-1, *(1,) * (x.ndim - 1)))
    return within


def psnr(x: Tensor, y: Tensor, within: Tensor) -> Tensor:
    """Decibels of the 8-bit picture's range over its error, as evaluation measures it."""
    x, y = (((one.clamp(-1, 1) + 1) * 127.5).round() for one in (x, y))
    return 10 * (255**2 / _mean((x - y).square(), within).clamp(min=1e-2)).log10()


SILENCE = 1e-8
"""Energy that a signal counts as at least, -80 dB of full scale: silence is met by errors that nobody hears."""


def snr(x: Tensor, y: Tensor, within: Tensor) -> Tensor:
    """Decibels of the signal's energy over its error's."""
    energy = _mean(x.square(), within).clamp(min=SILENCE)
    return 10 * (energy / _mean((x - y).square(), within).clamp(min=1e-12)).log10()


def fidelity_of(modality: str) -> tuple[Measure, str]:
    """What signals of a modality are measured by, and its name: psnr of pictures, snr of all others."""
    return (psnr, "psnr") if modality == "image" else (snr, "snr")


def _mean(values: Tensor, within: Tensor) -> Tensor:
    within = within.expand_as(values)
    return (values * within).flatten(1).sum(1) / within.flatten(1).sum(1).clamp(min=1)

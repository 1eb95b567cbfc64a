"""Measures of a batch that training logs. Evaluation's own, on rounded pixels, are in `evaluation/metrics.py`."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def psnr(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each item in dB (B,), for signals (B, C, ...) in [-1, 1], not rounded to pixels."""
    error = (reconstruction.float().clamp(-1, 1) - x.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error.clamp(min=1e-10))

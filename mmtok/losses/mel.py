"""Mel filter banks: triangles over the bins of an STFT, evenly spaced in pitch as it is heard."""

from __future__ import annotations

from math import log
from typing import Literal

import torch
from torch import Tensor

MelScale = Literal["slaney", "htk"]
"""slaney: linear to 1 kHz and logarithmic above, bands of equal area (librosa); htk: one formula, bands of equal height
(torchaudio). Values of the two cannot be compared (audio.md trap 38)."""

_SLANEY_STEP, _SLANEY_KNEE = 200 / 3, 1000.0
"""Hz a mel below the knee, and the knee."""
_SLANEY_LOG = log(6.4) / 27
"""Growth of frequency a mel above the knee."""


def mel_filters(window: int, bands: int, sample_rate: int, low: float, high: float, scale: MelScale) -> Tensor:
    """Weights (bands, window / 2 + 1) of each bin in each band.

    Raises:
        ValueError: the edges are not in 0 <= low < high <= sample_rate / 2.
    """
    if not 0 <= low < high <= sample_rate / 2:
        raise ValueError(
            f"Mel bands from {low:g} to {high:g} Hz do not fit a sample rate of {sample_rate}: "
            f"low and high must be in order, within 0 .. {sample_rate / 2:g}."
        )
    ends = _to_mel(torch.tensor([low, high], dtype=torch.float64), scale)
    mels = ends[0] + (ends[1] - ends[0]) * torch.linspace(0, 1, bands + 2, dtype=torch.float64)
    edges = _to_hertz(mels, scale)
    bins = torch.linspace(0, sample_rate / 2, window // 2 + 1, dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp(min=0)
    if scale == "slaney":
        filters = filters * (2 / (edges[2:] - edges[:-2]))[:, None]
    return filters.float()


def _to_mel(hertz: Tensor, scale: MelScale) -> Tensor:
    if scale == "htk":
        return 2595 * (1 + hertz / 700).log10()
    above = _SLANEY_KNEE / _SLANEY_STEP + (hertz.clamp(min=_SLANEY_KNEE) / _SLANEY_KNEE).log() / _SLANEY_LOG
    return torch.where(hertz < _SLANEY_KNEE, hertz / _SLANEY_STEP, above)


def _to_hertz(mel: Tensor, scale: MelScale) -> Tensor:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = _SLANEY_KNEE * (_SLANEY_LOG * (mel - _SLANEY_KNEE / _SLANEY_STEP)).exp()
    return torch.where(mel < _SLANEY_KNEE / _SLANEY_STEP, mel * _SLANEY_STEP, above)

"""Discriminators of periods: each part sees every p-th sample side by side, as the rows of a picture.

Kong et al. 2020, HiFi-GAN (arXiv 2010.05646), as in DAC (Kumar et al. 2023, arXiv 2306.06546). What repeats with a
period, or fails to, stands out in one of them; primes keep the parts from seeing the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.networks.discriminators.base import register_discriminator
from mmtok.networks.discriminators.sound import SoundConfig, SoundDiscriminator, Stack, conv2d, leaky

_SLOPE = 0.1


@dataclass(frozen=True, kw_only=True)
class MPDConfig(SoundConfig):
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """One part each, in samples."""
    channels: int = 32
    """Width of the first layer; the others are 4, 16, 32 and 32 times as wide."""

    def __post_init__(self) -> None:
        if min(self.periods, default=0) < 1 or self.channels < 1:
            raise ValueError(
                f"periods and channels must be at least 1, got {list(self.periods)} and {self.channels}. "
                "Published: [2, 3, 5, 7, 11] and 32."
            )


@register_discriminator("mpd", MPDConfig)
class MPD(SoundDiscriminator):
    """A part of mono has weights of 5 * 32, 5 * 32 * 128, 5 * 128 * 512, 5 * 512 * 1024, 5 * 1024 * 1024 and 3 * 1024
    numbers, and two more a channel for its norm and bias: 8,221,154, five times 41,105,770.
    """

    config: MPDConfig

    def __init__(self, config: MPDConfig) -> None:
        parts: list[nn.Module] = [_Period(period, config) for period in config.periods]
        super().__init__(config, parts, least=max(config.periods))


class _Period(nn.Module):
    def __init__(self, period: int, config: MPDConfig) -> None:
        super().__init__()
        self.period = period
        widths = [config.in_channels, *(config.channels * factor for factor in (1, 4, 16, 32))]
        layers: list[nn.Module] = []
        for width, wider in pairwise(widths):
            layers += [conv2d(width, wider, (5, 1), stride=(3, 1)), leaky(_SLOPE)]
        layers += [conv2d(widths[-1], widths[-1], (5, 1)), leaky(_SLOPE)]
        self.stack = Stack(*layers, conv2d(widths[-1], 1, (3, 1)))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = F.pad(x, (0, -x.shape[-1] % self.period), mode="reflect")
        return self.stack(x.unflatten(-1, (-1, self.period)))

"""Discriminators of waveforms at several rates: the signal as it is, halved, and halved again.

Kumar et al. 2019, MelGAN (arXiv 1910.06711), as in SoundStream (Zeghidour et al. 2021, arXiv 2107.03312). Its grouped
convolutions see long stretches at little cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from mmtok.networks.discriminators.base import register_discriminator
from mmtok.networks.discriminators.sound import SoundConfig, SoundDiscriminator, Stack, conv1d, leaky

_SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class MSDConfig(SoundConfig):
    scales: int = 3
    """Parts; each but the first sees half the rate of the one before."""
    channels: int = 16
    """Width of the first layer, a multiple of 4; each of four grouped layers is 4 times as wide, up to 64 times."""

    def __post_init__(self) -> None:
        if self.scales < 1 or self.channels < 4 or self.channels % 4:
            raise ValueError(
                f"scales must be at least 1 and channels a multiple of 4, got {self.scales} and {self.channels}. "
                "Published: 3 and 16."
            )


@register_discriminator("msd", MSDConfig)
class MSD(SoundDiscriminator):
    """A part of mono has weights of 15 * 16, 41 * 4 * (64 + 256 + 1024 + 1024), 5 * 1024 * 1024 and 3 * 1024 numbers,
    and two more a channel for its norm and bias: 5,641,362, three times 16,924,086.
    """

    config: MSDConfig

    def __init__(self, config: MSDConfig) -> None:
        parts: list[nn.Module] = [_Scale(halvings, config) for halvings in range(config.scales)]
        super().__init__(config, parts, least=2 ** (config.scales - 1))


class _Scale(nn.Module):
    def __init__(self, halvings: int, config: MSDConfig) -> None:
        super().__init__()
        halve = [nn.AvgPool1d(4, stride=2, padding=1, count_include_pad=False) for _ in range(halvings)]
        self.halve = nn.Sequential(*halve)
        widths = [config.channels * factor for factor in (1, 4, 16, 64, 64)]
        layers = [conv1d(config.in_channels, widths[0], 15), leaky(_SLOPE)]
        for width, wider in pairwise(widths):
            layers += [conv1d(width, wider, 41, stride=4, groups=width // 4), leaky(_SLOPE)]
        layers += [conv1d(widths[-1], widths[-1], 5), leaky(_SLOPE)]
        self.stack = Stack(*layers, conv1d(widths[-1], 1, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.stack(self.halve(x))

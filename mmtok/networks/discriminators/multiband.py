"""Discriminators of STFTs in bands, each with convolutions of its own: high frequencies are judged by their own.

The multi-resolution discriminator of DAC (Kumar et al. 2023, arXiv 2306.06546), to be used beside `mpd`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmtok.networks.discriminators.base import register_discriminator, run_layers
from mmtok.networks.discriminators.sound import ComplexSpectrum, SoundConfig, SoundDiscriminator, conv2d, leaky

_SLOPE = 0.1
_NARROWEST = 5
"""Bins of a band that leave two to its third halving: one bin has nothing beside it to see, and oneDNN 3 gives wrong
gradients of a kernel over one column in bfloat16 on a CPU."""


@dataclass(frozen=True, kw_only=True)
class MultibandConfig(SoundConfig):
    windows: tuple[int, ...] = (2048, 1024, 512)
    """One part each, in samples; hops are a quarter."""
    edges: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    """Of the bands, as shares of half the sample rate."""
    channels: int = 32
    """Width of every layer."""
    normalise: bool = True
    """Judge each item without its mean and at a peak of 0.8, as DAC does: the level is no evidence then."""

    def __post_init__(self) -> None:
        if not self.windows or any(window < 8 or window % 4 for window in self.windows) or self.channels < 1:
            raise ValueError(
                f"windows={list(self.windows)} must each be a multiple of 4, and 8 at least; "
                f"channels={self.channels} must be at least 1."
            )
        widths = [high - low for low, high in pairwise(bins_at(self.edges, min(self.windows)))]
        if not widths or self.edges[0] < 0 or self.edges[-1] > 1 or min(widths) < _NARROWEST:
            raise ValueError(
                f"edges={list(self.edges)} must rise within 0 .. 1, with {_NARROWEST} bins of the window of "
                f"{min(self.windows)} in each band. Example: [0, 0.1, 0.25, 0.5, 0.75, 1], and windows of 128 at least."
            )


def bins_at(edges: tuple[float, ...], window: int) -> list[int]:
    """The bins of a spectrum where bands begin and end."""
    return [int(edge * (window // 2 + 1)) for edge in edges]


@register_discriminator("multiband", MultibandConfig)
class Multiband(SoundDiscriminator):
    """A band of mono has weights of 27 * 2 * 32, three times 27 * 32 * 32 and 9 * 32 * 32 numbers, and two more a
    channel for its norm and bias: 94,208. Five bands and the last layer are 471,330, three windows 1,413,990.
    """

    config: MultibandConfig

    def __init__(self, config: MultibandConfig) -> None:
        parts: list[nn.Module] = [_Bands(window, config) for window in config.windows]
        super().__init__(config, parts, least=max(config.windows))


class _Bands(nn.Module):
    def __init__(self, window: int, config: MultibandConfig) -> None:
        super().__init__()
        width = config.channels
        self.edges = bins_at(config.edges, window)
        self.spectrum = ComplexSpectrum(window, pad=True)
        self.bands = nn.ModuleList()
        for _ in pairwise(self.edges):
            layers = [conv2d(2 * config.in_channels, width, (3, 9)), leaky(_SLOPE)]
            for _ in range(3):
                layers += [conv2d(width, width, (3, 9), stride=(1, 2)), leaky(_SLOPE)]
            self.bands.append(nn.Sequential(*layers, conv2d(width, width, (3, 3)), leaky(_SLOPE)))
        self.last = conv2d(width, 1, (3, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        spectrum = self.spectrum(x)
        outs: list[Tensor] = []
        features: tuple[Tensor, ...] = ()
        for layers, (low, high) in zip(self.bands, pairwise(self.edges), strict=True):
            assert isinstance(layers, nn.Sequential)
            out, made = run_layers(layers, spectrum[..., low:high])
            outs.append(out)
            features += made
        return self.last(torch.cat(outs, -1)), features

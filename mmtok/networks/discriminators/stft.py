"""Discriminators of complex STFTs, whose real and imaginary parts are channels: phase is judged too.

`msstft` is EnCodec's (Defossez et al. 2022, arXiv 2210.13438), the best single one of its table (audio.md 2). `stft` is
the one of SoundStream (Zeghidour et al. 2021, arXiv 2107.03312, Figure 4), which stands beside waveforms at several
scales (`msd`). Both are wider than high: convolutions run over (frames, bins).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mmtok.networks.discriminators.base import register_discriminator
from mmtok.networks.discriminators.sound import (
    ComplexSpectrum,
    SoundConfig,
    SoundDiscriminator,
    Stack,
    conv2d,
    leaky,
)

_SLOPE = 0.2
_UNITS = ((1, 2, (1, 2)), (2, 4, (2, 2)), (4, 4, (1, 2)), (4, 8, (2, 2)), (8, 8, (1, 2)), (8, 16, (2, 2)))
"""Widths before and after each residual unit of SoundStream's, and its strides in frames and bins."""


@dataclass(frozen=True, kw_only=True)
class MSSTFTConfig(SoundConfig):
    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)
    """One part each, in samples; hops are a quarter. At 48 kHz EnCodec doubles them."""
    channels: int = 32
    """Width of every layer."""
    dilations: tuple[int, ...] = (1, 2, 4)
    """Over frames, of the layers that halve the bins."""

    def __post_init__(self) -> None:
        if not self.windows or any(window < 8 or window % 4 for window in self.windows):
            raise ValueError(f"windows={list(self.windows)} must each be a multiple of 4, and 8 at least.")
        if self.channels < 1 or min(self.dilations, default=0) < 1:
            raise ValueError(
                f"channels and dilations must be at least 1, got {self.channels} and {list(self.dilations)}."
            )


@register_discriminator("msstft", MSSTFTConfig)
class MSSTFT(SoundDiscriminator):
    """A part of mono has weights of 27 * 2 * 32, three times 27 * 32 * 32, 9 * 32 * 32 and 9 * 32 numbers, and two more
    a channel for its norm and bias: 94,498, five times 472,490. (EnCodec's first layer has no norm.)
    """

    config: MSSTFTConfig

    def __init__(self, config: MSSTFTConfig) -> None:
        super().__init__(config, [_dilated(window, config) for window in config.windows], least=max(config.windows))


def _dilated(window: int, config: MSSTFTConfig) -> nn.Module:
    width = config.channels
    layers = [conv2d(2 * config.in_channels, width, (3, 9)), leaky(_SLOPE)]
    for dilation in config.dilations:
        layers += [conv2d(width, width, (3, 9), stride=(1, 2), dilation=(dilation, 1)), leaky(_SLOPE)]
    layers += [conv2d(width, width, (3, 3)), leaky(_SLOPE), conv2d(width, 1, (3, 3))]
    return Stack(ComplexSpectrum(window, normalized=True), *layers)


@dataclass(frozen=True, kw_only=True)
class STFTDiscriminatorConfig(SoundConfig):
    window: int = 1024
    """In samples; the hop is a quarter."""
    channels: int = 32
    """Width of the first layer; the last is 16 times as wide."""

    def __post_init__(self) -> None:
        if self.window < 128 or self.window % 4 or self.channels < 1:
            raise ValueError(
                f"window={self.window} must be a multiple of 4, and 128 at least, for its bins are halved six times; "
                f"channels={self.channels} must be at least 1."
            )


@register_discriminator("stft", STFTDiscriminatorConfig)
class STFTDiscriminator(SoundDiscriminator):
    """Six residual units that halve the bins, and every second one the frames; one logit for eight frames.

    Of mono it has 5,551,170 parameters: 49 * 2 * 32 numbers in its first weight, 9 N N + k N M + N M in a unit from N
    to M channels with k = 12 or 16 taps, 8 * 512 in the last, and two more a channel for norms and biases.
    """

    config: STFTDiscriminatorConfig

    def __init__(self, config: STFTDiscriminatorConfig) -> None:
        width = config.channels
        layers = [ComplexSpectrum(config.window), conv2d(2 * config.in_channels, width, (7, 7)), leaky(_SLOPE)]
        for narrow, wide, stride in _UNITS:
            layers += [_Unit(narrow * width, wide * width, stride), leaky(_SLOPE)]
        bins = (config.window // 2 + 1) // 2 ** len(_UNITS)
        last = nn.utils.parametrizations.weight_norm(nn.Conv2d(16 * width, 1, (1, bins)))
        frames = 2 ** sum(stride[0] == 2 for *_, stride in _UNITS)
        least = config.window + (frames - 1) * (config.window // 4)
        super().__init__(config, [Stack(*layers, last)], least)


class _Unit(nn.Module):
    """Two convolutions, the second strided, beside a strided one of single points."""

    def __init__(self, channels: int, out_channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        kernel = (stride[0] + 2, stride[1] + 2)
        strided = conv2d(channels, out_channels, kernel, stride=stride)
        self.body = nn.Sequential(conv2d(channels, channels, (3, 3)), leaky(_SLOPE), strided)
        self.skip = conv2d(channels, out_channels, (1, 1), stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        body = self.body(x)
        # An odd side: the strided kernel of four fits once less than the single point.
        return body + self.skip(x)[:, :, : body.shape[2], : body.shape[3]]

"""What discriminators of sounds share: the check of what comes in, levels made equal, spectra, several parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from mmtok.networks.discriminators.base import Discriminator, DiscriminatorConfig, Verdict, run_layers
from mmtok.schema import ConfigError

PEAK, _QUIET = 0.8, 1e-4
"""The peak of a normalised item, and the least one it is divided by: what is 80 dB below full scale stays quiet, where
DAC's 1e-9 would make the gradient of silence a billion times too long (audio.md trap 34)."""


@dataclass(frozen=True, kw_only=True)
class SoundConfig(DiscriminatorConfig):
    """Fields every discriminator of sounds has."""

    normalise: bool = False
    """Judge each item without its mean and at a peak of 0.8, as DAC does: the level is no evidence then."""


class SoundDiscriminator(Discriminator):
    """Signals (B, C, S) -> the verdicts of its parts.

    Subclasses give `parts`, each a module (B, C, S) float32 -> (logits, features), and the `least` samples they need.
    """

    config: SoundConfig

    def __init__(self, config: SoundConfig, parts: list[nn.Module], least: int) -> None:
        super().__init__()
        self.config, self.least = config, least
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Verdict:
        """Logits of each part, and features.

        Raises:
            ConfigError: x is no sound, or is too short.
        """
        if x.ndim != 3:
            raise ConfigError(f"it judges sounds (batch, channels, samples), and these are {tuple(x.shape)}.")
        if x.shape[-1] < self.least:
            raise ConfigError(
                f"it needs {self.least} samples at least. Train on longer items, or make its windows short."
            )
        x = equalised(x.float()) if self.config.normalise else x.float()
        logits, features = zip(*(part(x) for part in self.parts), strict=True)
        return Verdict(logits, features)


def equalised(x: Tensor) -> Tensor:
    """Items (B, C, S) without the mean of each channel, at a peak of 0.8. Silence stays what it is."""
    x = x - x.mean(-1, keepdim=True)
    return x * (PEAK / x.abs().amax((1, 2), keepdim=True).clamp(min=_QUIET))


class ComplexSpectrum(nn.Module):
    """(B, C, S) -> (B, 2 C, frames, bins): real parts, then imaginary ones, of frames a quarter of a window apart.

    Always in float32: FFTs in half precision are wrong, or missing (audio.md trap 22).

    Args:
        window: samples of the Hann window.
        normalized: divide by the root of the window's energy.
        pad: reflect the ends, so that there are S / hop frames, rounded up; otherwise frames lie within the signal.
    """

    window: Tensor

    def __init__(self, window: int, *, normalized: bool = False, pad: bool = False) -> None:
        super().__init__()
        self.length, self.hop, self.pad = window, window // 4, pad
        weights = torch.hann_window(window)
        self.scale = 1 / (0.375 * window) ** 0.5 if normalized else 1.0  # the mean square of a Hann window is 3 / 8
        self.register_buffer("window", weights, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()  # which autocast leaves alone: no operation here is on its list for half precision
        if self.pad:
            side = (self.length - self.hop) // 2
            x = F.pad(x, (side, side + -x.shape[-1] % self.hop), mode="reflect")
        flat = x.flatten(0, 1)
        bins = torch.stft(flat, self.length, self.hop, window=self.window, center=False, return_complex=True)
        parts = torch.view_as_real(bins * self.scale).unflatten(0, x.shape[:2])
        return parts.permute(0, 4, 1, 3, 2).flatten(1, 2)


class Stack(nn.Module):
    """Layers in order -> (logits, what each activation gave)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return run_layers(self.layers, x)


def conv1d(channels: int, out_channels: int, kernel: int, **fields: Any) -> nn.Module:
    """A normed convolution, padded by half its kernel."""
    return weight_norm(nn.Conv1d(channels, out_channels, kernel, padding=kernel // 2, **fields))


def conv2d(
    channels: int, out_channels: int, kernel: tuple[int, int], *, dilation: tuple[int, int] = (1, 1), **fields: Any
) -> nn.Module:
    """A normed convolution, padded by half its reach, rounded down."""
    padding = ((kernel[0] - 1) * dilation[0] // 2, (kernel[1] - 1) * dilation[1] // 2)
    return weight_norm(nn.Conv2d(channels, out_channels, kernel, padding=padding, dilation=dilation, **fields))


def leaky(slope: float) -> nn.Module:
    """The activation whose results are features."""
    return nn.LeakyReLU(slope, inplace=True)

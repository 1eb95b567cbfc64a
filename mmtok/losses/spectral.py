"""Distances of spectra at several window lengths: mel bands, or plain STFT bins. They need no torchaudio.

Published terms are settings of these two:

- SoundStream (Zeghidour et al. 2021, arXiv 2107.03312, eq. 4 and 5), 64 times smaller, for ours is a mean over bands:
  `{name: mel, windows: [64, 128, 256, 512, 1024, 2048], bands: 64, linear: 1, log: 0, log_norm: 1, rising: true,
  base: e}`.
- EnCodec (Defossez et al. 2022, arXiv 2210.13438): `{name: mel, windows: [32, 64, 128, 256, 512, 1024, 2048],
  bands: 64, scale: htk, normalized: true, linear: 1, linear_norm: 1, log: 0}`.
- DAC (Kumar et al. 2023, arXiv 2306.06546): `{name: mel, windows: [32, 64, 128, 256, 512, 1024, 2048],
  bands: [5, 10, 20, 40, 80, 160, 320]}`, the defaults.
- Parallel WaveGAN (Yamamoto et al. 2020, arXiv 1910.11480): `{name: stft, windows: [512, 1024, 2048], convergence: 1,
  base: e}`.

One STFT a scale and signal: audiocraft computes four (audio.md 6). Frames are centred and what lies outside a signal is
zero, not its reflection: then any length has frames, and those of a padded signal are those it has alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log, sqrt
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.codes import CodeSpec
from mmtok.losses.base import Loss, LossConfig, masked_mean, register_loss
from mmtok.losses.mel import MelScale, mel_filters

_LEAST_ENERGY = 1e-20
"""Of a bin: the root has no gradient at zero, and a NaN just above it. Far below any `floor`."""


@dataclass(frozen=True, kw_only=True)
class SpectralConfig(LossConfig):
    """Fields of both terms. A part is a mean over bands, and over frames that are not padding; scales add up."""

    windows: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048)
    """Length of the Hann window of each scale, in samples."""
    overlap: int = 4
    """Windows over each sample: the hop is window / overlap."""
    normalized: bool = False
    """Divide by the root of the window's energy, so that noise is as loud at every scale."""
    power: Literal[1, 2] = 1
    """Compare magnitudes, or energies."""
    linear: float = 0.0
    """Weight of the absolute differences."""
    linear_norm: float = 0.0
    """Weight of the Euclidean norm of each frame's differences, over the number of bands."""
    log: float = 1.0
    """Weight of the absolute differences of logarithms."""
    log_norm: float = 0.0
    """Weight of the norm of each frame's differences of logarithms, over the number of bands."""
    rising: bool = False
    """Times sqrt(window / 2), both parts with logarithms (SoundStream)."""
    base: Literal["e", "10"] = "10"
    """Of the logarithms."""
    floor: float = 1e-5
    """Least value a logarithm is taken of. Below it nothing counts: silence has no level to match."""

    def __post_init__(self) -> None:
        if not self.windows or any(window < 2 * self.overlap or window % self.overlap for window in self.windows):
            raise ValueError(
                f"windows={list(self.windows)} must each be a multiple of overlap={self.overlap}, 2 hops at least."
            )
        if self.floor < 1e-8:
            raise ValueError(f"floor={self.floor} must be at least 1e-8: gradients of logarithms grow as 1 / floor.")
        if not any(self._parts()):
            raise ValueError("every part has weight 0. Give one of linear, linear_norm, log and log_norm a weight.")

    def _parts(self) -> tuple[float, ...]:
        return self.linear, self.linear_norm, self.log, self.log_norm


class Valid(NamedTuple):
    """Which frames of a scale are no padding."""

    mask: Tensor
    """(B, 1, frames) bool."""
    share: Tensor
    """() how many of them there are a rank."""


class Spectral(Loss):
    """What both terms do: spectra of both signals (B, C, S), and the distance of each frame's."""

    config: SpectralConfig

    def __init__(self, config: SpectralConfig) -> None:
        super().__init__()
        self.config = config
        for window in config.windows:
            # Derived, so not saved: a checkpoint's windows could only contradict the config's.
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)

    def forward(self, reconstruction: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The term of signals (B, C, S) under mask (B, 1, S).

        Raises:
            ValueError: the signals are no waveforms.
        """
        if x.ndim != 3:
            raise ValueError(f"Spectral losses compare waveforms (batch, channels, samples), got {tuple(x.shape)}.")
        if not x.numel():  # a rank's share of a validation set may be none, and no FFT takes it
            return reconstruction.float().sum()
        if mask is not None:
            reconstruction, x = (signal.where(mask, 0.0) for signal in (reconstruction, x))
        with torch.autocast(
            x.device.type, enabled=False
        ):  # half-precision FFTs are wrong or missing (audio.md trap 22)
            own, target = reconstruction.float(), x.float()
            masks = self._masks(mask)
            return torch.stack([self._scale(number, own, target, valid) for number, valid in enumerate(masks)]).sum()

    def bands(self, number: int, spectrum: Tensor) -> Tensor:
        """Spectrum (..., F, frames) of a scale -> what is compared, (..., bands, frames)."""
        raise NotImplementedError

    def _masks(self, mask: Tensor | None) -> list[Valid | None]:
        """Of each scale which frames count; all are counted together, since ranks exchange that."""
        windows = self.config.windows
        if mask is None:
            return [None] * len(windows)
        masks = [frame_mask(mask, window // self.config.overlap) for window in windows]
        return [Valid(*pair) for pair in zip(masks, self.counts(masks), strict=True)]

    def _scale(self, number: int, reconstruction: Tensor, x: Tensor, valid: Valid | None) -> Tensor:
        window = self.config.windows[number]
        with torch.no_grad():  # half of the graph, and of the memory
            target = self.bands(number, self._spectrum(window, x))
        own = self.bands(number, self._spectrum(window, reconstruction))
        return self._distance(window, own, target, valid)

    def _spectrum(self, window: int, x: Tensor) -> Tensor:
        """(B, C, S) -> magnitudes or energies (B, C, window / 2 + 1, 1 + S // hop)."""
        weights = self.get_buffer(f"window_{window}")
        hop = window // self.config.overlap
        flat = x.flatten(0, 1)
        bins = torch.stft(flat, window, hop, window=weights, pad_mode="constant", return_complex=True)
        real, imaginary = torch.view_as_real(bins).unbind(-1)
        energy = (real.square() + imaginary.square()).unflatten(0, x.shape[:2])
        if self.config.normalized:
            energy = energy / weights.square().sum()
        # Never the complex absolute value, whose gradient is NaN where both parts are subnormal.
        return energy if self.config.power == 2 else energy.clamp(min=_LEAST_ENERGY).sqrt()

    def _distance(self, window: int, own: Tensor, target: Tensor, valid: Valid | None) -> Tensor:
        c = self.config
        frames = _differences(own - target, c.linear, c.linear_norm)
        if c.log or c.log_norm:
            left, right = (spectrum.clamp(min=c.floor).log() for spectrum in (own, target))
            unit = (log(10) if c.base == "10" else 1.0) / (sqrt(window / 2) if c.rising else 1.0)
            frames = frames + _differences(left - right, c.log, c.log_norm) / unit
        return masked_mean(frames, *(valid or (None, None)))


def _differences(differences: Tensor, absolute: float, norm: float) -> Tensor:
    """(B, C, bands, frames) -> the weighted cost of each frame (B, C, frames)."""
    cost = torch.zeros_like(differences[:, :, 0])
    if absolute:
        cost = cost + absolute * differences.abs().mean(2)
    if norm:
        cost = cost + norm / differences.shape[2] * torch.linalg.vector_norm(differences, dim=2)
    return cost


def frame_mask(mask: Tensor, hop: int) -> Tensor:
    """(B, 1, S) -> (B, 1, 1 + S // hop), True for the frames that the valid samples would have on their own.

    A frame's centre lies on sample t * hop, or just behind the last.
    """
    return (F.pad(mask, (0, 1)) | F.pad(mask, (1, 0)))[..., ::hop]


@dataclass(frozen=True, kw_only=True)
class STFTConfig(SpectralConfig):
    windows: tuple[int, ...] = (512, 1024, 2048)
    """Length of the Hann window of each scale, in samples."""
    linear: float = 1.0
    """Weight of the absolute differences."""
    convergence: float = 0.0
    """Weight of spectral convergence: the norm of an item's differences over the norm of its signal's spectrum."""

    def _parts(self) -> tuple[float, ...]:
        return *super()._parts(), self.convergence


@register_loss("stft", STFTConfig)
class STFT(Spectral):
    """Multi-resolution STFT distance."""

    config: STFTConfig

    def bands(self, number: int, spectrum: Tensor) -> Tensor:
        return spectrum

    def _distance(self, window: int, own: Tensor, target: Tensor, valid: Valid | None) -> Tensor:
        distance = super()._distance(window, own, target, valid)
        if not self.config.convergence:
            return distance
        if valid is not None:
            own, target = (spectrum.where(valid.mask[:, :, None], 0.0) for spectrum in (own, target))
        left, whole = (spectrum.flatten(1).norm(dim=1) for spectrum in (own - target, target))
        # An error relative to silence means nothing, and would outweigh the batch: the other parts judge it.
        loud = whole > self.config.floor * sqrt(target[0].numel())
        ratios = (left / whole.where(loud, 1.0)).where(loud, 0.0)
        return distance + self.config.convergence * ratios.mean()


@dataclass(frozen=True, kw_only=True)
class MelConfig(SpectralConfig):
    bands: int | tuple[int, ...] = (5, 10, 20, 40, 80, 160, 320)
    """Mel bands of each scale, or one number for all. Low bands narrower than a bin stay empty."""
    scale: MelScale = "slaney"
    """slaney: as librosa, with bands of equal area; htk: as torchaudio's default, with bands of equal height."""
    low: float = 0.0
    """Lower edge of the lowest band, in Hz."""
    high: float = 0.0
    """Upper edge of the highest, in Hz; 0 takes half the sample rate."""
    sample_rate: int = 0
    """Filled in from the tokenizer; 0 until then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.bands, int) and len(self.bands) != len(self.windows):
            raise ValueError(
                f"bands={list(self.bands)} are not one for each of the {len(self.windows)} windows. "
                "Give as many, or one number for all."
            )
        if min(self.each) < 1:
            raise ValueError(f"bands={self.bands} must be at least 1.")

    @property
    def each(self) -> tuple[int, ...]:
        """Bands of every scale."""
        return (self.bands,) * len(self.windows) if isinstance(self.bands, int) else self.bands

    def filled(self, spec: CodeSpec, dim: int, has_first: bool = True) -> Self:
        if spec.sample_rate is None:
            raise ValueError(f"The loss 'mel' is of audio, and the tokenizer is of modality '{spec.modality}'.")
        if self.sample_rate not in (0, spec.sample_rate):
            raise ValueError(
                f"loss.NAME.sample_rate={self.sample_rate} does not fit the tokenizer's {spec.sample_rate}. "
                "Leave it out."
            )
        return replace(self, sample_rate=spec.sample_rate)


@register_loss("mel", MelConfig)
class Mel(Spectral):
    """Multi-scale mel distance.

    Raises:
        ValueError: the sample rate is not known, or does not reach `high`.
    """

    config: MelConfig

    def __init__(self, config: MelConfig) -> None:
        super().__init__(config)
        if config.sample_rate < 1:
            raise ValueError("The loss 'mel' needs a sample rate: loss.NAME.sample_rate=24000, say.")
        high = config.high or config.sample_rate / 2
        for number, (window, bands) in enumerate(zip(config.windows, config.each, strict=True)):
            filters = mel_filters(window, bands, config.sample_rate, config.low, high, config.scale)
            self.register_buffer(f"filters_{number}", filters, persistent=False)

    def bands(self, number: int, spectrum: Tensor) -> Tensor:
        return self.get_buffer(f"filters_{number}") @ spectrum

"""A sound at the rate a run wants: whole, or a piece of it without decoding the rest.

Resampling is torchaudio's windowed sinc with its kernels kept: to build them anew for every sample takes longer than to
use them (audio.md 6).
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd
from typing import Any

import numpy as np
import torch

from datamodules.shardindex import DecodeError
from datamodules.sound import BY_AV, MAX_VALUES, probe, read_sound
from mmtok.schema import ConfigError

WIDTH, ROLLOFF, BETA = 64, 0.9475937167399596, 14.769656459379492
"""Zero crossings of the sinc on each side, cutoff as a share of the lower rate's range, shape of the Kaiser window:
torchaudio's figures for "kaiser best". Its default lets through more of what lies above the cutoff."""
MAX_KERNEL = 1 << 24
"""Numbers in a kernel, which grows with both rates over their common divisor: 44,099 to 16,000 Hz would take 3 GB."""
PARTS = 4
"""How many times longer than what is wanted of it a sound must be for seeking to be worth more than decoding it."""


class Clip:
    """A sound of a sample, seen at `sample_rate`."""

    def __init__(self, data: bytes, extension: str, sample_rate: int, wanted: int | None = None) -> None:
        """Read the header, or all of it.

        Args:
            data: content of a file.
            extension: without the dot.
            sample_rate: what is wanted.
            wanted: samples that will be cut, in sum, at that rate; None for all.

        Raises:
            DecodeError: no readable sound, or a rate that has no short ratio to the one wanted.
        """
        self.data, self.extension, self.sample_rate = data, extension, sample_rate
        self._whole: np.ndarray | None = None
        if wanted is not None and extension.rpartition(".")[2] not in BY_AV:
            info = probe(data, extension)
            self.rate, self.length = info.sample_rate, resampled_length(info.frames, info.sample_rate, sample_rate)
            if self.length > PARTS * wanted:
                return
        sound = read_sound(data, extension)
        self.rate = sound.sample_rate
        self._whole = resample(sound.samples, self.rate, sample_rate)
        self.length = self._whole.shape[1]

    def cut(self, start: int, samples: int) -> np.ndarray:
        """(C, n) float32 from `start` on, n = `samples` or what there is; equal to that slice of the whole."""
        if self._whole is not None:
            return self._whole[:, start : start + samples]
        if self.rate == self.sample_rate:
            return read_sound(self.data, self.extension, start, samples).samples
        # The kernels repeat after `new` samples: a piece that starts there meets the same ones as in the whole.
        old, new = _ratio(self.rate, self.sample_rate)
        margin = ceil(_reach(old, new) / old)
        first = max(0, start // new - margin)
        last = -(-(start + samples) // new) + margin
        piece = read_sound(self.data, self.extension, first * old, (last - first) * old).samples
        begin = start - first * new
        return resample(piece, self.rate, self.sample_rate)[:, begin : min(begin + samples, self.length - first * new)]


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """(C, S) float32 at `rate` -> (C, ceil(S * new_rate / rate)).

    Raises:
        DecodeError: the rates have no short ratio, or the result is too long.
        ConfigError: torchaudio is not installed.
    """
    if rate == new_rate:
        return samples
    if samples.shape[0] * resampled_length(samples.shape[1], rate, new_rate) > MAX_VALUES:
        raise DecodeError(f"{samples.shape[1]:,} samples at {rate} Hz are too many to bring to {new_rate} Hz at once")
    with torch.no_grad():
        return _resampler(*_ratio(rate, new_rate))(torch.from_numpy(samples)).numpy()


def resampled_length(frames: int, rate: int, new_rate: int) -> int:
    """Samples that so many at `rate` become."""
    return -(-frames * new_rate // rate)


def to_channels(samples: np.ndarray, channels: int) -> np.ndarray:
    """(C, S) -> (channels, S): the mean of all for one, one repeated for several.

    Raises:
        DecodeError: some other change, of which nobody said what it should mean.
    """
    have = samples.shape[0]
    if have == channels:
        return samples
    if channels == 1:
        return samples.mean(0, keepdims=True, dtype=np.float32)
    if have == 1:
        return np.repeat(samples, channels, axis=0)
    raise DecodeError(f"the sound has {have} channels, and {channels} are wanted. One, or as many, can be made of it.")


def loudness(samples: np.ndarray) -> float:
    """Root mean square in dB below full scale; silence, and nothing at all, is -200, never minus infinity."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if samples.size else 0.0
    return 10 * float(np.log10(max(power, 1e-20)))


def _ratio(rate: int, new_rate: int) -> tuple[int, int]:
    common = gcd(rate, new_rate)
    return rate // common, new_rate // common


def _reach(old: int, new: int) -> int:
    """Samples before and after that a kernel looks at."""
    return ceil(WIDTH * old / (min(old, new) * ROLLOFF)) + old


@lru_cache(maxsize=32)
def _resampler(old: int, new: int) -> Any:
    if new * (2 * _reach(old, new)) > MAX_KERNEL:
        raise DecodeError(f"the sound's rate is to the one wanted as {old} to {new}. Resample it elsewhere first.")
    try:
        from torchaudio.transforms import Resample
    except ImportError as error:
        raise ConfigError("other sample rates need torchaudio. Install it: pip install 'mmtok[audio]'") from error
    window = {"resampling_method": "sinc_interp_kaiser", "beta": BETA}
    return Resample(old, new, lowpass_filter_width=WIDTH, rolloff=ROLLOFF, **window)

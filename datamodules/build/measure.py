"""What a recording is worth: how far up its spectrum goes, how loud it is, whether it was clipped."""

from __future__ import annotations

import numpy as np

WINDOW = 2048
RANGE = 70.0
"""dB below the strongest frequency at which nothing is left. Resamplers and lossy codecs leave less above their cutoff;
the background of a real recording is louder."""
FLOOR = -115.0
"""dB below full scale, between the noise of 16 bits in one line of the spectrum (-126) and anything recorded."""
FULL_SCALE = 0.999
SMOOTHED = 9
"""Lines of the spectrum averaged, so that no single one decides."""


def bandwidth(samples: np.ndarray, rate: int) -> float:
    """Frequency in Hz above which a sound holds nothing, whatever its sample rate promises.

    A line of the spectrum counts as loud as it is in the loudest twentieth of the frames: an s lasts that long, a
    click does not.

    Args:
        samples: (C, S).
        rate: samples a second.
    """
    frames = spectra(samples)
    levels = np.percentile(frames, 95, axis=0)
    levels = np.convolve(levels, np.full(SMOOTHED, 1 / SMOOTHED), mode="same")
    decibels = 10 * np.log10(np.maximum(levels, 1e-20))
    above = np.flatnonzero(decibels > max(decibels.max() - RANGE, FLOOR))
    return float(above[-1]) * rate / WINDOW if len(above) else 0.0


def spectra(samples: np.ndarray) -> np.ndarray:
    """(frames, lines) power of whole windows, mean over channels; a sine of full scale is 1."""
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    length = samples.shape[1]
    if length < WINDOW:
        samples = np.pad(samples * np.hanning(length), ((0, 0), (0, WINDOW - length)))
    found = []
    for channel in samples:
        # Strided, so that an hour of music is not copied for its windows.
        pieces = np.lib.stride_tricks.sliding_window_view(channel, WINDOW)[:: max(WINDOW // 2, length // 4000)]
        found.append(np.abs(np.fft.rfft(pieces * window, axis=1)) ** 2)
    return np.mean(found, axis=0) * (2 / window.sum()) ** 2


def clipping(samples: np.ndarray) -> float:
    """Share of the samples that stand at full scale beside another that does: a single peak may reach it rightly."""
    full = np.abs(samples) >= FULL_SCALE
    flat = np.zeros_like(full)
    pairs = full[:, 1:] & full[:, :-1]
    flat[:, 1:] |= pairs
    flat[:, :-1] |= pairs
    return float(flat.mean()) if flat.size else 0.0

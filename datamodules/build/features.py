"""Teacher features that are written beside sounds, for tokens that should mean something (SpeechTokenizer, Mimi).

A frame t of every kind is centred on the samples [t * hop, (t + 1) * hop), as a codec's frames are, and there are
ceil(S / hop) of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from mmtok.schema import ConfigError


class Feature(NamedTuple):
    """One kind of features."""

    rate: float
    """Frames a second."""
    about: str
    compute: Callable[[np.ndarray, int], np.ndarray]
    """(C, S) float32 and its sample rate -> (F, T) float32."""


def mfcc(samples: np.ndarray, rate: int) -> np.ndarray:
    """13 cepstral coefficients with first and second differences, each of mean 0 and deviation 1 over the segment.

    Those are the features whose clusters HuBERT is first trained on (arXiv 2106.07447).

    Raises:
        ConfigError: a frame is no whole number of samples, or torchaudio is not installed.
    """
    hop = rate / FEATURES["mfcc"].rate
    if hop != int(hop):
        raise ConfigError(
            f"features=mfcc come {FEATURES['mfcc'].rate:g} times a second, which {rate} Hz cannot be divided into. "
            "Resample: --sample-rate 16000, 24000 or 44100."
        )
    transform, size = _mfcc(rate, int(hop))
    mono = torch.from_numpy(samples.mean(0))
    frames = -(-len(mono) // int(hop))
    left = (size - int(hop)) // 2
    padded = torch.nn.functional.pad(mono, (left, (frames - 1) * int(hop) + size - left - len(mono)))
    from torchaudio.functional import compute_deltas

    with torch.no_grad():
        found = transform(padded[None])
        first = compute_deltas(found)
        found = torch.cat([found, first, compute_deltas(first)], dim=1)[0]
        # Silence has no deviation; it stays zero.
        return (
            (found - found.mean(1, keepdim=True)) / found.std(1, keepdim=True, correction=0).clamp(min=1e-3)
        ).numpy()


@lru_cache(maxsize=8)
def _mfcc(rate: int, hop: int) -> tuple[Any, int]:
    try:
        from torchaudio.transforms import MFCC
    except ImportError as error:
        raise ConfigError("features=mfcc needs torchaudio. Install it: pip install 'mmtok[audio]'") from error
    size = 1 << max(hop, round(0.025 * rate) - 1).bit_length()
    spectrum = {"n_fft": size, "hop_length": hop, "n_mels": 40, "center": False}
    return MFCC(rate, n_mfcc=13, log_mels=True, melkwargs=spectrum), size


FEATURES = {"mfcc": Feature(50.0, "13 MFCC with two differences, normalised over each segment", mfcc)}


def to_npy(features: np.ndarray) -> bytes:
    """(F, T) as a .npy of 16 bits."""
    buffer = io.BytesIO()
    np.save(buffer, features.astype(np.float16))
    return buffer.getvalue()

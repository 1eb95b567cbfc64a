"""Sounds in, x out, and back: files, bytes and arrays to float32 in [-1, 1] at one rate, in plain torch.

Resampling equals `torchaudio.functional.resample`, the windowed sinc of Smith, "Digital Audio Resampling"; soundfile is
imported only where a file is read. All of it works piece by piece too, so that a file of hours needs little memory.
"""

from __future__ import annotations

import io
import math
import warnings
import wave
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.soundfiles import HEAD, cut_short

_TOLERANCE = 1e-3
_OVERSHOOT = 10 ** (1 / 20)
"""Lossy codecs and resampling overshoot full scale by up to about 1 dB; that much is cut off without a word."""
_INTEGERS = 8.0
"""A peak above is no sound that is too loud, but integers that were not divided."""
_MAX_KERNEL = 1 << 26
_MAX_CHANNELS = 64
_LOBES = 6
"""Zero crossings of the sinc on each side, and (next) the share of the lower Nyquist frequency kept: torchaudio's."""
_ROLLOFF = 0.99


def read_sound(source: Any, rate: int, channels: int, source_rate: int | None = None) -> Tensor:
    """A sound in any usual form -> float32 in [-1, 1], (1, C, S), at `rate`.

    Args:
        source: a path, the bytes of a file, or an array or tensor (S,), (C, S) or (1, C, S); integers are taken by
            their full scale.
        rate: samples a second wanted.
        channels: wanted. One becomes several by repetition, several become one by their mean.
        source_rate: samples a second of an array; None means `rate`. Files say theirs.

    Raises:
        ValueError: no sound, empty, not finite, far beyond [-1, 1], or of channels that do not fit.
    """
    if isinstance(source, str | Path | bytes | bytearray | memoryview):
        if source_rate is not None:
            raise ValueError("A file says its sample rate itself. Leave sample_rate out.")
        x, source_rate = _read(source)
    else:
        x = _from_array(source)
    x = mix(x, channels)
    if source_rate is not None and source_rate != rate:
        _finite(x)  # before a NaN is smeared
        x = resample(x, source_rate, rate)
    return limit(x)


def mix(x: Tensor, channels: int) -> Tensor:
    """(1, C, S) -> (1, channels, S).

    Raises:
        ValueError: neither side is mono.
    """
    count = x.shape[1]
    if count == channels:
        return x
    if channels == 1:
        return x.mean(1, keepdim=True)
    if count == 1:
        return x.repeat(1, channels, 1)
    raise ValueError(f"A sound of {count} channels cannot become one of {channels}. Mix it down first.")


def limit(x: Tensor) -> Tensor:
    """x cut to [-1, 1], with a warning where that is to be heard.

    Raises:
        ValueError: values that are not finite, or far beyond full scale.
    """
    peak = _finite(x)
    if peak > _INTEGERS:
        remedy = "Divide by 32768 if these are 16-bit integers." if peak <= 40000 else "Scale it to [-1, 1]."
        raise ValueError(f"The sound reaches {peak:.4g}, and full scale is 1. {remedy}")
    if peak > _OVERSHOOT:
        warnings.warn(f"The sound reaches {peak:.3g}; what is beyond full scale (1) is cut off.", stacklevel=2)
    return x.clamp(-1, 1) if peak > 1 else x


def check_sound(x: Tensor, channels: int) -> None:
    """Refuse what is no x. Reads two numbers from the device.

    Raises:
        ValueError: wrong shape, type, channels or range, or values that are not finite.
    """
    check_layout(x, channels)
    peak = _finite(x)
    if peak > 1 + _TOLERANCE:
        remedy = " They look like 16-bit integers: divide by 32768." if _INTEGERS < peak <= 40000 else ""
        raise ValueError(f"Sounds have values in [-1, 1], got a peak of {peak:.4g}.{remedy} Or use preprocess.")


def check_layout(x: Tensor, channels: int) -> None:
    """Refuse a wrong shape or type; reads nothing from the device.

    Raises:
        ValueError: not (B, C, S) of floats with the right channels.
    """
    if x.ndim != 3 or x.shape[1] != channels or not x.shape[2]:
        remedy = " It looks like (B, S, C): use x.transpose(1, 2)." if x.ndim == 3 and x.shape[2] == channels else ""
        raise ValueError(f"Sounds are (B, {channels}, S) with S of at least 1, got {tuple(x.shape)}.{remedy}")
    if not x.is_floating_point():
        raise ValueError(f"Sounds are floats in [-1, 1], got {x.dtype}. Use preprocess, or x / 32768 for int16.")


def resample(x: Tensor, rate: int, new_rate: int) -> Tensor:
    """(..., S) at `rate` -> (..., ceil(S * new_rate / rate)), as `torchaudio.functional.resample` gives it.

    Raises:
        ValueError: a rate that is not positive, or a pair with so small a common divisor that the filter is huge.
    """
    flat = x.reshape(1, -1, x.shape[-1])
    return torch.cat(list(resample_pieces(flat.split(1 << 20, -1), rate, new_rate)), -1).view(*x.shape[:-1], -1)


def resample_pieces(pieces: Iterable[Tensor], rate: int, new_rate: int) -> Iterator[Tensor]:
    """The same for a signal that comes in pieces (1, C, n): the joined results are those of the joined pieces."""
    if min(rate, new_rate) < 1:
        raise ValueError(f"sample rates are positive, got {rate} and {new_rate}.")
    if rate == new_rate:
        yield from pieces
        return
    common = math.gcd(rate, new_rate)
    old, new = rate // common, new_rate // common
    kernel, width = _kernel(old, new)
    taken = given = 0
    buffer: Tensor | None = None
    for piece in pieces:
        taken += piece.shape[2]
        buffer = F.pad(piece, (width, 0)) if buffer is None else torch.cat([buffer, piece], 2)
        blocks = (buffer.shape[2] - 2 * width - old) // old + 1
        if blocks > 0:
            y = _filter(buffer[..., : blocks * old + 2 * width], kernel, old)
            buffer = buffer[..., blocks * old :].clone()
            given += y.shape[2]
            yield y
    if buffer is not None:
        wanted = -(-new * taken // old) - given
        yield _filter(F.pad(buffer, (0, width + old)), kernel, old)[..., :wanted]


def _filter(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """(1, C, n) -> (1, C, m): one output channel of the convolution for each phase of the new rate."""
    y = F.conv1d(x.transpose(0, 1), kernel.to(x), stride=stride)  # (C, phases, blocks)
    return y.transpose(1, 2).flatten(1)[None]


@lru_cache(maxsize=16)
def _kernel(old: int, new: int) -> tuple[Tensor, int]:
    """Filters (new, 1, taps), one a phase, and their reach: a sinc in a Hann window, in float64 until the end."""
    base = min(old, new) * _ROLLOFF
    width = math.ceil(_LOBES * old / base)
    if new * (2 * width + old) > _MAX_KERNEL:
        raise ValueError(f"rates of {old} to {new} have no common divisor, so the filter is huge. Use a usual rate.")
    times = torch.arange(-width, width + old, dtype=torch.float64) / old
    phases = torch.arange(0, -new, -1, dtype=torch.float64)[:, None] / new
    t = ((phases + times) * base).clamp(-_LOBES, _LOBES)
    window = (t * math.pi / _LOBES / 2).cos() ** 2
    return (t.sinc() * window * (base / old)).float()[:, None], width


def write_wave(pieces: Iterable[Tensor], path: Path, rate: int) -> None:
    """Pieces (1, C, n) of a signal in [-1, 1] to one WAV of 16 bits, rounded; what is beyond full scale is cut off."""
    with wave.open(str(path), "wb") as file:
        for index, piece in enumerate(pieces):
            if not index:
                file.setparams((piece.shape[1], 2, rate, 0, "NONE", ""))
            samples = (piece[0].detach().float().cpu() * 32768).round().clamp(-32768, 32767).to(torch.int16)
            file.writeframes(samples.T.contiguous().numpy().astype("<i2", copy=False).tobytes())


def file_seconds(path: str | Path) -> float:
    """Length of a sound file, by its header."""
    with _open(path, str(path)) as file:
        return file.frames / file.samplerate


def file_blocks(path: str | Path, rate: int, channels: int, samples: int = 1 << 18) -> Iterator[Tensor]:
    """A sound file as pieces x (1, C, n) at `rate`, decoded as they are asked for; joined, they are `read_sound`'s.

    Args:
        path: of a file that soundfile reads.
        rate: samples a second wanted.
        channels: wanted.
        samples: of the file to decode at a time.
    """
    with _open(path, str(path)) as file:
        for piece in resample_pieces(_blocks(file, channels, samples, str(path)), file.samplerate, rate):
            yield limit(piece)


def _blocks(file: Any, channels: int, samples: int, name: str) -> Iterator[Tensor]:
    while len(block := _decode(file, samples, name)):
        x = mix(torch.from_numpy(block.T.copy())[None], channels)
        _finite(x)  # before a NaN is smeared
        yield x


def _read(source: str | Path | bytes | bytearray | memoryview) -> tuple[Tensor, int]:
    path = isinstance(source, str | Path)
    name = str(source) if isinstance(source, str | Path) else "these bytes"
    if path and not Path(name).is_file():
        raise ValueError(f"There is no sound at {name}.")
    with _open(source if path else io.BytesIO(bytes(source)), name) as file:  # type: ignore[arg-type]
        samples = _decode(file, -1, name)
        if not len(samples):
            raise ValueError(f"{name} holds no samples.")
        return torch.from_numpy(np.ascontiguousarray(samples.T))[None], file.samplerate


def _open(source: Any, name: str) -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise ValueError("Reading sounds needs soundfile: pip install 'mmtok[audio]'.") from error
    size, head = _beginning(source)
    if not size:
        raise ValueError(f"{name} is empty.")
    if wrong := cut_short(head, size):
        raise ValueError(f"{name} is {wrong}. Take it from where it came, or cut its header to what there is.")
    try:
        return soundfile.SoundFile(source)
    except (RuntimeError, TypeError, OSError) as error:
        raise ValueError(
            f"{name} cannot be read as a sound. wav, flac, ogg, opus, mp3 and aiff can, and by "
            "mmtok encode m4a and others (docs/data.md)."
        ) from error


def _beginning(source: Any) -> tuple[int, bytes]:
    """Bytes of a path or a buffer, and the first of them."""
    if isinstance(source, io.BytesIO):
        return source.getbuffer().nbytes, bytes(source.getbuffer()[:HEAD])
    with Path(source).open("rb") as file:
        return Path(source).stat().st_size, file.read(HEAD)


def _decode(file: Any, frames: int, name: str) -> np.ndarray:
    try:
        return file.read(frames, dtype="float32", always_2d=True)
    except RuntimeError as error:
        raise ValueError(f"{name} is damaged: {error}") from error


def _from_array(source: Any) -> Tensor:
    """(S,), (C, S) or (1, C, S) -> float32 (1, C, S)."""
    if not isinstance(source, np.ndarray | Tensor):
        raise ValueError(f"A sound is a path, bytes or an array, got {type(source).__name__}.")
    shape = tuple(source.shape)
    x = torch.from_numpy(np.ascontiguousarray(source)) if isinstance(source, np.ndarray) else source.detach()
    if x.ndim == 1:
        x = x[None]
    if x.ndim == 3 and x.shape[0] == 1:
        x = x[0]
    if x.ndim != 2 or 0 in x.shape or x.shape[0] > _MAX_CHANNELS:
        remedy = " It looks like (S, C): transpose it." if x.ndim == 2 and x.shape[0] > _MAX_CHANNELS else ""
        raise ValueError(f"A sound is (S,), (C, S) or (1, C, S) with at least one sample, got {shape}.{remedy}")
    if x.dtype == torch.uint8:
        return (x.float() - 128)[None] / 128
    if not x.is_floating_point():
        if x.dtype not in (torch.int16, torch.int32):
            raise ValueError(f"Samples are floats, or integers of 8 (unsigned), 16 or 32 bits; got {x.dtype}.")
        return x.float()[None] / (torch.iinfo(x.dtype).max + 1)
    return x.float()[None]


def _finite(x: Tensor) -> float:
    """The peak of x.

    Raises:
        ValueError: it has values that are not finite.
    """
    if not x.numel():
        return 0.0
    low, high = torch.stack(x.float().aminmax()).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("The sound has values that are not finite (NaN or infinite).")
    return max(-low, high)

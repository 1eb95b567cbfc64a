"""Bytes of a sound to samples: the one seam through which all audio is decoded, also a part of a file.

soundfile (libsndfile, in its wheel) reads wav, flac, ogg, opus, mp3 and aiff, and seeks to the sample in all but mp3.
PyAV (FFmpeg, in its wheel) reads what that lacks: raw G.722, AAC, Matroska, AMR. `torchaudio.load` is not used: it
needs FFmpeg installed beside it, and decodes a whole file to give a second of it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from datamodules.shardindex import DecodeError
from mmtok.schema import ConfigError
from mmtok.soundfiles import HEAD, cut_short

BY_SOUNDFILE = ("wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff")
BY_AV = {"g722": "g722", "m4a": "mov", "aac": "aac", "amr": "amr", "mka": "matroska", "webm": "matroska"}
"""Extension -> the only container FFmpeg may take the content for. Left to guess, it would follow a playlist named
.m4a to whatever files and addresses it lists."""
SOUNDS = (*BY_SOUNDFILE, *BY_AV)
"""Extensions of what is read here."""
_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF")
_EXACT = ("WAV", "WAVEX", "RF64", "FLAC", "AIFF")
"""Containers whose header says how many samples follow; elsewhere it is an estimate, or read off the last page."""
MAX_VALUES = 1 << 28
"""Samples times channels of one read: 1 GiB of numbers, 93 minutes of 48 kHz. Longer files are read in parts."""
MAX_CHANNELS = 64
RATES = range(1_000, 768_001)


class SoundInfo(NamedTuple):
    """What a file says about itself."""

    sample_rate: int
    channels: int
    frames: int
    """Samples of each channel; of an mp3 without a Xing header, an estimate."""
    format: str
    """Name of the container."""

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


class Sound(NamedTuple):
    """Decoded samples."""

    samples: np.ndarray
    """(C, S) float32; full scale is 1."""
    sample_rate: int


def probe(data: bytes, extension: str) -> SoundInfo:
    """What a sound is, without decoding it where a header says so (all but PyAV's containers).

    Args:
        data: content of a file.
        extension: without the dot; headerless formats are known by nothing else.

    Raises:
        DecodeError: damaged, empty, no sound, or with a header that cannot be true.
        ConfigError: the package that reads it is not installed.
    """
    last = _last(extension)
    if last not in BY_AV:
        with _open(data) as file:
            return _checked(SoundInfo(file.samplerate, file.channels, file.frames, file.format))
    rate = channels = frames = 0
    for block in _blocks(data, last):
        (channels, count), rate = block.samples.shape, block.sample_rate
        frames += count
    return _checked(SoundInfo(rate, channels, frames, last.upper()))


def read_sound(data: bytes, extension: str, start: int = 0, frames: int | None = None) -> Sound:
    """Samples of a sound, or of a part of it; a part equals the same slice of the whole.

    Args:
        data: content of a file.
        extension: without the dot.
        start: first sample wanted, of each channel.
        frames: how many; None reads to the end. Fewer come back where the file ends before.

    Raises:
        DecodeError: as of `probe`; cut short; more than MAX_VALUES at once; values that are no numbers.
        ConfigError: the package that reads it is not installed.
    """
    last = _last(extension)
    sound = _by_av(data, last, start, frames) if last in BY_AV else _by_soundfile(data, start, frames)
    if not np.isfinite(sound.samples).all():
        raise DecodeError("the sound holds values that are no numbers")
    return sound


def require(extensions: tuple[str, ...] = BY_SOUNDFILE) -> None:
    """Find out before the first sample whether sounds of these extensions can be read here.

    Raises:
        ConfigError: a package is not installed; says how to install it.
    """
    _soundfile()
    if set(extensions) & set(BY_AV):
        _av()


def _by_soundfile(data: bytes, start: int, frames: int | None) -> Sound:
    with _open(data) as file:
        info = _checked(SoundInfo(file.samplerate, file.channels, file.frames, file.format))
        wanted = max(0, min(info.frames - start, info.frames if frames is None else frames))
        # After a seek in an mp3 the first frames are silent: what they share with earlier ones is missing.
        lead = start if info.format == "MP3" and wanted else 0
        _check_size((lead + wanted) * info.channels)
        try:
            if start > lead and wanted:
                file.seek(start)
            samples = file.read(lead + wanted, dtype="float32", always_2d=True)[lead:]
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise DecodeError(f"no readable sound ({str(error)[:120]})") from error
    if len(samples) < wanted and (info.format in _EXACT or not len(samples)):
        raise DecodeError(f"the sound is cut short: {start + len(samples):,} of {info.frames:,} samples are there")
    return Sound(np.ascontiguousarray(samples.T), info.sample_rate)


def _open(data: bytes) -> Any:
    """A soundfile.SoundFile of one of our formats."""
    soundfile = _soundfile()
    if not data:
        raise DecodeError("the sound is empty")
    if wrong := cut_short(data[:HEAD], len(data)):
        raise DecodeError(f"the sound is {wrong}")
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (RuntimeError, ValueError, TypeError, OSError, MemoryError) as error:
        reason = str(error).rpartition(">: ")[2] or str(error)  # soundfile names the buffer's address in memory
        raise DecodeError(f"{len(data):,} bytes that are no readable sound ({reason[:120]})") from error
    if file.format not in _FORMATS:
        file.close()
        raise DecodeError(f"the sound is {file.format}; read are {', '.join(_FORMATS)}")
    return file


def _by_av(data: bytes, extension: str, start: int, frames: int | None) -> Sound:
    """Decodes from the beginning whatever is wanted: these codecs carry state from sample to sample."""
    end = None if frames is None else start + frames
    pieces: list[np.ndarray] = []
    at = kept = rate = channels = 0
    for block in _blocks(data, extension):
        (channels, count), rate = block.samples.shape, block.sample_rate
        pieces.append(block.samples[:, max(0, start - at) : count if end is None else max(0, end - at)])
        at, kept = at + count, kept + pieces[-1].size
        _check_size(kept)
        if end is not None and at >= end:
            break
    _checked(SoundInfo(rate, channels, at, extension))
    return Sound(np.ascontiguousarray(np.concatenate(pieces, axis=1)), rate)


def _blocks(data: bytes, extension: str) -> Iterator[Sound]:
    """A sound in pieces, as its packets decode."""
    av = _av()
    if not data:
        raise DecodeError("the sound is empty")
    try:
        with av.open(io.BytesIO(data), format=BY_AV[extension]) as container:
            if not container.streams.audio:
                raise DecodeError("there is no sound in the file")
            stream = container.streams.audio[0]
            plain = av.AudioResampler(format="fltp", layout=stream.codec_context.layout, rate=stream.rate)
            for frame in container.decode(stream):
                for out in plain.resample(frame):
                    yield Sound(out.to_ndarray(), out.sample_rate)
    except DecodeError:
        raise
    except (av.FFmpegError, OSError, ValueError, IndexError, EOFError, TypeError, MemoryError) as error:
        raise DecodeError(f"no readable {extension} ({str(error)[:120]})") from error


def _checked(info: SoundInfo) -> SoundInfo:
    if info.frames < 1:
        raise DecodeError("the sound is empty")
    if not 1 <= info.channels <= MAX_CHANNELS or info.sample_rate not in RATES:
        raise DecodeError(f"a sound of {info.channels} channels at {info.sample_rate:,} Hz is not taken")
    return info


def _check_size(values: int) -> None:
    if values > MAX_VALUES:
        raise DecodeError(f"{values:,} samples at once are too many, the limit is {MAX_VALUES:,}. Cut it to segments.")


def _last(extension: str) -> str:
    last = extension.rpartition(".")[2].lower()
    if last not in SOUNDS:
        raise DecodeError(f".{extension} is no sound that is read here; known: {', '.join(SOUNDS)}")
    return last


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise ConfigError("sounds are read with soundfile. Install it: pip install 'mmtok[audio]'") from error
    return soundfile


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ConfigError(f"{', '.join(BY_AV)} are read with PyAV. Install it: pip install 'mmtok[audio]'") from error
    return av

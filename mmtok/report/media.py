"""Pictures and sounds in the page: encoded once each, counted against a limit."""

from __future__ import annotations

import base64
import hashlib
import io
import wave
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LIMIT = 6_500_000
"""Characters of all media of a page, so that the page with its scripts and curves stays below 10 MB."""
SECONDS = 4.0
"""Of a sound at most."""


class Media:
    """Files inside the page, by a key; the same content is there once."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.size = limit, 0
        self.files: dict[str, str] = {}
        """Key -> data URL."""
        self.full = False
        """Whether something was left out for want of room."""

    def add(self, mime: str, content: bytes) -> str:
        """The key of a file, "" where there is no room left for it."""
        key = hashlib.sha256(content).hexdigest()[:12]
        if key not in self.files:
            written = f"data:{mime};base64,{base64.b64encode(content).decode()}"
            if self.size + len(written) > self.limit:
                self.full = True
                return ""
            self.files[key] = written
            self.size += len(written)
        return key


def png(picture: Tensor) -> bytes:
    """Of uint8 (C, H, W), without loss."""
    from PIL import Image

    array = picture.expand(3, -1, -1).movedim(0, -1).cpu().numpy()
    stream = io.BytesIO()
    Image.fromarray(array.copy()).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def wav(clip: Tensor, rate: int) -> bytes:
    """16-bit PCM of the first seconds of (C, S) in [-1, 1]."""
    samples = clip[:, : round(SECONDS * rate)].clamp(-1, 1).mul(32767).round().to(torch.int16)
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(samples.T.cpu().numpy()).tobytes())
    return stream.getvalue()


def spectrum(clip: Tensor, rate: int, peak: float) -> bytes:
    """Log-mel spectrogram of the same seconds as a WebP picture; `peak` is the loudest dB, of the input."""
    from PIL import Image

    from mmtok.evaluation.sound_pictures import coloured, spectrogram

    picture = coloured(spectrogram(clip[:, : round(SECONDS * rate)], rate), peak)
    stream = io.BytesIO()
    picture.resize((480, 120), Image.Resampling.BILINEAR).save(stream, "WEBP", quality=80)
    return stream.getvalue()


def loudest(clip: Tensor, rate: int) -> float:
    """dB of the loudest band and moment."""
    from mmtok.evaluation.sound_pictures import spectrogram

    return float(spectrogram(clip[:, : round(SECONDS * rate)], rate).amax())


def read_picture(path: Path) -> Tensor:
    """uint8 (C, H, W).

    Raises:
        ValueError: the file is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            array = np.asarray(file.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is no picture, or damaged. Delete it, or measure the cell again.") from error
    return torch.from_numpy(array.copy()).movedim(-1, 0)


def read_sound(path: Path) -> tuple[Tensor, int]:
    """(C, S) in [-1, 1], and samples a second, of a 16-bit WAV file.

    Raises:
        ValueError: the file is none.
    """
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise wave.Error(f"{8 * file.getsampwidth()} bits a sample")
            raw = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
            return torch.from_numpy(raw.T.astype(np.float32) / 32768), file.getframerate()
    except (wave.Error, EOFError, ValueError) as error:
        raise ValueError(f"{path} is no 16-bit WAV file, or damaged ({error}). Measure the cell again.") from error

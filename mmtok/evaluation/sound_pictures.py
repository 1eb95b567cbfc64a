"""Sounds for the eye, drawn with Pillow alone: waveforms and log-mel spectrograms in rows and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmtok.evaluation.pictures import INK, PAPER, TEXT, text_width, write
from mmtok.losses.mel import mel_filters

if TYPE_CHECKING:
    from PIL.Image import Image

BANDS, HEIGHT, WAVE = 80, 96, 40
"""Mel bands; pixels of a spectrogram and of a waveform."""
RANGE = 80.0
"""dB from black to white; white is the loudest of the row of inputs."""
_GAP, _WAVE = 6, "#3b6ea5"
_COLOURS = np.array(
    [[0, 0, 4], [40, 17, 89], [114, 31, 129], [183, 55, 121], [241, 96, 93], [254, 176, 120], [252, 253, 191]]
)
"""Of evenly spaced levels: dark to light in even steps of lightness, so that it reads in grey too."""


def spectrogram(x: Tensor, rate: int) -> Tensor:
    """(C, S) in [-1, 1] -> dB of the mel bands of all channels together (BANDS, frames), low bands first."""
    window = 512 if rate < 16000 else 1024 if rate < 32000 else 2048
    x = torch.nn.functional.pad(x.detach().float().cpu(), (0, max(0, window - x.shape[1])))
    spectrum = torch.stft(
        x, window, window // 4, window=torch.hann_window(window), pad_mode="constant", return_complex=True
    )
    filters = mel_filters(window, BANDS, rate, 0.0, rate / 2, "slaney")
    return 10 * (filters @ spectrum.abs().square().mean(0)).clamp(min=1e-12).log10()


def sound_sheet(
    rows: Mapping[str, Sequence[Tensor]],
    rate: int,
    *,
    title: str = "",
    captions: Sequence[str] = (),
    width: int = 240,
) -> Image:
    """Labelled rows of sounds, a column a clip, on one scale of time: waveform above, log-mel spectrogram below.

    Args:
        rows: by label, the inputs first; clips (C, S) in [-1, 1], those of a column equally long.
        rate: samples a second.
        title: one line above.
        captions: a line under each column.
        width: pixels of the longest clip.
    """
    from PIL import Image, ImageDraw

    clips = next(iter(rows.values()))
    longest = max(clip.shape[1] for clip in clips)
    widths = [max(8, round(width * clip.shape[1] / longest)) for clip in clips]
    margin = 8 + max(map(text_width, rows))
    top = TEXT + 2 * _GAP if title else _GAP
    step = WAVE + HEIGHT + 2 * _GAP
    bottom = TEXT + 2 * _GAP if captions else 0
    across = margin + sum(widths) + _GAP * len(widths)
    sheet = Image.new("RGB", (max(across, text_width(title) + 2 * _GAP), top + len(rows) * step + bottom), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (_GAP, _GAP), title)
    loudest = [float(spectrogram(clip, rate).amax()) for clip in clips]
    for row, (label, batch) in enumerate(rows.items()):
        y = top + row * step
        write(draw, (_GAP, y + WAVE + HEIGHT // 2), label)
        x = margin
        for clip, size, peak in zip(batch, widths, loudest, strict=True):
            sheet.paste(_wave(clip, size), (x, y))
            sheet.paste(coloured(spectrogram(clip, rate), peak).resize((size, HEIGHT)), (x, y + WAVE + 2))
            x += size + _GAP
    x = margin
    for size, caption in zip(widths, captions, strict=False):
        write(draw, (x, top + len(rows) * step), caption)
        x += size + _GAP
    return sheet


def coloured(decibels: Tensor, peak: float) -> Image:
    """dB of bands (bands, frames), low ones first, as colours; `peak` is the brightest."""
    from PIL import Image

    level = ((decibels.flip(0) - peak) / RANGE + 1).clamp(0, 1).numpy() * (len(_COLOURS) - 1)
    below = np.minimum(level.astype(int), len(_COLOURS) - 2)
    share = (level - below)[..., None]
    return Image.fromarray((_COLOURS[below] * (1 - share) + _COLOURS[below + 1] * share).round().astype(np.uint8))


def _wave(clip: Tensor, width: int) -> Image:
    """Extremes of each column of pixels."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (width, WAVE), PAPER)
    draw = ImageDraw.Draw(picture)
    samples = clip.detach().float().mean(0).clamp(-1, 1).cpu().numpy()
    draw.line([(0, WAVE // 2), (width, WAVE // 2)], fill="#d0d7de")
    for column, part in enumerate(np.array_split(samples, width)):
        if len(part):
            high, low = (_row(value) for value in (part.max(), part.min()))
            draw.line([(column, high), (column, low)], fill=_WAVE)
    draw.rectangle([(0, 0), (width - 1, WAVE - 1)], outline=INK)
    return picture


def _row(value: np.floating) -> int:
    return round((1 - float(value)) / 2 * (WAVE - 1))


def interleaved(clip: Tensor) -> NDArray[np.float32]:
    """(C, S) -> (S, C) in [-1, 1], as players take it."""
    return clip.detach().float().clamp(-1, 1).cpu().numpy().T.copy()

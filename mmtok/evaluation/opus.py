"""Opus beside a tokenizer of sounds, through PyAV's libopus: clips to packets of a given bitrate, and back.

Only the bytes of the packets are counted, no container. The encoder's lead-in is cut off by the decoder, to the sample,
so that what comes back lies where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtok.evaluation.audio_quality import Quality, groups_of
from mmtok.evaluation.speech_metrics import build_judges
from mmtok.tokenizers.sounds import resample

RATES = (8000, 12000, 16000, 24000, 48000)
"""Samples a second that libopus takes."""
DECODED = 48000
"""And what FFmpeg gives back, whatever went in."""
LEAST = 6000
"""Bits a second below which Opus does not go; there it has about the band of a telephone."""
BITRATES = (LEAST, 12000)
"""Bits a second that are asked for."""

DEFINITION = (
    "libopus through PyAV, application audio, constrained variable bitrate, frames of 20 ms, each clip by itself; "
    "bits are 8 times the bytes of its packets, without any container, over the clip's length; the lead-in is cut off, "
    "the result shifted by up to 8 samples at 48 kHz to where it fits best, clip by clip, and resampled to the "
    "tokenizer's rate"
)
SHIFT = 8
"""Samples at 48 kHz. Opus resamples inside at low rates, which its lead-in does not tell; SI-SDR would blame it."""


@dataclass(frozen=True)
class Opus:
    """The codec at one bitrate."""

    bits_per_second: int
    """Asked for; what the packets have is counted."""

    @staticmethod
    def lacks() -> str:
        """How to get what is missing; empty where nothing is."""
        if find_spec("av") is None:
            return "pip install av"
        import av

        return "" if "libopus" in av.codecs_available else "PyAV's own wheel, which has libopus: pip install av"

    @property
    def name(self) -> str:
        """As reports carry it."""
        return f"Opus {self.bits_per_second / 1000:g} kb/s"

    def round_trip(self, x: Tensor, rate: int) -> tuple[Tensor, int]:
        """A clip (C, S) in [-1, 1] at `rate` -> what comes back, as long, and the bytes of its packets.

        Raises:
            ValueError: more than two channels.
        """
        channels, samples = x.shape
        if channels > 2:
            raise ValueError(f"Opus is measured on one or two channels, got {channels}.")
        native = next((known for known in RATES if known >= rate), RATES[-1])
        source = x.detach().float().cpu()
        header, packets = self._encode(resample(source, rate, native), native)
        y = _aligned(resample(source, rate, DECODED), _decode(header, packets, channels))
        y = resample(y, DECODED, rate)[:, :samples]
        y = torch.nn.functional.pad(y, (0, samples - y.shape[1])).clamp(-1, 1)
        return y.to(x.device), sum(map(len, packets))

    def _encode(self, x: Tensor, rate: int) -> tuple[bytes, list[bytes]]:
        import av

        encoder: Any = av.CodecContext.create("libopus", "w")
        encoder.sample_rate, encoder.layout, encoder.format = rate, _layout(len(x)), "flt"
        encoder.bit_rate, encoder.time_base = self.bits_per_second, Fraction(1, rate)
        encoder.options = {"application": "audio", "vbr": "constrained"}
        encoder.open()
        frames = _frames(x.T.contiguous().numpy(), rate, encoder.frame_size, _layout(len(x)))
        packets = [bytes(packet) for frame in (*frames, None) for packet in encoder.encode(frame)]
        return bytes(encoder.extradata), packets


@torch.inference_mode()
def measure_opus(
    loader: Iterable[Mapping[str, Any]],
    rate: int,
    *,
    bitrates: Sequence[int] = BITRATES,
    max_samples: int | None = None,
    judge_every: int = 1,
) -> Iterator[dict[str, Any]]:
    """Measure one bitrate after the other, on the clips and by the measures of the tokenizer.

    Args:
        loader: of the clips that the tokenizer was measured on; read once a bitrate.
        rate: their samples a second.
        bitrates: bits a second to ask for.
        max_samples: clips to measure at most, as for the tokenizer.
        judge_every: as for the tokenizer.
    """
    judges, _ = build_judges(wanted=judge_every > 0)
    for bits in bitrates:
        codec, quality = Opus(bits), Quality(rate, torch.device("cpu"), judges, judge_every)
        taken = samples = clips = 0
        for group in groups_of(loader, torch.device("cpu"), max_samples):
            results = [codec.round_trip(x, rate) for x in group.x]
            quality.update(group, torch.stack([y for y, _ in results]))
            taken += sum(size for _, size in results)
            samples += group.x.shape[0] * group.x.shape[2]
            clips += len(group.x)
        measured = {"codec": codec.name, "asked_bits_per_second": bits, "clips": clips}
        yield measured | {"bits_per_second": 8 * taken * rate / samples, "metrics": quality.metrics()}


def choices() -> dict[str, Any]:
    """What would change the numbers of Opus."""
    import av

    return {"definition": DEFINITION, "libraries": {"av": av.__version__}}


def _frames(samples: np.ndarray, rate: int, size: int, layout: str) -> Iterator[Any]:
    """(S, C) in frames of `size`; the last is padded with silence, which decoding cuts off again."""
    import av

    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        part = np.pad(part, ((0, size - len(part)), (0, 0)))
        frame = av.AudioFrame.from_ndarray(part.reshape(1, -1).copy(), format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, start
        yield frame


def _decode(header: bytes, packets: list[bytes], channels: int) -> Tensor:
    """Packets -> (C, S) at 48 kHz, without the lead-in that the header names."""
    import av

    decoder: Any = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.extradata = DECODED, _layout(channels), header
    decoder.open()
    plain = av.AudioResampler(format="fltp", layout=_layout(channels), rate=DECODED)
    pieces = [
        out.to_ndarray()
        for packet in (*map(av.Packet, packets), None)
        for frame in decoder.decode(packet)
        for out in plain.resample(frame)
    ]
    return torch.from_numpy(np.concatenate(pieces, axis=1))


def _aligned(reference: Tensor, y: Tensor) -> Tensor:
    """y (C, S') as far shifted, up to `SHIFT` samples, as fits the reference (C, S) best."""
    y = torch.nn.functional.pad(y, (SHIFT, SHIFT + max(0, reference.shape[1] - y.shape[1])))
    windows = [y[:, start : start + reference.shape[1]] for start in range(2 * SHIFT + 1)]
    return max(windows, key=lambda part: float((part * reference).sum()))


def _layout(channels: int) -> str:
    return "mono" if channels == 1 else "stereo"

"""Fidelity of sounds: SI-SDR and distances of spectra. Sums, so that ranks add up; padding never counts.

Definitions that change a number are in `DEFINITIONS` and go into every report. A reference is what went in, an estimate
is what came back: every function takes them in this order, and the measures are not symmetric (audio.md trap 38).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.losses.mel import mel_filters

SI_SDR_LIMIT = 60.0
"""dB either way that a clip counts for at most: an exact copy and a silent one are infinitely far from all others."""
SILENCE = 1e-4
"""Root mean square (-80 dB of full scale) below which a reference is silent."""
WINDOWS, BANDS = (2048, 512), (150, 80)
FLOOR = 1e-5

DEFINITIONS = {
    "si_sdr": (
        "dB, higher is better: 10 log10(|a r|^2 / |a r - e|^2), a = <e, r> / <r, r>, reference r and estimate e each "
        "without its mean, channels joined (Le Roux et al. 2019); at the tokenizer's sample rate, no alignment; each "
        f"clip limited to +-{SI_SDR_LIMIT:g} dB; mean over clips whose reference is louder than {SILENCE:g} RMS"
    ),
    "mel": (
        "lower is better; DAC's evaluation: for windows 2048 and 512 (hop a quarter, Hann, reflected ends; silence is "
        "added to clips shorter than a window) with 150 and 80 Slaney mel bands of the magnitudes, mean absolute "
        f"difference of log10(max(mel^2, {FLOOR:g})) plus that of mel; the sum over windows, mean over clips; at the "
        "tokenizer's sample rate"
    ),
    "stft": "as mel, on the magnitudes themselves",
    "silent_clips": "clips whose reference is silent; they count in mel and stft, and in nothing else",
}


def si_sdr(reference: Tensor, estimate: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Signals (B, C, S) -> dB of each (B,), positive is better; NaN where the reference is silent.

    Args:
        reference: what went in.
        estimate: what came back. The order matters: the reference is what is scaled.
        lengths: (B,) valid samples of each; None where all are.
    """
    r, e = reference.double(), estimate.double()
    valid = torch.ones_like(r[:, :1], dtype=torch.bool)
    if lengths is not None:
        valid = (torch.arange(r.shape[2], device=r.device) < lengths[:, None])[:, None]
        r, e = r.where(valid, 0.0), e.where(valid, 0.0)
    count = valid.sum((1, 2)).clamp(min=1) * r.shape[1]
    loud = (r.square().sum((1, 2)) / count).sqrt() > SILENCE
    means = [signal.sum((1, 2)) / count for signal in (r, e)]
    r, e = ((s - mean[:, None, None]).where(valid, 0.0).flatten(1) for s, mean in zip((r, e), means, strict=True))
    target = ((e * r).sum(1) / r.square().sum(1))[:, None] * r
    ratio = target.square().sum(1) / (e - target).square().sum(1)
    # 0 / 0 is a silent estimate: as bad as one of pure noise.
    decibels = (10 * ratio.nan_to_num(nan=0.0).log10()).clamp(-SI_SDR_LIMIT, SI_SDR_LIMIT)
    return decibels.where(loud, torch.nan)


def spectral_distances(reference: Tensor, estimate: Tensor, rate: int) -> tuple[Tensor, Tensor]:
    """Signals (B, C, S) without padding, at least one sample -> mel and STFT distance of each, (B,)."""
    channels = reference.shape[1]
    mel = stft = torch.zeros(len(reference), dtype=torch.float64, device=reference.device)
    for window, bands in zip(WINDOWS, BANDS, strict=True):
        r, e = (_magnitudes(signal.flatten(0, 1).float(), window) for signal in (reference, estimate))
        stft = stft + _distance(r, e, channels)
        filters = _filters(window, bands, rate).to(r.device)
        mel = mel + _distance(filters @ r, filters @ e, channels)
    return mel, stft


def _magnitudes(x: Tensor, window: int) -> Tensor:
    """(N, S) -> (N, window / 2 + 1, frames)."""
    x = F.pad(x, (0, max(0, window - x.shape[1])))
    weights = torch.hann_window(window, device=x.device)
    return torch.stft(x, window, window // 4, window=weights, pad_mode="reflect", return_complex=True).abs()


def _distance(r: Tensor, e: Tensor, channels: int) -> Tensor:
    """Magnitudes (B * C, F, frames) -> (B,)."""
    logs = (r.square().clamp(min=FLOOR).log10() - e.square().clamp(min=FLOOR).log10()).abs()
    return (logs + (r - e).abs()).double().mean((1, 2)).view(-1, channels).mean(1)


@cache
def _filters(window: int, bands: int, rate: int) -> Tensor:
    return mel_filters(window, bands, rate, 0.0, rate / 2, "slaney")


def by_length(x: Tensor, lengths: Tensor | None) -> Iterator[tuple[Tensor, int]]:
    """Items of a padded batch (B, C, S) that are equally long: their numbers (n,), and their samples."""
    every = torch.arange(len(x), device=x.device)
    if lengths is None:
        yield every, x.shape[2]
        return
    for length in lengths.unique().tolist():
        yield every[lengths == length], length


class SoundMetrics:
    """Sums over clips of what `DEFINITIONS` says.

    Attributes:
        sums: float64 (len(FIELDS),) on the device of the clips; add those of other ranks before `result`.
    """

    FIELDS = ("count", "si_sdr", "loud", "mel", "stft")

    def __init__(self, rate: int, device: torch.device | str = "cpu") -> None:
        self.rate = rate
        self.sums = torch.zeros(len(self.FIELDS), dtype=torch.float64, device=device)

    def update(self, reference: Tensor, estimate: Tensor, lengths: Tensor | None = None) -> None:
        """Signals (B, C, S) in [-1, 1], padded behind `lengths` (B,) samples. Clips of no samples are left out."""
        assert reference.shape == estimate.shape, (reference.shape, estimate.shape)
        for items, length in by_length(reference, lengths):
            if not length or not len(items):
                continue
            r, e = reference[items, :, :length], estimate[items, :, :length]
            decibels = si_sdr(r, e)
            mel, stft = spectral_distances(r, e, self.rate)
            loud = ~decibels.isnan()
            terms = (len(items), decibels.nan_to_num().sum(), loud.sum(), mel.sum(), stft.sum())
            self.sums += torch.stack([torch.as_tensor(term, dtype=torch.float64).to(self.sums) for term in terms])

    def result(self) -> dict[str, float]:
        """The measures by name; NaN where no clip allowed one."""
        s = dict(zip(self.FIELDS, self.sums.tolist(), strict=True))
        return {
            "si_sdr": _ratio(s["si_sdr"], s["loud"]),
            "mel": _ratio(s["mel"], s["count"]),
            "stft": _ratio(s["stft"], s["count"]),
            "silent_clips": s["count"] - s["loud"],
        }


def _ratio(total: float, count: float) -> float:
    return total / count if count else float("nan")

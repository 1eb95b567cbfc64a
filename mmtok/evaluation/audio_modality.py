"""Sounds, as validation measures, shows and plays them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmtok.codes import CodeSpec
from mmtok.evaluation.audio_metrics import SoundMetrics, si_sdr
from mmtok.evaluation.modality import Exhibit
from mmtok.evaluation.sound_pictures import interleaved, sound_sheet

HEARD, SECONDS = 4, 5
"""Clips that are played, and seconds of each: files of every grid stay in the run directory."""


class SoundMeter:
    """Fidelity of the reconstructions, and the quantization gap in dB of SI-SDR."""

    def __init__(self, rate: int, device: torch.device) -> None:
        self.reconstruction, self.bypass = SoundMetrics(rate, device), SoundMetrics(rate, device)

    @property
    def sums(self) -> dict[str, Tensor]:
        return {"reconstruction": self.reconstruction.sums, "bypass": self.bypass.sums}

    def update(self, x: Tensor, reconstruction: Tensor, bypass: Tensor, lengths: Tensor | None = None) -> None:
        self.reconstruction.update(x, reconstruction, lengths)
        self.bypass.update(x, bypass, lengths)

    def result(self, entropy: float | None = None) -> dict[str, float]:
        found = self.reconstruction.result()
        found["si_sdr_bypass"] = self.bypass.result()["si_sdr"]
        return found | {"quantization_gap": found["si_sdr_bypass"] - found["si_sdr"]}


class AudioModality:
    """Waveforms, spectrograms and the sounds themselves; SI-SDR and distances of spectra."""

    unit = "clips/s"

    def meter(self, spec: CodeSpec, device: torch.device) -> SoundMeter:
        return SoundMeter(_rate(spec), device)

    def glance(
        self, reconstruction: Tensor, x: Tensor, lengths: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        decibels = si_sdr(x, reconstruction, lengths)
        # Silent clips have none. They count as no clips, so that a window's mean is that of all others on all ranks.
        heard = ~decibels.isnan()
        return {"si_sdr": decibels.nanmean().nan_to_num(nan=0.0)}, heard.sum().float()

    def line(self, values: Mapping[str, float]) -> list[str]:
        return [
            f"si-sdr {values['val/si_sdr']:.2f} dB",
            f"mel {values['val/mel']:.3f}",
            f"quantizer costs {values['val/quantization_gap']:.2f} dB",
        ]

    def exhibit(
        self,
        x: Tensor,
        reconstructions: Mapping[str, Tensor],
        spec: CodeSpec,
        *,
        lengths: Tensor | None = None,
        title: str = "",
    ) -> Exhibit | None:
        ends = [x.shape[2]] * len(x) if lengths is None else lengths.tolist()
        kept = [i for i, end in enumerate(ends) if end]
        if not kept:
            return None
        batches = {"input": x} | {f"reconstruction{label}": y for label, y in reconstructions.items()}
        rows = {label: [batch[i, :, : ends[i]] for i in kept] for label, batch in batches.items()}
        captions = [f"clip {i}, {ends[i] / _rate(spec):.2f} s" for i in kept]
        rate = _rate(spec)
        heard = {
            label: {
                f"{i}_{_plain(label)}": interleaved(clip[:, : SECONDS * rate])
                for i, clip in zip(kept[:HEARD], row, strict=False)
            }
            for label, row in rows.items()
        }
        inputs = heard.pop("input")
        sounds = {name: samples for clips in heard.values() for name, samples in clips.items()}
        return Exhibit(sound_sheet(rows, rate, title=title, captions=captions), sounds, inputs, rate)


def _rate(spec: CodeSpec) -> int:
    assert spec.sample_rate is not None, "the spec of a tokenizer of sounds names their sample rate"
    return spec.sample_rate


def _plain(label: str) -> str:
    """As part of a file's name: "reconstruction (EMA)" is reconstruction_ema."""
    return label.lower().replace(" (", "_").removesuffix(")")

"""Judges of speech that other packages bring: PESQ, STOI and DNSMOS. One that is not installed is reported as absent.

All take one clip at a time, mixed down to one channel, and run on the CPU.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmtok.evaluation.audio_metrics import SILENCE
from mmtok.tokenizers.sounds import resample

Clip = NDArray[np.float32]
"""(S,) samples in [-1, 1]."""


class Judge:
    """One measure of one clip. Subclasses write `judge`."""

    name: ClassVar[str]
    packages: ClassVar[dict[str, str]]
    """Module that it needs -> what brings it."""
    definition: ClassVar[str]
    every: ClassVar[int] = 1
    """Of the clips that are judged it is given one in so many."""

    @classmethod
    def lacks(cls) -> str:
        """How to get what is missing; empty where nothing is."""
        missing = [package for module, package in cls.packages.items() if find_spec(module) is None]
        return f"pip install {' '.join(missing)}" if missing else ""

    def score(self, reference: Tensor, estimate: Tensor, rate: int) -> float | str:
        """Signals (C, S) at `rate` -> the score, or why there is none."""
        r, e = (_mono(signal) for signal in (reference, estimate))
        if np.sqrt(np.square(r, dtype=np.float64).mean()) <= SILENCE:
            return "silent"
        return self.judge(r, e, rate)

    def judge(self, reference: Clip, estimate: Clip, rate: int) -> float | str:
        """A reference that is not silent, and its estimate."""
        raise NotImplementedError


class PESQ(Judge):
    """Rix et al. 2001, ITU-T P.862 and P.862.2."""

    name = "pesq"
    packages: ClassVar = {"pesq": "pesq"}
    definition = (
        "package pesq: MOS-LQO, wide band (P.862.2) at 16 kHz, narrow band (P.862) at 8 kHz for tokenizers below 16 "
        "kHz, other rates resampled to these; 1 where the estimate is silent; clips under 0.25 s and without speech "
        "left out"
    )

    def judge(self, reference: Clip, estimate: Clip, rate: int) -> float | str:
        import pesq

        target, mode = (16000, "wb") if rate >= 16000 else (8000, "nb")  # it knows no other rates (audio.md trap 38)
        if len(reference) < rate / 4:
            return "shorter than 0.25 s"
        r, e = (_resampled(clip, rate, target) for clip in (reference, estimate))
        if not np.any(np.abs(e) > 1e-6):  # it divides by the estimate's level
            return 1.0
        try:
            value = float(pesq.pesq(target, r, e, mode))
        except pesq.NoUtterancesError:
            return "no speech found"
        except pesq.PesqError as error:
            return f"{type(error).__name__}"
        return value if np.isfinite(value) else "no number"


class STOI(Judge):
    """Taal et al. 2011."""

    name = "stoi"
    packages: ClassVar = {"pystoi": "pystoi"}
    definition = (
        "package pystoi: short-time objective intelligibility, not extended, 0 to 1; it resamples to 10 kHz; clips "
        "with less than 0.4 s that is not silent left out"
    )

    def judge(self, reference: Clip, estimate: Clip, rate: int) -> float | str:
        import pystoi

        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
            try:
                return float(pystoi.stoi(reference.astype(np.float64), estimate.astype(np.float64), rate))
            except (RuntimeWarning, ValueError):  # of clips shorter than one of its frames
                return "too little that is not silent"


class DNSMOS(Judge):
    """Reddy et al. 2022 (arXiv 2110.01763), P.835. Its network takes 9.01 s; shorter clips are repeated, as there."""

    name = "dnsmos"
    packages: ClassVar = {"speechmos": "speechmos", "onnxruntime": "onnxruntime"}
    definition = (
        "DNSMOS P.835 overall quality (OVRL, 1 to 5) of the estimate alone, without reference: the network of package "
        "speechmos, at 16 kHz, clips repeated to 9.01 s, mean over windows a second apart; "
        "of every fourth clip that the others judge"
    )
    every = 4  # about half a second of computing a clip, however short
    RATE, SAMPLES = 16000, 144160

    def judge(self, reference: Clip, estimate: Clip, rate: int) -> float | str:
        clip = _resampled(estimate, rate, self.RATE)
        clip = np.tile(clip, -(-self.SAMPLES // len(clip)))
        clip = clip.clip(-1, 1)
        starts = range(0, len(clip) - self.SAMPLES + 1, self.RATE)
        raw = [float(_dnsmos().run(None, {"input_1": clip[None, s : s + self.SAMPLES]})[0][0][2]) for s in starts]
        # The polynomial that maps the network's output to listeners' scores, from the authors' script.
        return float(np.polyval([-0.06766283, 1.11546468, 0.04602535], raw).mean())


JUDGES: tuple[type[Judge], ...] = (PESQ, STOI, DNSMOS)


class Judgement:
    """Sums of the scores of some clips, by judge; and why others have none."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        self.judges = judges
        self._seen = 0
        self._sums = {judge.name: [0.0, 0] for judge in judges}
        self._reasons: dict[str, Counter[str]] = {judge.name: Counter() for judge in judges}

    def update(self, reference: Tensor, estimate: Tensor, rate: int) -> None:
        """One clip (C, S) and what came back."""
        for judge in self.judges:
            if self._seen % judge.every:
                continue
            value = judge.score(reference, estimate, rate)
            if isinstance(value, str):
                self._reasons[judge.name][value] += 1
            else:
                self._sums[judge.name][0] += value
                self._sums[judge.name][1] += 1
        self._seen += 1

    def result(self) -> dict[str, float]:
        """Mean of each judge over the clips that have a score; NaN where none has."""
        return {name: total / count if count else float("nan") for name, (total, count) in self._sums.items()}

    def clips(self) -> dict[str, Any]:
        """How many clips each mean is over, and why others were left out."""
        return {
            name: {"judged": count, "left_out": dict(self._reasons[name])} for name, (_, count) in self._sums.items()
        }


def build_judges(*, wanted: bool = True) -> tuple[list[Judge], dict[str, str]]:
    """Those whose packages are here, and for the others how to get them; none where none is `wanted`."""
    if not wanted:
        return [], {judge.name: "absent: no clip was to be judged" for judge in JUDGES}
    lacks = {judge.name: judge.lacks() for judge in JUDGES}
    here = [judge() for judge in JUDGES if not lacks[judge.name]]
    return here, {name: f"absent: {remedy}" for name, remedy in lacks.items() if remedy}


def definitions(judges: Sequence[Judge], absent: Mapping[str, str]) -> dict[str, str]:
    """What each judge measures, or that it is absent."""
    return {judge.name: judge.definition for judge in judges} | dict(absent)


def _mono(signal: Tensor) -> Clip:
    return signal.detach().float().mean(0).cpu().numpy()


def _resampled(clip: Clip, rate: int, target: int) -> Clip:
    return resample(torch.from_numpy(clip)[None, None], rate, target)[0, 0].numpy()


@cache
def _dnsmos() -> Any:
    import onnxruntime

    spec = find_spec("speechmos")
    assert spec is not None
    assert spec.origin is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = Path(spec.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

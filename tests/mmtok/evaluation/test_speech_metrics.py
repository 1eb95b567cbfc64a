"""Judges of other packages: what they need, what they leave out, and that an absent one is said to be."""

import math

import numpy as np
import pytest
import torch

from mmtok.evaluation import speech_metrics
from mmtok.evaluation.speech_metrics import DNSMOS, PESQ, STOI, Judgement, build_judges, definitions


def speech(seconds, rate, seed=0):
    """Bursts of coloured noise: what the judges take for words."""
    generator = np.random.default_rng(seed)
    count = int(seconds * rate)
    colour = np.convolve(generator.standard_normal(count), np.ones(4) / 4, "same")
    bursts = (np.sin(2 * np.pi * 3 * np.arange(count) / rate) > -0.5) * 0.2
    return torch.from_numpy((colour * bursts).astype(np.float32))[None]


def test_a_package_that_is_not_here_is_reported_with_the_remedy(monkeypatch):
    monkeypatch.setattr(speech_metrics, "find_spec", lambda name: None)
    judges, absent = build_judges()
    assert judges == []
    assert absent == {
        "pesq": "absent: pip install pesq",
        "stoi": "absent: pip install pystoi",
        "dnsmos": "absent: pip install speechmos onnxruntime",
    }
    assert definitions(judges, absent) == absent


def test_pesq_falls_with_noise_at_every_rate():
    """audio.md trap 38: it takes 8 and 16 kHz alone, so other rates are resampled."""
    pytest.importorskip("pesq")
    for rate in (8000, 16000, 24000):
        x = speech(2, rate)
        scores = [PESQ().score(x, x + gain * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), rate)
                  for gain in (0.0, 0.01, 0.1)]  # fmt: skip
        assert scores == sorted(scores, reverse=True), rate
        assert 1 <= scores[-1] < scores[0] < 4.7


def test_pesq_of_silence_is_no_error():
    """audio.md trap 38: it raises on silence."""
    pytest.importorskip("pesq")
    x = speech(1, 16000)
    assert PESQ().score(torch.zeros_like(x), x, 16000) == "silent"
    assert PESQ().score(x, torch.zeros_like(x), 16000) == 1.0
    assert PESQ().score(x[:, :2000], x[:, :2000], 16000) == "shorter than 0.25 s"


def test_stoi_is_one_of_a_copy_and_leaves_short_clips_out():
    pytest.importorskip("pystoi")
    x = speech(2, 16000)
    assert STOI().score(x, x, 16000) == pytest.approx(1, abs=1e-6)
    assert STOI().score(x, speech(2, 16000, seed=4), 16000) < 0.7
    assert STOI().score(x[:, :3000], x[:, :3000], 16000) == "too little that is not silent"
    assert STOI().score(x[:, :50], x[:, :50], 16000) == "too little that is not silent"


def test_dnsmos_needs_no_reference_and_takes_any_length():
    pytest.importorskip("speechmos")
    pytest.importorskip("onnxruntime")
    x = speech(1, 16000)
    value = DNSMOS().score(x, x, 16000)
    assert 1 <= value <= 5
    assert DNSMOS().score(speech(1, 16000, seed=3), x, 16000) == value


def test_means_are_over_the_clips_that_have_a_score():
    class Half(speech_metrics.Judge):
        name = "half"

        def judge(self, reference, estimate, rate):
            return float(estimate.mean()) if len(reference) > 2 else "short"

    judged = Judgement([Half()])
    for x in (torch.ones(2, 4), torch.ones(1, 4) * 0.5, torch.ones(1, 2), torch.zeros(1, 4)):
        judged.update(x, x, 16000)
    assert judged.result() == {"half": 0.75}
    assert judged.clips() == {"half": {"judged": 2, "left_out": {"short": 1, "silent": 1}}}
    assert math.isnan(Judgement([Half()]).result()["half"])

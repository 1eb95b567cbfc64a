"""Opus as a baseline: bits that are the packets' own, and sounds that come back where they were."""

import pytest
import torch

from mmtok.evaluation.audio_metrics import si_sdr
from mmtok.evaluation.opus import Opus, measure_opus
from mmtok.tokenizers.sounds import resample

pytest.importorskip("av")


@pytest.fixture(autouse=True)
def no_judges(monkeypatch):
    monkeypatch.setattr("mmtok.evaluation.opus.build_judges", lambda wanted: ([], {}))


def tune(seconds, rate, channels=1):
    time = torch.arange(int(seconds * rate)) / rate
    tone = sum(torch.sin(2 * torch.pi * 220 * k * time) / k for k in range(1, 4))
    return (0.2 * tone * (1 + torch.sin(2 * torch.pi * 3 * time)) / 2).expand(channels, -1).contiguous()


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 44100])
@pytest.mark.parametrize("samples", [0.1, 1.0])
def test_a_clip_comes_back_as_long_and_where_it_was(rate, samples):
    x = tune(samples, rate)
    y, size = Opus(64000).round_trip(x, rate)
    assert y.shape == x.shape
    assert size > 0
    assert float(si_sdr(x[None], y[None])) > 20
    shifted = torch.nn.functional.pad(y, (8, 0))[:, : x.shape[1]]
    assert float(si_sdr(x[None], shifted[None])) < float(si_sdr(x[None], y[None]))


def test_more_bits_are_asked_for_and_given_and_sound_better():
    x = tune(3, 24000)[None]
    rows = list(measure_opus([{"x": x, "key": ["a"]}], 24000, bitrates=(6000, 24000), judge_every=100))
    assert [row["bits_per_second"] for row in rows] == pytest.approx([6000, 24000], rel=0.3)
    assert rows[0]["metrics"]["mel"] > rows[1]["metrics"]["mel"]


def test_two_channels_are_coded_and_more_refused():
    y, _ = Opus(32000).round_trip(tune(0.5, 48000, 2), 48000)
    assert y.shape == (2, 24000)
    with pytest.raises(ValueError, match="one or two channels"):
        Opus(6000).round_trip(torch.zeros(3, 480), 48000)


def test_padding_of_a_batch_costs_no_bits():
    x = tune(1, 16000)
    padded = torch.zeros(2, 1, 32000)
    padded[0], padded[1, :, :16000] = resample(tune(2, 16000), 16000, 16000), x
    batch = {"x": padded, "lengths": torch.tensor([32000, 16000]), "key": ["a", "b"]}
    (whole,) = measure_opus([batch], 16000, bitrates=(12000,))
    parts = [Opus(12000).round_trip(part, 16000)[1] for part in (padded[0], x)]
    assert whole["bits_per_second"] == pytest.approx(8 * sum(parts) / 3)

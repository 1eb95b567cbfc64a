"""Definitions of the measures of sounds, held to other code where there is some, and what padding must not do."""

import math

import pytest
import torch

from mmtok.evaluation.audio_metrics import (
    DEFINITIONS,
    SI_SDR_LIMIT,
    SoundMetrics,
    by_length,
    si_sdr,
    spectral_distances,
)

RATE = 16000


def noise(*shape, seed=0, gain=0.1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * gain


def test_si_sdr_is_the_ratio_of_uncorrelated_parts():
    x = torch.sin(torch.arange(16000) / 7.0)[None, None]
    n = torch.cos(torch.arange(16000) / 7.0)[None, None] * 0.1  # orthogonal, a hundredth of the energy
    assert float(si_sdr(x, x + n)) == pytest.approx(20, abs=0.05)


def test_si_sdr_is_positive_for_what_is_good_and_falls_with_noise():
    """audio.md trap 38: others report it negated."""
    x = noise(1, 1, 8000)
    values = [float(si_sdr(x, x + noise(1, 1, 8000, seed=1, gain=gain))) for gain in (0.001, 0.01, 0.1)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 35


def test_neither_gain_nor_offset_of_the_estimate_counts():
    x, e = noise(2, 1, 8000), noise(2, 1, 8000, seed=2)
    torch.testing.assert_close(si_sdr(x, x + e), si_sdr(x, 0.3 * (x + e) + 0.05))


def test_the_first_argument_is_the_reference():
    """audio.md trap 38: an estimate that is the reference's half in time is judged by what it should have been."""
    x = noise(1, 1, 8000)
    silent_half = x * (torch.arange(8000) < 4000)
    assert float(si_sdr(reference=x, estimate=silent_half)) == pytest.approx(0, abs=0.5)
    silence = torch.zeros_like(x)
    assert float(si_sdr(reference=x, estimate=silence)) == -SI_SDR_LIMIT
    assert math.isnan(float(si_sdr(reference=silence, estimate=x)))


def test_an_exact_copy_is_the_limit():
    assert float(si_sdr(noise(1, 2, 100), noise(1, 2, 100))) == SI_SDR_LIMIT


def test_lengths_hide_the_padding():
    x, e = noise(2, 1, 6000), noise(2, 1, 6000, seed=3)
    lengths = torch.tensor([6000, 2500])
    e = x + 0.3 * e
    e[1, :, 2500:] = 7.0
    alone = si_sdr(x[1:, :, :2500], e[1:, :, :2500])
    torch.testing.assert_close(si_sdr(x, e, lengths)[1:], alone)


def test_distances_are_those_of_dac(monkeypatch):
    """Written out from its definition; librosa's filters are torchaudio's with Slaney's scale and norm."""
    torchaudio = pytest.importorskip("torchaudio")
    x, y = noise(3, 1, 9000), noise(3, 1, 9000, seed=5)
    mel, stft = torch.zeros(3), torch.zeros(3)
    for window, bands in ((2048, 150), (512, 80)):
        transform = torchaudio.transforms.Spectrogram(window, hop_length=window // 4, power=1)
        a, b = transform(x[:, 0]), transform(y[:, 0])
        filters = torchaudio.functional.melscale_fbanks(
            window // 2 + 1, 0.0, RATE / 2, bands, RATE, norm="slaney", mel_scale="slaney"
        )
        for total, (s, t) in ((stft, (a, b)), (mel, (filters.T @ a, filters.T @ b))):
            logs = (s**2).clamp(1e-5).log10() - (t**2).clamp(1e-5).log10()
            total += logs.abs().mean((1, 2)) + (s - t).abs().mean((1, 2))
    ours = spectral_distances(x, y, RATE)
    torch.testing.assert_close(ours[0].float(), mel, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours[1].float(), stft, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 200, 1024, 2048])
def test_clips_shorter_than_a_window_have_distances(samples):
    x = noise(1, 1, samples)
    same, other = spectral_distances(x, x, RATE), spectral_distances(x, 3 * x, RATE)
    assert float(same[0]) == float(same[1]) == 0
    assert all(math.isfinite(float(value)) for value in other)


def test_sums_of_padded_batches_and_ranks_are_those_of_single_clips():
    x, y = noise(3, 1, 5000), noise(3, 1, 5000, seed=1)
    lengths = torch.tensor([5000, 3000, 1500])
    batch = SoundMetrics(RATE)
    batch.update(x, y, lengths)
    ranks = [SoundMetrics(RATE), SoundMetrics(RATE)]
    for i, length in enumerate(lengths.tolist()):
        ranks[i % 2].update(x[i : i + 1, :, :length], y[i : i + 1, :, :length])
    ranks[0].sums += ranks[1].sums
    assert batch.result() == pytest.approx(ranks[0].result(), rel=1e-6)
    assert batch.result().keys() <= {*DEFINITIONS}


def test_silent_references_are_counted_and_spoil_no_mean():
    x, y = noise(2, 1, 4000), noise(2, 1, 4000, seed=1)
    x[1] = 0
    sums = SoundMetrics(RATE)
    sums.update(x, y)
    found = sums.result()
    assert found["silent_clips"] == 1
    assert found["si_sdr"] == pytest.approx(float(si_sdr(x[:1], y[:1])))
    assert math.isfinite(found["mel"])


def test_a_rank_without_clips_adds_nothing():
    sums = SoundMetrics(RATE)
    sums.update(torch.zeros(0, 1, 100), torch.zeros(0, 1, 100))
    sums.update(torch.zeros(1, 1, 100), torch.zeros(1, 1, 100), torch.tensor([0]))
    assert float(sums.sums.abs().sum()) == 0
    assert math.isnan(sums.result()["si_sdr"])


def test_items_of_one_length_come_together():
    groups = {length: items.tolist() for items, length in by_length(torch.zeros(4, 1, 9), torch.tensor([9, 4, 9, 2]))}
    assert groups == {9: [0, 2], 4: [1], 2: [3]}
    assert [length for _, length in by_length(torch.zeros(2, 1, 9), None)] == [9]

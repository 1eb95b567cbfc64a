"""Rates and channels: a piece equals its slice of the whole, resampled or not; loudness of silence is a number."""

import io
import sys

import numpy as np
import pytest

from datamodules import clip as module
from datamodules.clip import Clip, loudness, resample, resampled_length, to_channels
from datamodules.shardindex import DecodeError
from mmtok.schema import ConfigError

soundfile = pytest.importorskip("soundfile")


def noise(seconds=3.0, rate=16_000, channels=1, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (int(seconds * rate), channels)).astype(np.float32)


def flac(samples, rate):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    return buffer.getvalue()


@pytest.mark.parametrize(("rate", "wanted"), [(16_000, 16_000), (8_000, 24_000), (44_100, 16_000), (22_050, 44_100)])
@pytest.mark.parametrize("start", [0, 1, 777, 12_345])
def test_a_piece_is_the_slice_of_the_whole_at_any_rate(rate, wanted, start):
    data = flac(noise(rate=rate, channels=2), rate)
    whole, part = Clip(data, "flac", wanted), Clip(data, "flac", wanted, 1000)
    assert part._whole is None
    assert part.length == whole.length == resampled_length(3 * rate, rate, wanted)
    for samples in (1, 1000):
        np.testing.assert_allclose(part.cut(start, samples), whole.cut(start, samples), atol=2e-6)
    tail = whole.cut(whole.length - 100, 1000)
    assert tail.shape == (2, 100)
    np.testing.assert_allclose(part.cut(whole.length - 100, 1000), tail, atol=2e-6)


def test_resampling_keeps_what_is_below_the_cutoff_and_drops_what_is_above():
    time = np.arange(48_000) / 48_000
    low, high = (np.sin(2 * np.pi * f * time)[None].astype(np.float32) for f in (1_000, 10_000))
    expected = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(resample(low, 48_000, 16_000)[0, 100:-100], expected[100:-100], atol=2e-3)
    assert np.abs(resample(high, 48_000, 16_000)[0, 100:-100]).max() < 2e-3


def test_kernels_are_made_once():
    """audio.md 6: others build a Resample for every sample."""
    module._resampler.cache_clear()
    for _ in range(3):
        resample(noise().T, 16_000, 24_000)
        resample(noise().T, 8_000, 12_000)  # the same ratio
    assert module._resampler.cache_info().misses == 1


def test_a_rate_without_a_short_ratio_is_refused_before_its_kernel_is_made():
    with pytest.raises(DecodeError, match="44099"):
        resample(noise().T, 44_099, 16_000)


def test_a_missing_torchaudio_says_how_to_install_it(monkeypatch):
    module._resampler.cache_clear()
    monkeypatch.setitem(sys.modules, "torchaudio.transforms", None)
    with pytest.raises(ConfigError, match=r"mmtok\[audio\]"):
        resample(noise().T, 8_000, 16_000)


def test_channels_are_averaged_or_repeated_and_nothing_else():
    stereo = noise(channels=2).T
    np.testing.assert_allclose(to_channels(stereo, 1)[0], stereo.mean(0), atol=1e-7)
    np.testing.assert_array_equal(to_channels(stereo[:1], 2), stereo[[0, 0]])
    assert to_channels(stereo, 2) is stereo
    with pytest.raises(DecodeError, match="3 channels"):
        to_channels(np.zeros((3, 10), np.float32), 2)


def test_the_loudness_of_silence_is_a_number():
    """audio.md trap 34: minus infinity there becomes NaN later."""
    assert loudness(np.zeros((1, 100), np.float32)) == -200
    assert loudness(np.zeros((1, 0), np.float32)) == -200
    assert loudness(np.full((1, 100), 0.1, np.float32)) == pytest.approx(-20, abs=1e-4)
